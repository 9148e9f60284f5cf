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
_SUMS = "sums.json"


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


def _sum(leaf: jax.Array) -> int:
    """The sum of a float32 array's bits, as 32-bit words: any damaged word changes it."""
    words = np.ascontiguousarray(np.asarray(leaf)).view(np.uint32)
    return int(words.sum(dtype=np.uint64))


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
        return _restore(folder, shapes)
    except MemoryError:
        raise
    except Exception as error:  # whatever TensorStore or Orbax raise on damaged files
        logging.warning("%s: damaged copy (%s); the checkpoint is read again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _restore(folder: Path, shapes: Any) -> Any:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    how = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=here), shapes)
    with _checkpointer(_largest(shapes)) as checkpointer:
        restored = checkpointer.restore(
            folder / "params", args=ocp.args.PyTreeRestore(item=shapes, restore_args=how)
        )
    flat, wanted = tree.flatten(restored), tree.flatten(shapes)
    sums = json.loads((folder / _SUMS).read_text())
    for path, shape in wanted.items():
        leaf = flat[path]
        if leaf.shape != shape.shape or leaf.dtype != shape.dtype or _sum(leaf) != sums[path]:
            raise ValueError(f"{path} is not what was kept")
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
            checkpointer.save(part / "params", args=ocp.args.PyTreeSave(kept))
        sums = {path: _sum(leaf) for path, leaf in tree.flatten(params).items()}
        (part / _SUMS).write_text(json.dumps(sums))
        part.rename(folder)
    except MemoryError:
        raise
    except Exception as error:  # whatever TensorStore or Orbax raise when they cannot write
        if not folder.exists():
            logging.warning("%s: no converted copy was kept (%s)", folder, error)
    finally:
        shutil.rmtree(part, ignore_errors=True)
