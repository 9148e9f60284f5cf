import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import params as tree
from tda_jax.diffusion.losses import per_example_loss
from tda_jax.evaluation.small_unet import small_unet
from tda_jax.evaluation.synthetic import synthetic_corpus
from tda_jax.examples import take
from tda_jax.models.denoiser import predict_fn
from tda_jax.training.denoiser import fit
from tda_jax.training.loop import Recipe


def loss_over(corpus, made, draws=20):
    """(params, rows, rows of the conditions) -> mean loss, on the same draws for every track."""
    loss = per_example_loss(predict_fn(made.module), made.schedule)
    t = jnp.asarray((np.arange(draws) + 0.5) * len(made.schedule.alpha) / draws, jnp.int32)
    noise = jax.random.normal(jax.random.key(5), (draws, *corpus.examples.latent.shape[1:]))

    @jax.jit
    def one(params, latent, condition):
        each = jax.vmap(loss, in_axes=(None, None, None, 0, 0))
        return jnp.mean(each(params, latent, condition, t, noise))

    def mean(params, rows, told):
        latents = take(corpus, rows).examples.latent
        texts = take(corpus, told).examples.condition
        return np.mean(
            [
                one(params, latent, jax.tree.map(lambda x, i=i: x[i], texts))
                for i, latent in enumerate(latents)
            ]
        )

    return mean


def split_rows(corpus, split):
    return np.array([i for i, entry in enumerate(corpus.metadata) if entry["split"] == split])


def test_it_is_small_and_has_every_group():
    made = small_unet(0)
    assert sum(p.size for p in jax.tree.leaves(made.params)) == 411_964
    assert set(made.groups) == {
        "cross_attention_kv",
        "cross_attention",
        "self_attention",
        "transformer",
        "all",
    }
    for pattern in made.groups.values():
        assert tree.split(made.params, pattern)[0]
    assert made.schedule.alpha.shape == (1000,)
    again, other = small_unet(0), small_unet(1)
    same = jax.tree.map(np.array_equal, made.params, again.params)
    assert all(jax.tree.leaves(same))
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, made.params, other.params)))


@pytest.mark.slow
def test_it_learns_the_captions_and_then_the_members():
    corpus, made = synthetic_corpus(0), small_unet(0)
    members = np.flatnonzero(corpus.members)
    levels = {}
    fit(
        predict_fn(made.module),
        made.schedule,
        made.params,
        take(corpus, members).examples,
        Recipe(2000, 16, 4e-3, 0),
        callback=levels.__setitem__,
        callback_steps=(400, 1000, 2000),
    )
    mean = loss_over(corpus, made)
    shuffled = np.random.default_rng(0).permutation(members)
    held_out, unseen = split_rows(corpus, "held_out"), split_rows(corpus, "unseen")
    table = {
        step: [
            mean(params, members, members),
            mean(params, held_out, held_out),
            mean(params, unseen, unseen),
            mean(params, members, shuffled),
        ]
        for step, params in levels.items()
    }
    early, late = table[400], table[2000]
    assert early[1] < 0.24  # generalises
    assert early[3] > 1.1 * early[0]  # reads the caption
    assert late[0] < 0.12  # has memorised members
    assert late[1] > 2 * late[0]  # and not decoys
    assert late[2] > late[1]  # the less so of works it never met
