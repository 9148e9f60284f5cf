"""Checkpoints in diffusers' folder layout → Flax modules and parameters.

Everything that can be wrong with a folder is found from its JSON files and the headers of its
weight files, before any weight is read. The way back is `tda_jax.models.export`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tda_jax import fingerprint
from tda_jax import params as tree
from tda_jax.diffusion.schedules import NoiseSchedule, schedule_from_config
from tda_jax.errors import InputError
from tda_jax.models import converted, lora, names
from tda_jax.models.families import FAMILIES, Family, slots, template
from tda_jax.models.folders import SCHEDULER, choose_weights, class_name, read_json, sort_index
from tda_jax.models.weight_files import WeightFiles, find_weights


class Record(NamedTuple):
    """What a component was made from: to be kept with every result that depends on it."""

    class_name: str
    folder: str
    weights: str  # "ema", "raw", "ema by its config", or "unstated" where nothing says
    tensors: int  # in the checkpoint, each of them used once
    fingerprint: str  # sha256 of config, weights, LoRA files and their strengths
    lora: tuple[tuple[str, str, float], ...]  # (file name, sha256, strength), in merging order


class Component(NamedTuple):
    """A network: `module.apply({"params": params}, ...)`."""

    module: nn.Module
    params: dict[str, Any]  # float32
    groups: dict[str, str]  # parameter group → pattern for `tda_jax.params.split`
    config: dict[str, Any]  # config.json as it was read
    record: Record


class Pipeline(NamedTuple):
    """The components of a pipeline that are ported, and the classes of those that are not."""

    components: dict[str, Component]
    schedule: NoiseSchedule | None
    index: dict[str, Any]  # model_index.json
    unsupported: dict[str, str]  # component → class


class _Lora(NamedTuple):
    """A LoRA file that was found to fit."""

    path: Path
    changes: dict[str, lora.LowRank]
    strength: float


class _Plan(NamedTuple):
    """A component whose folder was found to be whole and fitting; no weight has been read."""

    folder: Path
    family: Family
    config: dict[str, Any]
    settings: Any
    shapes: dict[str, Any]
    weights: WeightFiles
    feeds: list[names.Feed]
    kind: str
    class_name: str
    loras: tuple[_Lora, ...]


def _plan(
    folder: Path,
    expected_class: str | None,
    *,
    ema: bool,
    variant: str | None,
    loras: Mapping[str | Path, float] | None,
) -> _Plan:
    """Checks a component's folder from its config and headers, and the LoRA files for it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: the component's folder is missing; complete the download")
    folder, variant, kind = choose_weights(folder.absolute(), ema=ema, variant=variant)
    source = folder / "config.json"
    config = read_json(source)
    name = class_name(config, source)
    if expected_class is not None and name != expected_class:
        raise InputError(
            f"{source}: is for class {name}, but model_index.json says {expected_class}; "
            f"take both from one and the same checkpoint"
        )
    family = FAMILIES[name]
    settings = family.read_config(config, str(source))
    shapes = template(family, settings)
    leaves = slots(family, shapes)
    weights = find_weights(folder, variant)
    found = _floating_shapes(weights, family.constants)
    feeds = names.match(leaves, found, str(folder), family.aliases)
    fitting = _fitting_loras(loras or {}, family.lora_prefix, leaves)
    return _Plan(folder, family, config, settings, shapes, weights, feeds, kind, name, fitting)


def _floating_shapes(weights: WeightFiles, constants: str | None) -> dict[str, tuple[int, ...]]:
    """The tensors to be used: all but the family's constants."""
    found = {
        key: info
        for key, info in weights.info().items()
        if constants is None or not re.fullmatch(constants, key)
    }
    for key, info in found.items():
        if not jnp.issubdtype(info.dtype, jnp.floating):
            raise InputError(
                f"{info.file}: {key} is of type {info.dtype}, no floating type; quantised weights "
                f"are not supported, so take the checkpoint in float32, float16 or bfloat16"
            )
    return {key: info.shape for key, info in found.items()}


def _fitting_loras(
    loras: Mapping[str | Path, float], prefix: str, leaves: list[names.Slot]
) -> tuple[_Lora, ...]:
    fitting, seen = [], set()
    for path, strength in loras.items():
        path = Path(path)
        if path.resolve() in seen:
            raise InputError(f"{path}: is given twice as a LoRA; give it once, with one strength")
        seen.add(path.resolve())
        changes = lora.read_lora(path, prefix)
        lora.check(path, changes, strength, leaves)
        fitting.append(_Lora(path, changes, float(strength)))
    return tuple(fitting)


def _tensors(plan: _Plan) -> Iterator[tuple[names.Slot, np.ndarray]]:
    """Every slot with its tensor in the torch layout, in the order of the files."""
    owner = {name: feed for feed in plan.feeds for name in feed.tensors}
    waiting: dict[str, np.ndarray] = {}
    for name, tensor in plan.weights.read(list(owner)):
        waiting[name] = tensor
        feed = owner[name]
        if all(part in waiting for part in feed.tensors):
            yield feed.slot, names.combine([waiting.pop(part) for part in feed.tensors])


