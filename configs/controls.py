"""Run card: controls of attribution by unlearning on corpora whose relations are known.

Source: the trial and its second look in the method notes; Choi et al. 2025 (arXiv 2506.18312), Wang
et al. 2024 (arXiv 2406.09408). No model is retrained, so nothing here says what is true influence.
Command: python -m experiments.controls --config=configs/controls.py --config.workdir=DIR

Result: verdict.md, tables.md and figures in DIR: for each claim whether it holds, with its figures.
What is finished is kept in DIR; a run that was stopped goes on from there.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings, each with its default; tda_jax/evaluation/controls_plan.py says more."""
    config = ConfigDict()
    config.workdir = "controls"
    config.seeds = (0, 1, 2)  # each with a corpus, a training and draws of its own
    _corpus(config)
    _training(config)
    _steps(config)
    _studies(config)
    config.batch_pairs = 80  # (track, draw) pairs on one device at a time
    config.cpu_devices = 2  # how many devices the processor is shown as: one for each core
    return config.lock()


def _corpus(config: ConfigDict) -> None:
    config.works = 8
    config.variants = 8  # as many as captions: each work has each caption once
    config.captions = 8
    config.held_out = 4  # decoys of each work
    config.unseen_works = 1


def _training(config: ConfigDict) -> None:
    # Mean losses of members and of held-out decoys: 0.21 and 0.25, 0.14 and 0.25, 0.07 and 0.38.
    config.updates = (250, 500, 1000)  # generalises, between, has memorised
    config.batch = 16
    config.learning_rate = 4e-3


def _steps(config: ConfigDict) -> None:
    config.queries = 5  # the fewest whose scores can be held against those of 4 others
    config.groups = (
        "cross_attention_kv",
        "cross_attention",
        "self_attention",
        "transformer",
        "all",
    )
    config.damping = 0.1  # what the committed findings were made with; the default is 0.01
    config.fisher_draws = 10
    config.query_draws = 2048
    config.replicates = 2
    config.strata = 10
    config.own_replicates = 8
    config.rise = 0.1
    config.rates = (1e-4, 1e-3, 1e-2)  # a rise of 0.003 for the smallest group, of 1,000 for all


def _studies(config: ConfigDict) -> None:
    config.studied_queries = 2
    config.studied_groups = ("cross_attention_kv", "transformer")
    config.rises = (0.03, 0.1, 0.3, 1.0)
    config.draw_counts = (10, 20, 40, 80)
    config.query_draw_counts = (256, 512, 1024, 2048)
    config.caliper = 0.2  # of latent similarity: relatives differ by 0.11 (standard deviation)
