"""Run card: attribution against retraining, on the demo's music.

Source: as configs/truth_synthetic.py, which says more of each setting.
Command: python -m experiments.truth --config=configs/truth_demo.py
    for a model that attends to its text; for one of AudioLDM's kind, which takes one vector of it,
    --config.demo.kind=class --config.workdir=DIR
    The demo is run in WORKDIR/demo where it is not there yet. It goes on where it was stopped.
Result: as configs/truth_synthetic.py; and WORKDIR/demo/report/index.html says how the demo's own
    scores of its own queries fared.
"""

from ml_collections import ConfigDict

from configs import train
from configs.truth_synthetic import get_config as synthetic


def get_config() -> ConfigDict:
    """The settings of the synthetic comparison, where the demo differs from it."""
    config, own = synthetic(), train.get_config().denoiser
    config.update(
        {
            "workdir": "truth_demo",
            "world": "demo",
            "levels": (1000,),  # the demo's own training, which ends there
            "learning_rate": own.learning_rate,
            "subsets": 32,
            "removal_level": 1000,
            "removal_queries": 4,
            "removed": (16,),  # tracks, of 96
            "random_removals": 2,
            "replicates": 2,
            "ways": "few",
            "queries": 0,  # but the demo's own: demo.queries tracks and demo.pieces generated ones
        }
    )
    return config.lock()
