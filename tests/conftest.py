"""Strict promotion for every test, and programs that are compiled fast and once for all."""

import gc
import os
from pathlib import Path

# Compiling takes most of the time of most tests, a third less of it without LLVM's optimisations.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
)

import hypothesis
import jax
import pytest

from tests import gcs

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

hypothesis.settings.register_profile("untimed", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def _served():
    """A server of buckets for TensorStore, array_record and gcsfs, here and in other processes."""
    with gcs.serving() as (held, address), pytest.MonkeyPatch.context() as patch:
        names = ("TENSORSTORE_GCS_HTTP_URL", "STORAGE_EMULATOR_HOST")
        for name in (*names, "CLOUD_STORAGE_EMULATOR_ENDPOINT"):
            patch.setenv(name, address)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        yield held


@pytest.fixture
def bucket(_served):
    """An empty bucket: what `gs://bucket/...` holds, by the objects' names."""
    _served.empty()
    return _served


@pytest.fixture(autouse=True, scope="module")
def _programs_end_with_their_module():
    """Each compiled program takes memory maps; a process that reaches its limit of them crashes."""
    yield
    jax.clear_caches()
    gc.collect()
