"""Checks a diffusers pipeline folder, says what it holds, and writes it again on request.

python -m experiments.checkpoint --config=configs/checkpoint.py --config.folder=/models/audioldm
"""

from pathlib import Path

import jax
import numpy as np

from experiments import cards
from tda_jax import params as tree
from tda_jax.models import export, pretrained
from tda_jax.models.random_pipeline import write_random_pipeline


def _count(params: dict) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def describe(pipeline: pretrained.Pipeline) -> str:
    """What was loaded, as the lines of a table."""
    lines = []
    for name, component in pipeline.components.items():
        record = component.record
        lines.append(
            f"{name:<10} {record.class_name:<22} {record.tensors:>4} tensors, each used once   "
            f"{_count(component.params):>13,} parameters   weights: {record.weights}   "
            f"sha256 {record.fingerprint[:12]}"
        )
        for group, pattern in component.groups.items():
            selected, _ = tree.split(component.params, pattern)
            lines.append(f"{'':<10}   group {group:<20} {_count(selected):>13,}   {pattern}")
        lines += [
            f"{'':<10}   LoRA {file} (sha256 {sha[:12]}) at strength {strength:g}"
            for file, sha, strength in record.lora
        ]
    if pipeline.schedule is not None:
        kind = pipeline.schedule.prediction_type
        lines.append(f"{'scheduler':<10} {len(pipeline.schedule.alpha)} timesteps, {kind}")
    lines += [f"{n:<10} {c}: not supported yet" for n, c in pipeline.unsupported.items()]
    return "\n".join(lines)


def run(config) -> pretrained.Pipeline:  # noqa: ANN001 - a ConfigDict
    """Loads, describes and, where `config.export` is given, writes the pipeline again."""
    folder = config.folder
    if not folder:
        folder = Path(config.workdir) / "random_audioldm"
        if not folder.exists():
            write_random_pipeline(folder, seed=0)
        print(f"no folder was given: {folder} holds a small AudioLDM with random weights")
    pipeline = pretrained.load_pipeline(
        folder,
        ema=config.ema,
        variant=config.variant or None,
        loras=dict(config.loras),
        cache=config.cache or None,
    )
    print(describe(pipeline))
    if config.export:
        export.save_pipeline(config.export, pipeline)
        print(f"wrote {config.export}")
    return pipeline


if __name__ == "__main__":
    cards.start(run, "configs/checkpoint.py")
