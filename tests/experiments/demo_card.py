"""The default card of `experiments.demo`, shrunk to a minute or so."""

from tests.experiments import cards

SHRUNK = {
    "works": 6,
    "queries": 2,
    "pieces": 1,
    "train.seconds": 0.64,
    "train.every": 3,
    "train.sizes.vae": (8, 8),
    "train.sizes.latent": 4,
    "train.sizes.unet": (8, 16),
    "train.sizes.text": 16,
    "train.sizes.layers": 1,
    "train.sizes.tokens": 16,
    "train.vae.steps": 8,
    "train.vae.batch": 4,
    "train.vae.crop": 32,
    "train.text.steps": 8,
    "train.text.batch": 6,
    "train.denoiser.steps": 8,
    "train.denoiser.batch": 4,
    "preflight.tracks": 6,
    "preflight.strata": 2,
    "generate.steps": 2,
    "attribute.group": "cross_attention_kv",
    "attribute.fisher_draws": 1,
    "attribute.query_draws": 8,
    "attribute.queries_per_pass": 2,
    "attribute.chunk": 9,
    "report.top": 4,
}


def card(workdir, **changes):
    """The card, shrunk."""
    return cards.card("demo", **{**SHRUNK, "workdir": str(workdir), **changes})


def flags():
    """The same on a command line."""
    return [f"--config.{name}={value}" for name, value in SHRUNK.items()]
