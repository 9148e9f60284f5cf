"""Figures that are promises: what a load may take, at full size."""

import pytest

from benchmarks import loading


@pytest.mark.slow
def test_a_load_takes_at_most_1_3_times_the_checkpoint(tmp_path):
    folder = loading._random_unet(tmp_path / "unet")
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert size > 7e8  # AudioLDM-s in float32
    assert loading.load_once(folder)["peak"] <= 1.3 * size
