"""Short flags stand for settings of a card."""

import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from experiments import cards
from tda_jax.errors import InputError

ROOT = Path(__file__).parent.parent.parent
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


def test_the_command_line_is_read_with_them(tmp_path):
    card = tmp_path / "card.py"
    card.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({'workdir': 'w', 'no_audio': False}).lock()\n"
    )
    program = f"""
from experiments import cards
from tda_jax.errors import InputError
cards.start(lambda config: print(config.to_dict()), {str(card)!r}, {SHORT!r})
"""
    command = [sys.executable, "-c", program, "--workdir", "there", "--no-audio"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert eval(said) == {"workdir": "there", "no_audio": True}


@pytest.mark.parametrize("value", ["gs://bucket/scores", "S3://bucket"])
@pytest.mark.parametrize("name", ["workdir", "made.folder"])
def test_a_url_is_no_folder(name, value):
    config = ConfigDict({"workdir": "here", "made": {"folder": "there"}, "prompt": "a: //b"})
    cards._refuse_urls(config)
    with config.unlocked():
        config.update_from_flattened_dict({name: value})
    with pytest.raises(InputError, match=f"{name} = '{value}' is a URL"):
        cards._refuse_urls(config)


def test_a_url_in_a_list_is_none_either():
    with pytest.raises(InputError, match="folders = 's3://b' is a URL"):
        cards._refuse_urls(ConfigDict({"folders": ("here", "s3://b")}))


def test_an_entry_point_takes_no_url():
    command = [sys.executable, "-m", "experiments.demo_seeds", "--workdir=gs://bucket/x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "error: workdir = 'gs://bucket/x' is a URL" in done.stderr
    assert not (ROOT / "gs:").exists()
