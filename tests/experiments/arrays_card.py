"""The default card of `experiments.attribute`, shrunk to seconds, and folders that it made."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
SHRUNK = {
    "group": "cross_attention_kv",
    "fisher_draws": 2,
    "query_draws": 16,
    "blocks": 4,
    "strata": 10,
    "batch": 8,
    "queries_per_pass": 2,
    "chunk": 5,
}
SYNTHETIC = {
    "works": 3,
    "variants": 4,
    "captions": 2,
    "held_out": 2,
    "unseen_works": 1,
    "steps": 4,
    "batch": 4,
    "queries": 2,
}
MEMBERS, TRACKS = 12, 20


def default():
    spec = importlib.util.spec_from_file_location("card", ROOT / "configs" / "arrays.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def shrunk(workdir, **changes):
    """The card of the synthetic default."""
    config = default()
    config.workdir = str(workdir)
    config.update({**SHRUNK, **changes})
    config.synthetic.update(SYNTHETIC)
    return config


def folders(workdir, made, corpus=None, **changes):
    """The card of a user with folders: those that a shrunk default made under `made`."""
    given = {
        "model": str(made / "synthetic" / "model"),
        "corpus": str(made / "synthetic" / "corpus" if corpus is None else corpus),
        "query_ids": "work00-v00",
        "corpus_size": MEMBERS,
    }
    return shrunk(workdir, **given | changes)


def arguments(config):
    """The same settings as flags of a command."""
    names = [*SHRUNK, "model", "corpus", "query_ids", "corpus_size", "workdir", "cache"]
    return [f"--config.{name}={config[name]}" for name in names]


def copied(made, folder):
    """A copy of the corpus that may be spoilt."""
    shutil.copytree(made / "synthetic" / "corpus", folder)
    return folder


def change(corpus, field, function):
    """Replaces a field's arrays by function(arrays by id)."""
    path = corpus / f"{field}.npz"
    with np.load(path) as file:
        arrays = function(dict(file))
    np.savez(path, **arrays)
