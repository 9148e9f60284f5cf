"""Run card: everything once, small: music, model, pieces, attribution, and a page to look at.

Source: the demo's music is composed and rendered by code (tda_jax/demo); a latent diffusion model
    (arXiv 2112.10752) is trained on it, and pieces are attributed as in arXiv 2506.18312.
Command: python -m experiments.demo --workdir demo
Time: 8.1 minutes on 2 cores with nothing compiled before. A second run repeats nothing that is
    there; a killed one goes on.
Result: WORKDIR/report/index.html to open in a browser; WORKDIR/summary.json with the figures, and
    WORKDIR/evaluation.json with them beside plain similarity and chance.
"""

from ml_collections import ConfigDict

from configs import arrays, generate, preflight, report, train


def get_config() -> ConfigDict:
    """The settings of the demo, and those of the cards that it runs where they differ."""
    config = ConfigDict()
    config.workdir = "demo"
    config.seed = 0  # of the music, the training, the pieces and the draws
    config.works = 24  # of music, six versions each
    config.queries = 8  # training tracks, each of another work
    config.pieces = 3  # generated, each from a caption of the training tracks
    config.no_audio = False  # of the report
    config.train = _changed(train.get_config())
    config.preflight = _changed(preflight.get_config(), tracks=24)
    config.generate = _changed(generate.get_config())
    config.attribute = _changed(
        arrays.get_config(),
        method="exact",  # with few draws the network is passed fewer times than by its derivative
        fisher_draws=5,
        query_draws=240,
        blocks=4,
        strata=10,
        batch=32,
        fisher_batch=16,
        queries_per_pass=11,
    )
    config.report = _changed(report.get_config())
    return config.lock()


def _changed(config: ConfigDict, **values: object) -> ConfigDict:
    config.update(values)
    return config
