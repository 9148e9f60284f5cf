"""Seconds to trace, lower and compile the losses of AudioLDM-s, once. Prints one JSON line.

python -m benchmarks.forward_compile BATCH DTYPE CACHE_FOLDER
"""

import json
import sys
import time

import jax

from benchmarks.forward_jax import arguments, losses


def main(batch: str, dtype: str, cache: str) -> None:
    """Compiles under a persistent cache, which the second run of this program finds filled."""
    jax.config.update("jax_compilation_cache_dir", cache)
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arguments(int(batch), dtype)
    )
    start = time.perf_counter()
    traced = losses().trace(*shapes)
    lowered_at = time.perf_counter()
    lowered = traced.lower()
    compiled_at = time.perf_counter()
    lowered.compile()
    seconds = {"trace": lowered_at - start, "lower": compiled_at - lowered_at}
    seconds["compile"] = time.perf_counter() - compiled_at
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
