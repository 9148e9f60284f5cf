import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def strict_float32():
    """Strict promotion, and float32 by default; a test of float64 turns that on itself."""
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        yield


@pytest.fixture(scope="session")
def recipe():
    """The module make_golden: configs, inputs and the toy network (torch is not imported)."""
    path = Path(__file__).with_name("make_golden.py")
    spec = importlib.util.spec_from_file_location("make_golden", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden(recipe):
    return json.loads(recipe.GOLDEN.read_text())["cases"]


@pytest.fixture(scope="session")
def assert_close():
    """The bounds of every comparison with diffusers: relative RMS 1e-5, absolute 2e-5."""

    def check(ours, theirs):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        assert ours.shape == theirs.shape
        assert np.all(np.isfinite(theirs))
        error = ours - theirs
        assert np.sqrt(np.mean(error**2)) <= 1e-5 * np.sqrt(np.mean(theirs**2))
        assert np.max(np.abs(error)) <= 2e-5

    return check
