"""The README's example of a model of one's own runs as it stands."""

import re
from pathlib import Path

import jax

README = Path(__file__).parent.parent / "README.md"


def test_the_example_of_a_model_of_ones_own(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    example = next(block for block in blocks if "class Denoiser" in block)
    monkeypatch.chdir(tmp_path)
    # With JAX's own defaults, which a reader has.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("track 3 ")  # the query supports itself most
