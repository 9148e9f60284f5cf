"""Run cards as the entry points read them: the default, with changes."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def card(name, **changes):
    """The card `configs/NAME.py`; a change may name a nested setting, "vae.steps"."""
    spec = importlib.util.spec_from_file_location("card", ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.update_from_flattened_dict(changes)
    return config
