"""Short flags stand for settings of a card."""

import sys
from types import SimpleNamespace

import pytest

from experiments import cards

SHORT = {"workdir": "config.workdir", "no-audio": "config.no_audio"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["--workdir=a b"], ["--config.workdir=a b"]),
        (["--workdir", "x"], ["--config.workdir", "x"]),
        (["-workdir=x\ny"], ["--config.workdir=x\ny"]),
        (["--no-audio"], ["--config.no_audio"]),
        (["--config.workdir=x", "--work", "workdir"], ["--config.workdir=x", "--work", "workdir"]),
    ],
)
def test_a_short_flag_is_spelled_out(given, read):
    assert [cards._spelled_out(arg, SHORT) for arg in given] == read


def test_the_command_line_is_read_with_them(tmp_path, monkeypatch):
    card = tmp_path / "card.py"
    card.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({'workdir': 'w', 'no_audio': False}).lock()\n"
    )
    monkeypatch.setattr(sys, "argv", ["prog", "--workdir", "there", "--no-audio"])
    seen = SimpleNamespace()

    def main(config):
        seen.config = config.to_dict()

    with pytest.raises(SystemExit) as end:
        cards.start(main, str(card), SHORT)
    assert not end.value.code
    assert seen.config == {"workdir": "there", "no_audio": True}
