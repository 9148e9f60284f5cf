"""Converted copies of checkpoints, so that the next start skips reading and turning torch weights.

A copy is kept under a fingerprint of everything it was made from; another checkpoint, another LoRA
or another version of the conversion never meets it. It is a convenience: whatever is wrong with
one, the checkpoint itself is read instead.
"""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from tda_jax import fingerprint
from tda_jax import params as tree

# Raise by one whenever the same files would give other parameters.
CONVERSION = 1
_PARAMS, _SUMS = "params", "sums.json"


def _checkpointer(largest: int) -> ocp.Checkpointer:
    """A checkpointer of this process alone, for trees whose largest leaf has so many bytes.

    Trained weights do not compress, so that compression would cost seconds and save nothing. What
    is read at a time is bounded, since it stands in memory beside the parameters.
    """
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"converted_{me}"
    )
    handler = ocp.PyTreeCheckpointHandler(
        use_compression=False,
        restore_concurrent_gb=max(1.5e8, 2.0 * largest) / 1e9,
        multiprocessing_options=alone,
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _largest(params: Any) -> int:
    return max(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def _sums(folder: Path) -> dict[str, list[int]]:
    """Size and sum of 32-bit words of each file below a folder; one damaged word changes the sum.

    Several times quicker than a hash, and damage, unlike malice, is all that it must notice.
    """
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total = 0
        with path.open("rb") as f:
            while block := f.read(2**24):
                words = np.frombuffer(block + b"\0" * (-len(block) % 4), np.uint32)
                total += int(words.sum(dtype=np.uint64))
        found[str(path.relative_to(folder))] = [path.stat().st_size, total]
    return found


def _folder(cache: Path, key: str) -> Path:
    return cache.absolute() / fingerprint.of_text(key, str(CONVERSION))[:32]


def restore(cache: Path, key: str, shapes: Any) -> Any | None:
    """The parameters kept under a fingerprint, or None where there is no sound copy.

    A damaged copy is reported in the log and removed.
    """
    folder = _folder(cache, key)
    if not folder.exists():
        return None
    try:
        if json.loads((folder / _SUMS).read_text()) != _sums(folder / _PARAMS):
            raise ValueError("its files are not those that were kept")
        return _restore(folder / _PARAMS, shapes)
    except MemoryError:
        raise
    except Exception as error:  # whatever TensorStore or Orbax raise, another version's say
        logging.warning("%s: damaged copy (%s); the checkpoint is read again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _restore(folder: Path, shapes: Any) -> Any:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    how = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=here), shapes)
    with _checkpointer(_largest(shapes)) as checkpointer:
        restored = checkpointer.restore(
            folder, args=ocp.args.PyTreeRestore(item=shapes, restore_args=how)
        )
    found, wanted = tree.flatten(restored), tree.flatten(shapes)
    for path, shape in wanted.items():
        if (found[path].shape, found[path].dtype) != (shape.shape, shape.dtype):
            raise ValueError(f"{path} is not of the shape that was kept")
    return restored


def keep(cache: Path, key: str, params: Any) -> None:
    """Keeps parameters. The whole copy is renamed into place, so half a one is never found.

    If another process was quicker, its copy stays: it was made from the same files. A failure, such
    as a full disk, is reported in the log and leaves nothing behind; the parameters are there.
    """
    folder = _folder(cache, key)
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        # Orbax copies numpy arrays, and refuses arrays of one process where there are several.
        kept = params if jax.process_count() == 1 else jax.tree.map(np.asarray, params)
        with _checkpointer(_largest(params)) as checkpointer:
            checkpointer.save(part / _PARAMS, args=ocp.args.PyTreeSave(kept))
        (part / _SUMS).write_text(json.dumps(_sums(part / _PARAMS)))
        part.rename(folder)
    except MemoryError:
        raise
    except Exception as error:  # whatever TensorStore or Orbax raise when they cannot write
        if not folder.exists():
            logging.warning("%s: no converted copy was kept (%s)", folder, error)
    finally:
        shutil.rmtree(part, ignore_errors=True)
