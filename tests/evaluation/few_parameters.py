"""A network of a few hundred parameters with text cross-attention, which compiles in a moment."""

import jax
import jax.numpy as jnp
import numpy as np

from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.network import Network
from tda_jax.evaluation.synthetic import CHANNELS, TEXT_DIM

HIDDEN = 6
GROUPS = {
    "cross_attention_kv": "block/attn2/to_[kv]",
    "transformer": "block/.*",
    "all": ".*",
}
_SCHEDULE = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}


def _draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]), jnp.float32)


def network(seed=0):
    rng = np.random.default_rng([seed, 7])
    params = {
        "input": {"kernel": _draw(rng, CHANNELS, HIDDEN), "time": _draw(rng, 2, HIDDEN)},
        "block": {
            "attn2": {
                "to_q": _draw(rng, HIDDEN, HIDDEN),
                "to_k": _draw(rng, TEXT_DIM, HIDDEN),
                "to_v": _draw(rng, TEXT_DIM, HIDDEN),
            },
            "mix": _draw(rng, HIDDEN, HIDDEN),
        },
        "output": {"kernel": _draw(rng, HIDDEN, CHANNELS)},
    }
    return Network(predict, schedule_from_config(_SCHEDULE, "test"), params, GROUPS)


def predict(params, x, t, condition):
    dtype = x.dtype
    angle = jnp.asarray(t, jnp.float32) / 1000
    time = jnp.stack([jnp.cos(angle), jnp.sin(angle)]).astype(dtype) @ params["input"]["time"]
    hidden = jnp.tanh(x @ params["input"]["kernel"] + time[None, None])
    attn = params["block"]["attn2"]
    text = condition.text.astype(dtype)
    weight = (hidden @ attn["to_q"]) @ (text @ attn["to_k"]).T
    weight = jnp.where(condition.text_mask[None, None], weight, jnp.asarray(-1e4, dtype))
    hidden = hidden + jax.nn.softmax(weight) @ (text @ attn["to_v"])
    return jnp.tanh(hidden @ params["block"]["mix"]) @ params["output"]["kernel"]


def plan(**changes):
    small = Plan(
        seeds=(0,),
        works=3,
        variants=2,
        captions=2,
        held_out=2,
        unseen_works=1,
        updates=(2, 4),
        batch=4,
        learning_rate=1e-2,
        queries=2,
        groups=("cross_attention_kv", "all"),
        damping=0.1,
        fisher_draws=2,
        query_draws=16,
        replicates=2,
        strata=10,
        own_replicates=2,
        rise=0.1,
        rates=(1e-3, 1e-2),
        studied_queries=1,
        studied_groups=("cross_attention_kv",),
        rises=(0.03, 0.1),
        draw_counts=(10, 20),
        query_draw_counts=(4, 8),
        caliper=0.5,
    )
    return small._replace(**changes)
