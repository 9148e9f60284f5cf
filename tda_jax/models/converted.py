"""Converted copies of checkpoints, so that the next start skips reading and turning torch weights.

A copy is kept under a fingerprint of everything it was made from; another checkpoint, another LoRA
or another version of the conversion never meets it.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from tda_jax import fingerprint

# Raise by one whenever the same files would give other parameters.
CONVERSION = 1


def _checkpointer(largest: int) -> ocp.Checkpointer:
    """A checkpointer for trees whose largest leaf has so many bytes.

    Trained weights do not compress, so that compression would cost seconds and save nothing. What
    is read at a time is bounded, since it stands in memory beside the parameters.
    """
    at_a_time = max(1.5e8, 2.0 * largest)
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(use_compression=False, restore_concurrent_gb=at_a_time / 1e9)
    )


def _largest(params: Any) -> int:
    return max(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def _folder(cache: Path, key: str) -> Path:
    return cache.absolute() / fingerprint.of_text(key, str(CONVERSION))[:32]


def restore(cache: Path, key: str, shapes: Any) -> Any | None:
    """The parameters kept under a fingerprint, or None where there are none."""
    folder = _folder(cache, key)
    if not folder.exists():
        return None
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
    how = ocp.checkpoint_utils.construct_restore_args(target)
    with _checkpointer(_largest(shapes)) as checkpointer:
        return checkpointer.restore(
            folder, args=ocp.args.PyTreeRestore(item=target, restore_args=how)
        )


def keep(cache: Path, key: str, params: Any) -> None:
    """Keeps parameters; Orbax renames a whole copy into place, so half a one is never found."""
    with _checkpointer(_largest(params)) as checkpointer:
        checkpointer.save(_folder(cache, key), args=ocp.args.PyTreeSave(params))
