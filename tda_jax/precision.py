"""The floating type that sums and differences are computed in."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def working_dtype(dtype: Any) -> Any:
    """The type to compute in: float32 for 16-bit inputs, else the input's own (float64 stays)."""
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def in_working_dtype(*arrays: Float[Array, "..."]) -> list[Float[Array, "..."]]:
    """Casts arrays to the `working_dtype` of the first."""
    dtype = working_dtype(arrays[0].dtype)
    return [jax.lax.convert_element_type(a, dtype) for a in arrays]
