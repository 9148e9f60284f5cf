"""Flax parameters → a folder that diffusers and transformers load."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from tda_jax import params as tree
from tda_jax.diffusion.schedules import schedule_to_config
from tda_jax.errors import InputError
from tda_jax.models import names
from tda_jax.models.families import FAMILIES, slots
from tda_jax.models.folders import SCHEDULER
from tda_jax.models.pretrained import Component, Pipeline


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A scratch folder beside `folder` that becomes it if all goes well."""
    if folder.exists():
        raise InputError(f"{folder}: exists already; give a new folder, nothing is overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part.", dir=folder.parent))
    try:
        yield part
        part.chmod(0o755)  # mkdtemp's is for its owner only
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def save_component(folder: str | Path, component: Component) -> None:
    """Writes config and weights, float32, as torch's names and layouts.

    Weight norm and LoRA, where the checkpoint had them, stay merged.

    Raises:
      InputError: the folder exists, or a parameter is not finite.
    """
    family = FAMILIES[component.record.class_name]
    flat = tree.flatten(component.params)
    tensors = {}
    for slot in slots(family, component.params):
        leaf = np.asarray(jax.device_get(flat[slot.path]), dtype=np.float32)
        if not np.isfinite(leaf).all():
            raise InputError(f"parameter {slot.path} is not finite; it is not worth keeping")
        tensors[slot.torch_name] = names.to_torch(slot, leaf)
    with _new(Path(folder)) as part:
        save_file(tensors, part / family.weights_name, metadata={"format": "pt"})
        _write_json(part / "config.json", component.config)


def save_pipeline(folder: str | Path, pipeline: Pipeline) -> None:
    """Writes the components that were loaded, the scheduler's config and `model_index.json`.

    Components that are not ported keep their lines in `model_index.json` only if their folders
    are added by hand, so they are left out of it.

    Raises:
      InputError: the folder exists, or a parameter is not finite.
    """
    with _new(Path(folder)) as part:
        for name, component in pipeline.components.items():
            save_component(part / name, component)
        kept = set(pipeline.components)
        if pipeline.schedule is not None:
            kept.add(SCHEDULER)
            (part / SCHEDULER).mkdir()
            _write_json(
                part / SCHEDULER / "scheduler_config.json", schedule_to_config(pipeline.schedule)
            )
        index = {
            key: value
            for key, value in pipeline.index.items()
            if key in kept or not isinstance(value, list)
        }
        _write_json(part / "model_index.json", index)
