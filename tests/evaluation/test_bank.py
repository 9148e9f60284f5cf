"""A bank trains each model once, keeps it whole, and looks at queries under it."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tda_jax import devices, examples, keys
from tda_jax import params as tree
from tda_jax.attribution import sweep
from tda_jax.errors import InputError
from tda_jax.evaluation import bank as banks
from tda_jax.evaluation import outcomes
from tda_jax.evaluation.network import model_of
from tda_jax.evaluation.subsets import without
from tda_jax.evaluation.synthetic import synthetic_corpus
from tda_jax.training import many
from tda_jax.training.denoiser import Dropout
from tda_jax.training.loop import Recipe
from tests.evaluation import few_parameters

RECIPE, LEVELS = Recipe(5, 3, 1e-2, 0), (2, 5)
NETWORK = few_parameters.network()


def silent(*_):
    pass


@pytest.fixture(scope="module")
def members():
    return synthetic_corpus(0, 3, 2, 2, 0, 0)


@pytest.fixture(scope="module")
def wanted(members):
    a, b, c, *_ = members.ids
    return [without((), 0), without((a,), 0), without((a, b), 0), without((c,), 1)]


def opened(folder, members, **changes):
    given = {"recipe": RECIPE, "levels": LEVELS, "used": devices.local_devices(1)} | changes
    network, name = given.pop("network", NETWORK), given.pop("architecture", "few")
    return banks.open_bank(folder, network, name, members, **given)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, members, wanted):
    bank = opened(tmp_path_factory.mktemp("banks"), members)
    banks.fill(bank, wanted, silent)
    return bank


def files(bank):
    """Arrays to the bit; the header's order is left to the writer."""
    found = {p.name: load_file(p) for p in (bank.folder / "models").iterdir()}
    return {
        name: {key: x.tobytes() for key, x in sorted(arrays.items())}
        for name, arrays in found.items()
    }


def test_a_killed_run_goes_on_and_gives_the_same(filled, members, wanted, tmp_path, monkeypatch):
    train, trained = many.train, []

    def until_killed(trainer, jobs, *more):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.extend(jobs)
        return train(trainer, jobs, *more)

    monkeypatch.setattr(many, "train", until_killed)
    bank = opened(tmp_path, members)
    with pytest.raises(KeyboardInterrupt):
        banks.fill(bank, wanted, silent)
    assert len(files(bank)) == 2
    monkeypatch.setattr(many, "train", lambda *g: trained.append(g[1]) or train(*g))
    told = []
    banks.fill(opened(tmp_path, members), [*wanted, *wanted], lambda *g: told.append(g))
    assert len(trained) == 4
    assert told[0] == ("retraining", 10, 20)
    assert told[-1] == ("retraining", 20, 20)
    assert files(bank) == files(filled)
    monkeypatch.setattr(many, "train", None)
    banks.fill(bank, wanted, silent)  # nothing is left to do


def test_parameters_are_those_that_were_trained(filled, members, wanted):
    job = many.Job(np.array([i for i in range(6) if members.ids[i] not in wanted[2].removed]), 0)
    found = many.train(filled.trainer, [job])[0]
    for level in LEVELS:
        kept = banks.parameters(filled, wanted[2], level)
        jax.tree.map(np.testing.assert_array_equal, kept, found[level])
    with pytest.raises(InputError, match="level 3 is not kept"):
        banks.parameters(filled, wanted[2], 3)
    with pytest.raises(InputError, match="no such file"):
        banks.parameters(filled, without((), 7), 2)


def test_a_bank_is_named_by_what_its_numbers_depend_on(filled, members, tmp_path):
    other = few_parameters.network(1)
    condition = jax.tree.map(lambda x: x[0], members.examples.condition)
    changes = [
        {"recipe": RECIPE._replace(learning_rate=2e-2)},
        {"levels": (3, 5)},
        {"network": other},
        {"architecture": "another"},
        {"dropout": Dropout(condition, 0.1)},
        {"dropout": Dropout(jax.tree.map(np.zeros_like, condition), 0.1)},
    ]
    folders = {opened(tmp_path, members, **change).folder.name for change in changes}
    fewer = examples.take(members, np.arange(5))
    folders |= {opened(tmp_path, fewer).folder.name, filled.folder.name}
    assert len(folders) == len(changes) + 2
    same = opened(tmp_path, members, recipe=RECIPE._replace(seed=9))
    assert same.folder.name == filled.folder.name  # each model has its own seed


def test_who_is_no_member_cannot_be_removed(filled):
    with pytest.raises(InputError, match="'nobody'"):
        banks.fill(filled, [without(("nobody",), 0)], silent)


def test_a_damaged_model_is_refused_by_name(filled, members, wanted, tmp_path):
    bank = opened(tmp_path, members)
    banks.fill(bank, wanted[:1], silent)
    path = next((bank.folder / "models").iterdir())
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path.name}.*damaged"):
        banks.parameters(bank, wanted[0], 2)


def test_outcomes_are_mean_losses_on_draws_of_their_own(filled, members, wanted, monkeypatch):
    draws, used = keys.Draws(2, 10), devices.local_devices(1)
    queries = examples.take(members, [1, 4])
    given = (filled, NETWORK, 5, queries, wanted, draws, used)
    found = outcomes.losses(*given, 20, silent)
    assert found.shape == (4, 2)
    for one, row in zip(wanted, found, strict=True):
        params = banks.parameters(filled, one, 5)
        swept = sweep.make_sweep(
            model_of(NETWORK, params, ""), draws, 0, 7, used, keys.Domain.OUTCOME
        )
        moved, rest = tree.split(params, ".*")
        placed = sweep.place(swept, moved, rest)
        seen = examples.unmasked(queries.examples)
        plain = sweep.losses(swept, placed, moved, seen, queries.ids).draws
        np.testing.assert_allclose(row, plain.mean((1, 2)), rtol=1e-5)
    monkeypatch.setattr(sweep, "losses", None)
    np.testing.assert_array_equal(outcomes.losses(*given, 20, silent), found)


def test_what_a_model_did_not_see_it_knows_less(filled, members, tmp_path):
    bank = opened(tmp_path, members, recipe=Recipe(300, 3, 2e-2, 0), levels=(300,))
    both = [without((), 0), without((members.ids[0],), 0)]
    banks.fill(bank, both, silent)
    query = examples.take(members, [0])
    used, draws = devices.local_devices(1), keys.Draws(8, 10)
    lost = outcomes.losses(bank, NETWORK, 300, query, both, draws, used, 80, silent)
    assert lost[1, 0] > lost[0, 0]


def test_a_model_that_is_asked_early_is_trained_no_further_and_the_same(
    filled, members, wanted, tmp_path
):
    bank, one = opened(tmp_path, members), wanted[1]
    told = []
    banks.fill(bank, [one], lambda *g: told.append(g), 2)
    assert told[-1] == ("retraining", 2, 2)
    early, whole = (tree.flatten(banks.parameters(b, one, 2)) for b in (bank, filled))
    for path, leaf in whole.items():
        np.testing.assert_array_equal(early[path], leaf)
    with pytest.raises(InputError, match="no such file"):
        banks.parameters(bank, one, 5)
    banks.fill(bank, [one], silent, 2)
    assert len(files(bank)) == 1
    banks.fill(bank, [one], silent)
    assert len(files(bank)) == 2
    banks.parameters(bank, one, 5)
    with pytest.raises(InputError, match=r"until = 3 updates; give one of \(2, 5\)"):
        banks.fill(bank, [wanted[2]], silent, 3)