def _read(plan: _Plan) -> dict[str, Any]:
    """Reads, merges and turns the weights, one tensor at a time."""
    flat: tree.Flat = {}
    for slot, tensor in _tensors(plan):
        module = slot.torch_name.removesuffix(".weight")
        for _, changes, strength in plan.loras:
            if module in changes and slot.torch_name.endswith(".weight"):
                tensor = lora.merged(tensor.astype(np.float32), changes[module], strength)
        leaf = names.to_flax(slot, tensor)
        # A finite sum has finite terms; only a suspicious one is looked at element by element.
        if not np.isfinite(leaf.sum(dtype=np.float64)) and not np.isfinite(leaf).all():
            raise InputError(
                f"{plan.folder}: {slot.torch_name} is not finite in float32; the checkpoint or a "
                f"LoRA is damaged or its training diverged, so take another one"
            )
        flat[slot.path] = jnp.asarray(leaf)
    return jax.block_until_ready(tree.merge(flat))


def _load(plan: _Plan, cache: Path | None) -> Component:
    """Reads a component, or restores its converted copy."""
    if cache is not None and cache.exists() and not cache.is_dir():
        raise InputError(f"{cache}: is a file; give a folder for converted copies")
    memo = cache / "hashes.json" if cache else None
    key = fingerprint.of_files([plan.folder / "config.json", *plan.weights.files], memo)
    merged = tuple((p.name, fingerprint.of_files([p], memo), s) for p, _, s in plan.loras)
    if merged:
        key = fingerprint.of_text(key, *(repr(entry) for entry in merged))
    params = converted.restore(cache, key, plan.shapes) if cache else None
    if params is None:
        params = _read(plan)
        if cache:
            converted.keep(cache, key, params)
    record = Record(
        class_name=plan.class_name,
        folder=plan.folder.name,
        weights=plan.kind,
        tensors=sum(len(feed.tensors) for feed in plan.feeds),
        fingerprint=key,
        lora=merged,
    )
    module = plan.family.build(plan.settings)
    return Component(module, params, plan.family.groups(plan.settings), plan.config, record)


def load_component(
    folder: str | Path,
    *,
    ema: bool = True,
    variant: str | None = None,
    loras: Mapping[str | Path, float] | None = None,
    cache: str | Path | None = None,
) -> Component:
    """Loads one component: a folder with `config.json` and weights.

    Args:
      folder: the component's folder, for example `.../unet`.
      ema: take averaged weights where the folder, or its sibling `<name>_ema`, holds them; False
        asks for the raw ones. Which were read is in the record.
      variant: diffusers' file variant, such as "fp16".
      loras: LoRA files in diffusers' format, each with the strength at which it is merged.
      cache: a folder for converted copies; the next start from the same files is quicker.

    Returns:
      The component, its parameters in float32. Peak memory is that of the parameters and about
      one tensor more.

    Raises:
      InputError: names the file, the value and the remedy; raised before weights are read.
    """
    plan = _plan(Path(folder), None, ema=ema, variant=variant, loras=loras)
    return _load(plan, Path(cache) if cache else None)


def load_pipeline(
    folder: str | Path,
    parts: tuple[str, ...] | None = None,
    *,
    ema: bool = True,
    variant: str | None = None,
    loras: Mapping[str | Path, float] | None = None,
    cache: str | Path | None = None,
) -> Pipeline:
    """Loads a pipeline folder: `model_index.json` and one folder for each component.

    Args:
      folder: the pipeline's folder.
      parts: the components to load, by their names in `model_index.json`; None loads every one
        that is ported and lists the others in `Pipeline.unsupported`.
      ema: as in `load_component`; of the denoiser.
      variant: as in `load_component`; of every component.
      loras: as in `load_component`; merged into the component named `unet`.
      cache: as in `load_component`.

    Raises:
      InputError: names the file, the value and the remedy; every component is checked before the
        weights of the first one are read.
    """
    folder = Path(folder)
    index = read_json(folder / "model_index.json")
    wanted, unported = sort_index(folder, index, parts)
    schedule = None
    if scheduler := wanted.pop(SCHEDULER, None):
        source = folder / SCHEDULER / "scheduler_config.json"
        # diffusers builds the class that the index names, whatever class wrote the config.
        config = read_json(source) | {"_class_name": scheduler}
        schedule = schedule_from_config(config, str(source))
    if loras and "unet" not in wanted:
        raise InputError(f"{folder}: loras change the unet, which is not loaded; add it to parts")
    plans = {
        name: _plan(
            folder / name,
            cls,
            ema=ema or name != "unet",
            variant=variant,
            loras=loras if name == "unet" else None,
        )
        for name, cls in wanted.items()
    }
    components = {name: _load(plan, Path(cache) if cache else None) for name, plan in plans.items()}
    return Pipeline(components, schedule, index, unported)
