"""Run card: a report that opens in a browser, from the results of an attribution.

Source: the workdirs of `experiments.attribute` and `experiments.generate`, and the folder of audio.
Command: python -m experiments.report --config=configs/report.py --config.attributed=DIR
    --config.audio=FOLDER --config.generated=DIR --config.workdir=DIR
    with `--no-audio` for music that may not be copied: the report then holds no sound and no
    picture of it.
Time: 6 seconds for the demo's 74 excerpts; a second run makes none again.
Result: WORKDIR/index.html, with WORKDIR/audio and WORKDIR/pictures beside it. The folder may be
    moved and passed on; nothing in it asks a network for anything.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings, each with its default."""
    config = ConfigDict()
    config.attributed = ""  # workdir of experiments.attribute
    config.audio = ""  # the folder of audio; without it, tracks have no players
    config.generated = ""  # workdir of experiments.generate, for queries that it made
    config.query_audio = ""  # the folder of audio of queries that are files of their own
    config.evaluation = ""  # JSON of methods beside each other, if there is one
    config.preflight = ""  # JSON of the checks of the model, if there is one
    config.truth = ""  # JSON of scores against retraining, if there is one
    config.workdir = "report"
    config.no_audio = False  # copy no sound and no picture of it
    config.top = 10  # tracks that are shown for each query
    config.seconds = 30.0  # of an excerpt at most
    return config.lock()
