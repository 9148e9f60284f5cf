"""Golden outputs of torch, so that parity is proved where torch is not installed.

    python -m tests.models.golden [CASE …]

makes them again, those of the named cases only if any are named; it needs the extra [parity]. Each
file says which versions made it.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.models import cases, checkpoints, compare

FOLDER = Path(__file__).parent / "golden"
MANIFESTS = FOLDER / "manifests.json.gz"
SEED = 0


def manifests():
    """Torch's own names and shapes: case → {name: shape}."""
    return json.loads(gzip.decompress(MANIFESTS.read_bytes()))["tensors"]


def outputs(name):
    """Torch's outputs for a small case, gradients sketched."""
    with np.load(FOLDER / f"{name}.npz") as f:
        stored = dict(f)
    sketches = stored.pop("gradients")
    keys = stored.pop("gradient_names")
    stored.pop("made_by")
    return stored | dict(zip(keys.tolist(), sketches, strict=True))


def checkpoint(folder, name, seed=SEED):
    """Writes the checkpoint of a case; the same weights for torch and for us."""
    case = (cases.SMALL | cases.FULL)[name]
    state = checkpoints.random_state(manifests()[name], seed)
    return checkpoints.write_component(folder, case, state)


def main(*chosen):
    from tests.models import torch_side

    wanted = {n: c for n, c in (cases.SMALL | cases.FULL).items() if n in chosen or not chosen}
    assert not set(chosen) - set(wanted), f"no such case among {chosen}"
    versions = f"torch {torch_side.torch.__version__}, diffusers {torch_side.diffusers.__version__}"
    versions += f", transformers {torch_side.transformers.__version__}"
    shapes = manifests() if chosen else {}
    shapes |= {name: torch_side.state_shapes(case) for name, case in wanted.items()}
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"made_by": versions, "tensors": shapes}, separators=(",", ":"))
    MANIFESTS.write_bytes(gzip.compress(text.encode(), mtime=0))
    for name, case in wanted.items():
        if name not in cases.SMALL:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = checkpoint(Path(scratch) / "model", name)
            out = torch_side.run(folder, case, SEED, cases.wanted(name))
        out = compare.sketched(out)
        keys = sorted(key for key in out if key.startswith("gradient:"))
        kept = {key: value for key, value in out.items() if key not in keys}
        sketches = np.stack([out[key] for key in keys])
        np.savez_compressed(
            FOLDER / f"{name}.npz",
            **kept,
            gradients=sketches,
            gradient_names=keys,
            made_by=versions,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
