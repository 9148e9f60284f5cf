"""Finding the way in a pipeline folder: where each component lies, its class, its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tda_jax.errors import InputError
from tda_jax.models.config_keys import EMA_KEYS
from tda_jax.models.families import FAMILIES

SCHEDULER = "scheduler"


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


def class_name(config: Mapping[str, Any], source: Path) -> str:
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


def choose_weights(folder: Path, *, ema: bool, variant: str | None) -> tuple[Path, str | None, str]:
    """The folder, the variant, and the kind of weights: what the names on disk say.

    Training scripts of diffusers keep averaged weights in a sibling `<name>_ema`; some published
    checkpoints hold them in the plain file, with the others as variant `non_ema` beside it. EMA
    keys in a config are weaker evidence: they stay in it when averaged weights are trained on.

    Raises:
      InputError: raw weights were asked for where only averaged ones are.
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


def sort_index(
    folder: Path, index: Mapping[str, Any], parts: tuple[str, ...] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """The ported components that are wanted, and those of the folder that are not ported.

    Raises:
      InputError: a wanted component is not there or not ported, or none is.
    """
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
