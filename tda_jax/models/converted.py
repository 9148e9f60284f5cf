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


def _checkpointer() -> ocp.Checkpointer:
    # Trained weights do not compress: compression would cost seconds and save nothing.
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False))


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
    with _checkpointer() as checkpointer:
        return checkpointer.restore(
            folder, args=ocp.args.PyTreeRestore(item=target, restore_args=how)
        )


def keep(cache: Path, key: str, params: Any) -> None:
    """Keeps parameters; Orbax renames a whole copy into place, so half a one is never found."""
    with _checkpointer() as checkpointer:
        checkpointer.save(_folder(cache, key), args=ocp.args.PyTreeSave(params))
