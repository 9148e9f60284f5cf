"""Hours to attribute the paper's corpus on 8, 64 and 256 devices: arithmetic, from stated rates.

    python -m benchmarks.on_paper --out=benchmarks/results/on-paper.json --rate=FLOP_PER_SECOND

Operations of a pass are XLA's count for the two UNets, and a formula for the transformer. The rate
is that of one device in `benchmarks.sweep --bfloat16`; without one that is measured the table is
drawn for several, and says that they are assumed. Work is divided evenly: no collective runs in a
sweep.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks.forward_setting import FLOP_PER_EXAMPLE
from tda_jax.models.denoiser import Condition, predict_fn
from tda_jax.models.families import FAMILIES, template
from tda_jax.models.unet_config import unet_config

_OUT = flags.DEFINE_string("out", None, "JSON file for the result.")
_RATE = flags.DEFINE_float("rate", None, "FLOP/s of one device, measured; else some are assumed.")
_ASSUMED = (50e12, 100e12, 200e12)  # an H100 has a peak of 989e12 in bfloat16
_TRACKS, _DRAWS, _FISHER_DRAWS, _QUERY_DRAWS = 115_000, 10, 10, 2048
_DEVICES = (8, 64, 256)
_GRADIENT = 3  # passes: forward, and twice that backward
_DIRECTIONS = 8
_TANGENT = 1.6  # passes of one of them; benchmarks/results/sweep-cpu.json, all transformer layers
_PAPER_HOURS = 40  # of an H100, for one query's sweep: 5 hours on 8


class _Transformer(NamedTuple):
    """Stable Audio Open's, with as many frames as the paper's model has at most."""

    parameters: float = 1.057e9
    layers: int = 24
    width: int = 1536
    frames: int = 2584

    @property
    def flops(self) -> float:
        """Of a pass: a product with each parameter for each frame, and attention among frames."""
        return 2 * self.frames * (self.parameters + 2 * self.layers * self.frames * self.width)


def main(argv: list[str]) -> None:
    """Prints and writes the table."""
    del argv
    passes = {
        "Fisher information, once": _TRACKS * _FISHER_DRAWS * _GRADIENT,
        "losses before, once": _TRACKS * _DRAWS,
        "a query: its gradient": _QUERY_DRAWS * _GRADIENT,
        "a query: exact sweep": _TRACKS * _DRAWS,
        f"a query: linearised sweep, {_DIRECTIONS} directions": round(
            _TRACKS * _DRAWS * (1 + _DIRECTIONS * _TANGENT)
        ),
    }
    flops = {
        "AudioLDM-s, 10.24 s": FLOP_PER_EXAMPLE,
        "Stable Diffusion 1.5, 64 x 64": _stable_diffusion(),
        "transformer of 1 B, 2,584 frames": _Transformer().flops,
    }
    rates = [_RATE.value] if _RATE.value else list(_ASSUMED)
    result: dict[str, Any] = {
        "tracks": _TRACKS,
        "draws": _DRAWS,
        "passes": passes,
        "flops_of_a_pass": flops,
        "rates": rates,
        "rates_are": "measured" if _RATE.value else "assumed: no accelerator was measured",
        "hours": {
            model: {
                f"{rate / 1e12:g} TFLOP/s": {
                    stage: [count * each / rate / n / 3600 for n in _DEVICES]
                    for stage, count in passes.items()
                }
                for rate in rates
            }
            for model, each in flops.items()
        },
    }
    before_and_after = 2 * _TRACKS * _DRAWS * flops["transformer of 1 B, 2,584 frames"]
    result["rate_of_the_papers_sweep"] = before_and_after / (_PAPER_HOURS * 3600)
    _say(result)
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {_OUT.value}")


def _stable_diffusion() -> float:
    """Operations of a pass through the UNet, from its program before it is compiled."""
    config = unet_config(
        {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}, "SD 1.5"
    )
    family = FAMILIES["UNet2DConditionModel"]
    predict = predict_fn(family.build(config))

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    condition = Condition(None, shape(77, 768), None)
    lowered = jax.jit(predict).lower(
        template(family, config), shape(64, 64, 4), jax.ShapeDtypeStruct((), jnp.int32), condition
    )
    return float(lowered.cost_analysis()["flops"])


def _say(result: dict[str, Any]) -> None:
    print(f"{_TRACKS:,} tracks, {_DRAWS} draws each; rates are {result['rates_are']}")
    for model, by_rate in result["hours"].items():
        print(f"{model}: {result['flops_of_a_pass'][model] / 1e9:,.0f} GFLOP a pass")
        for rate, stages in by_rate.items():
            for stage, hours in stages.items():
                each = ", ".join(f"{h:,.3g}" for h in hours)
                print(f"  at {rate:<12} {stage:<44} {each} hours on {_DEVICES} devices")
    print(
        f"the paper's sweep, {_PAPER_HOURS} H100-hours a query, runs at "
        f"{result['rate_of_the_papers_sweep'] / 1e12:.0f} TFLOP/s if it is losses before and after "
        f"of {_DRAWS} draws at full length"
    )


if __name__ == "__main__":
    app.run(main)
