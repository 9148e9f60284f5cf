"""Run card: the demo over several seeds, for intervals that count music and training too.

Source: as configs/demo.py; each seed is other music, another training, other queries and draws.
Command: python -m experiments.demo_seeds --workdir demo_seeds
Time: that of the demo for each seed; programs are compiled once. It goes on where it was killed.
Result: WORKDIR/evaluation.md, .csv, .json and .png: own rank, relatives, caption-mates and members
    under unlearning, log-mel, latent and caption similarity and chance, with t-intervals over the
    seeds; WORKDIR/seed-N, a demo each.
"""

from ml_collections import ConfigDict

from configs import demo


def get_config() -> ConfigDict:
    """The settings, each with its default."""
    config = ConfigDict()
    config.workdir = "demo_seeds"
    config.seeds = (0, 1, 2)
    config.demo = demo.get_config()
    return config.lock()
