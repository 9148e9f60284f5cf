"""What retraining did to outputs: the loss of each query under each model of a bank.

    BANK/outcomes/LEVEL-QUERIES/NAME.safetensors   losses of all queries under one `Retraining`

The draws of a query are the same under all models, so that models differ and draws do not.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float64

from tda_jax import artifact, examples, fingerprint, keys
from tda_jax import params as tree
from tda_jax.attribution import sweep
from tda_jax.evaluation import bank as banks
from tda_jax.evaluation.bank import Bank
from tda_jax.evaluation.network import Network, model_of
from tda_jax.evaluation.subsets import Retraining

Progress = Callable[[str, int, int], None]


def losses(
    bank: Bank,
    network: Network,
    level: int,
    queries: examples.Corpus,
    wanted: Sequence[Retraining],
    draws: keys.Draws,
    used: tuple[jax.Device, ...],
    batch: int,
    progress: Progress,
) -> Float64[np.ndarray, "models queries"]:
    """The mean loss of each query under models of the bank; padding counts, as in training.

    Args:
        bank: that holds them.
        network: what its parameters are of.
        level: number of updates.
        queries: rows.
        wanted: models that are in the bank.
        draws: of each query.
        used: local devices.
        batch: latents in the network at a time, on one device.
        progress: told of models done.

    Raises:
        InputError: the bank lacks a model, or a file is damaged or of something else.
    """
    printed = examples.corpus_fingerprint(queries)
    folder = bank.folder / "outcomes" / f"{level}-{printed[:16]}-{draws.count}"
    source = {**bank.made_of, "level": level, "queries": printed, "draws": list(draws)}
    source["code"] = fingerprint.of_code(__name__, "tda_jax.models.unet")
    source["bank"] = bank.folder.name
    swept = sweep.make_sweep(
        model_of(network, network.params, ""), draws, 0, batch, used, keys.Domain.OUTCOME
    )
    found = []
    for done, one in enumerate(wanted):
        progress("losses of queries", done, len(wanted))
        path = folder / f"{one.name}.safetensors"
        own = {**source, "removed": list(one.removed), "training_seed": one.seed}
        if not path.exists():
            params = banks.parameters(bank, one, level)
            artifact.save(path, {"loss": _losses(swept, params, queries)}, own, {})
        found.append(_read(path, own))
    progress("losses of queries", len(wanted), len(wanted))
    return np.stack(found)


def _losses(swept: sweep.Sweep, params: dict, queries: examples.Corpus) -> np.ndarray:
    moved, rest = tree.split(params, ".*")
    placed = sweep.place(swept, moved, rest)
    still = sweep.displaced(swept, placed, jax.tree.map(np.zeros_like, moved))
    seen = examples.unmasked(queries.examples)
    return sweep.losses(swept, placed, still, seen, queries.ids).draws


def _read(path: Path, source: dict) -> np.ndarray:
    draws = artifact.load(path, source)[0]["loss"]
    return draws.mean(axis=(1, 2), dtype=np.float64)
