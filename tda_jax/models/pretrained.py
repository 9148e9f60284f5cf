"""Checkpoints in diffusers' folder layout → Flax modules and parameters.

Everything that can be wrong with a folder is found from its JSON files and the headers of its
weight files, before any weight is read. The way back is `tda_jax.models.export`.
"""

import json
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
from tda_jax.models.config_keys import EMA_KEYS
from tda_jax.models.families import FAMILIES, Family, slots, template
from tda_jax.models.weight_files import WeightFiles, find_weights

SCHEDULER = "scheduler"


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


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      InputError: the file is absent, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as JSON ({error}); give a folder that diffusers' "
            f"save_pretrained wrote"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__}, not an object; restore the file")
    return value


def _class_name(config: Mapping[str, Any], source: Path) -> str:
    """Diffusers writes `_class_name`, transformers `architectures`."""
    given = config.get("_class_name") or config.get("architectures")
    name = given[0] if isinstance(given, list) and len(given) == 1 else given
    if not isinstance(name, str):
        raise InputError(
            f"{source}: names no class ({given!r} as _class_name or architectures); "
            f"restore the config that belongs to the weights"
        )
    if name not in FAMILIES:
        raise InputError(
            f"{source}: class {name} is not supported yet; supported are {sorted(FAMILIES)}"
        )
    return name


def _choose(folder: Path, *, ema: bool, variant: str | None) -> tuple[Path, str | None, str]:
    """The folder, the variant, and the kind of weights: what the names on disk say.

    Training scripts of diffusers keep averaged weights in a sibling `<name>_ema`; some published
    checkpoints hold them in the plain file, with the others as variant `non_ema` beside it. EMA
    keys in a config are weaker evidence: they stay in it when averaged weights are trained on.
    """
    if folder.name.endswith("_ema"):
        kind = "ema"
    elif variant == "non_ema":
        return folder, variant, "raw"
    elif any(folder.glob("*.non_ema.*")):
        if not ema and variant is None:
            return folder, "non_ema", "raw"
        kind = "ema"
    else:
        sibling = folder.with_name(f"{folder.name}_ema")
        if sibling.is_dir():
            return (sibling, variant, "ema") if ema else (folder, variant, "raw")
        config = folder / "config.json"
        averaged = config.is_file() and bool(EMA_KEYS & read_json(config).keys())
        return folder, variant, "ema by its config" if averaged else "unstated"
    if not ema:
        which = f"variant {variant}" if variant else "the plain file"
        raise InputError(
            f"{folder}: {which} holds averaged (EMA) weights, and raw ones were asked for; "
            f"ask for EMA weights, or give the folder or variant of the raw ones"
        )
    return folder, variant, kind


def _plan(folder: Path, class_name: str | None, *, ema: bool, variant: str | None) -> _Plan:
    """Checks a component's folder from its config and headers."""
    if not folder.is_dir():
        raise InputError(f"{folder}: the component's folder is missing; complete the download")
    folder, variant, kind = _choose(folder.resolve(), ema=ema, variant=variant)
    source = folder / "config.json"
    config = read_json(source)
    name = _class_name(config, source)
    if class_name is not None and name != class_name:
        raise InputError(
            f"{source}: is for class {name}, but model_index.json says {class_name}; "
            f"take both from one and the same checkpoint"
        )
    family = FAMILIES[name]
    settings = family.read_config(config, str(source))
    shapes = template(family, settings)
    weights = find_weights(folder, variant)
    found = weights.info()
    for key, info in found.items():
        if not jnp.issubdtype(info.dtype, jnp.floating):
            raise InputError(
                f"{info.file}: {key} is of type {info.dtype}, no floating type; quantised weights "
                f"are not supported, so take the checkpoint in float32, float16 or bfloat16"
            )
    tensors = {key: info.shape for key, info in found.items()}
    feeds = names.match(slots(family, shapes), tensors, str(folder), family.aliases)
    return _Plan(folder, family, config, settings, shapes, weights, feeds, kind, name)


def _tensors(plan: _Plan) -> Iterator[tuple[names.Slot, np.ndarray]]:
    """Every slot with its tensor in the torch layout, in the order of the files."""
    owner = {name: feed for feed in plan.feeds for name in feed.tensors}
    waiting: dict[str, np.ndarray] = {}
    for name, tensor in plan.weights.read(list(owner)):
        waiting[name] = tensor
        feed = owner[name]
        if all(part in waiting for part in feed.tensors):
            yield feed.slot, names.combine([waiting.pop(part) for part in feed.tensors])


