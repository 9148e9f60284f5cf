"""The README's examples of a model of one's own run as they stand."""

import re
from pathlib import Path

import jax

README = Path(__file__).parent.parent / "README.md"


def test_the_example_of_a_model_of_ones_own(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    own, rival = (
        next(block for block in blocks if words in block) for words in ("class Denoiser", "trak")
    )
    monkeypatch.chdir(tmp_path)
    # With JAX's own defaults, which a reader has.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        names = {"__name__": "readme"}
        for example in (own, rival):
            exec(compile(example, "README.md", "exec"), names)
            last = capsys.readouterr().out.splitlines()[-1]
            assert last.startswith("track 3 ")  # the query supports itself most