def _read(plan: _Plan, changes: list[tuple[dict[str, lora.LowRank], float]]) -> dict[str, Any]:
    """Reads, merges and turns the weights, one tensor at a time."""
    flat: tree.Flat = {}
    for slot, tensor in _tensors(plan):
        module = slot.torch_name.removesuffix(".weight")
        for change, strength in changes:
            if module in change and slot.torch_name.endswith(".weight"):
                tensor = lora.merged(tensor.astype(np.float32), change[module], strength)
        leaf = names.to_flax(slot, tensor)
        # A finite sum has finite terms; only a suspicious one is looked at element by element.
        if not np.isfinite(leaf.sum(dtype=np.float64)) and not np.isfinite(leaf).all():
            raise InputError(
                f"{plan.folder}: {slot.torch_name} is not finite in float32; the checkpoint or a "
                f"LoRA is damaged or its training diverged, so take another one"
            )
        flat[slot.path] = jnp.asarray(leaf)
    return jax.block_until_ready(tree.merge(flat))


def _load(plan: _Plan, loras: Mapping[Path, float], cache: Path | None) -> Component:
    """Reads a component, or restores its converted copy."""
    leaves = [feed.slot for feed in plan.feeds]
    changes = []
    for path, strength in loras.items():
        change = lora.read_lora(path, plan.family.lora_prefix)
        lora.check(path, change, strength, leaves)
        changes.append((change, strength))
    memo = cache / "hashes.json" if cache else None
    key = fingerprint.of_files([plan.folder / "config.json", *plan.weights.files], memo)
    merged = tuple((p.name, fingerprint.of_files([p], memo), s) for p, s in loras.items())
    if merged:
        key = fingerprint.of_text(key, *(repr(entry) for entry in merged))
    params = converted.restore(cache, key, plan.shapes) if cache else None
    if params is None:
        params = _read(plan, changes)
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


def _lora_paths(loras: Mapping[str | Path, float] | None) -> dict[Path, float]:
    paths: dict[Path, float] = {}
    for path, strength in (loras or {}).items():
        resolved = Path(path).resolve()
        if resolved in paths:
            raise InputError(f"{path}: is given twice as a LoRA; give it once, with one strength")
        paths[resolved] = float(strength)
    return paths


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
    plan = _plan(Path(folder), None, ema=ema, variant=variant)
    return _load(plan, _lora_paths(loras), Path(cache) if cache else None)


def _sort_index(
    folder: Path, index: Mapping[str, Any], parts: tuple[str, ...] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """The ported components that are wanted, and those of the folder that are not ported."""
    listed = {
        name: entry[1]
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
    }
    ported = {n: c for n, c in listed.items() if c in FAMILIES or n == SCHEDULER}
    unported = {n: c for n, c in listed.items() if n not in ported}
    for name in parts or ():
        if name in unported:
            raise InputError(
                f"{folder}: component {name} is a {unported[name]}, which is not supported yet; "
                f"supported are {sorted(FAMILIES)} and schedulers"
            )
        if name not in ported:
            raise InputError(
                f"{folder}/model_index.json: has no component {name}; it has {sorted(listed)}"
            )
    wanted = {n: c for n, c in ported.items() if parts is None or n in parts}
    if not wanted:
        raise InputError(
            f"{folder}: none of its components {listed} is supported yet; "
            f"supported are {sorted(FAMILIES)}"
        )
    return wanted, unported


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
    wanted, unported = _sort_index(folder, index, parts)
    schedule = None
    if class_name := wanted.pop(SCHEDULER, None):
        source = folder / SCHEDULER / "scheduler_config.json"
        # diffusers builds the class that the index names, whatever class wrote the config.
        config = read_json(source) | {"_class_name": class_name}
        schedule = schedule_from_config(config, str(source))
    paths = _lora_paths(loras)
    if paths and "unet" not in wanted:
        raise InputError(f"{folder}: loras change the unet, which is not loaded; add it to parts")
    plans = {
        name: _plan(folder / name, cls, ema=ema or name != "unet", variant=variant)
        for name, cls in wanted.items()
    }
    components = {
        name: _load(plan, paths if name == "unet" else {}, Path(cache) if cache else None)
        for name, plan in plans.items()
    }
    return Pipeline(components, schedule, index, unported)
