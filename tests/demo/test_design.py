from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from tda_jax.demo.design import (
    FORMATS,
    HELD_OUT,
    RATES,
    design,
    is_short,
    levels,
    unevenness,
    works_of,
)
from tda_jax.demo.versions import ASPECTS, KINDS
from tda_jax.errors import InputError

SEEDS = (0, 1, 7)


@pytest.fixture(scope="module", params=SEEDS)
def items(request):
    return design(request.param)


def groups(items, key):
    found = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found


def test_there_are_six_versions_of_each_of_24_works_by_6_artists(items):
    assert len(items) == 144
    works = groups(items, lambda item: item.work)
    assert len(works) == 24
    assert len({item.artist for item in items}) == 6
    for versions in works.values():
        assert [item.version.kind for item in versions] == list(KINDS)


def test_one_file_in_five_is_short_and_none_is_near_the_window(items):
    assert sum(map(is_short, items)) == 29
    assert all(2 <= i.version.seconds <= 4.5 or 5.2 <= i.version.seconds <= 8 for i in items)
    by_kind = groups(items, lambda item: item.version.kind)
    assert {4 <= sum(map(is_short, some)) <= 5 for some in by_kind.values()} == {True}


def test_formats_rates_and_channels_are_even(items):
    assert {*Counter(item.suffix for item in items).values()} == {36}
    assert set(FORMATS) == {item.suffix for item in items}
    rates = Counter(item.rate for item in items)
    assert sorted(rates) == list(RATES)
    assert max(rates.values()) - min(rates.values()) <= 1
    assert Counter(item.channels for item in items) == {1: 72, 2: 72}


def test_two_versions_of_each_work_are_held_out_and_each_kind_equally_often(items):
    held = [item for item in items if item.held_out]
    assert {*Counter(item.work for item in held).values()} == {HELD_OUT}
    assert {*Counter(item.version.kind for item in held).values()} == {8}


def test_being_held_out_goes_with_nothing_else(items):
    for key, off in (
        (is_short, 2),
        (lambda item: item.suffix, 3),
        (lambda item: item.rate, 4),
        (lambda item: item.channels, 3),
        (lambda item: item.aspect, 2),
        (lambda item: item.caption, 2),
    ):
        for some in groups(items, key).values():
            assert abs(sum(item.held_out for item in some) - len(some) / 3) <= off
    seconds = {out: [i.version.seconds for i in items if i.held_out == out] for out in (0, 1)}
    assert abs(np.mean(seconds[0]) - np.mean(seconds[1])) < 0.6


def test_spreading_helps(items):
    held = np.array([item.held_out for item in items])
    has = levels(items)
    rng = np.random.default_rng(0)
    at_random = [
        unevenness(rng.permuted(held.reshape(24, 6), axis=1).reshape(-1), has) for _ in range(200)
    ]
    assert unevenness(held, has) < min(at_random)


def test_unevenness_by_hand():
    has = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], float)
    assert unevenness(np.array([True, False, True, False]), has) == 0
    assert unevenness(np.array([True, True, False, False]), has) == 2.0  # (2 - 1)² / 1, twice


def test_a_works_versions_have_captions_of_their_own(items):
    for versions in groups(items, lambda item: item.work).values():
        assert len({item.caption for item in versions}) == 6
        assert {item.aspect for item in versions} == set(ASPECTS)


def test_a_caption_stands_on_works_of_several_artists(items):
    by_caption = groups(items, lambda item: item.caption)
    assert 15 <= len(by_caption) <= 19
    for some in by_caption.values():
        assert len({item.artist for item in some}) >= 2
        assert len({item.work for item in some}) == len(some)


def test_each_aspect_meets_each_kind_equally_often(items):
    pairs = Counter((item.aspect, item.version.kind) for item in items)
    assert len(pairs) == 36
    assert {*pairs.values()} == {4}


def test_names_and_titles_tell_nothing(items):
    assert len({item.id for item in items}) == len({item.title for item in items}) == 144
    for item in items:
        assert len(item.id) == 12
        assert set(item.id) <= set("0123456789abcdef")
    in_order = [item.work for item in sorted(items, key=lambda item: item.id)]
    neighbours = sum(a == b for a, b in pairwise(in_order))
    assert neighbours < 20  # 5 of 143 by chance


def test_no_two_files_are_equally_long_but_by_chance(items):
    works = groups(items, lambda item: (item.work, item.version.seconds))
    twins = [some for some in works.values() if len(some) > 1]
    assert len(twins) <= 2


def test_it_is_a_function_of_its_seed():
    assert design(3, 6) == design(3, 6)
    assert not {item.id for item in design(3, 6)} & {item.id for item in design(4, 6)}


@pytest.mark.parametrize("works", [6, 7, 11])
def test_other_numbers_of_works(works):
    items = design(0, works)
    assert len(items) == 6 * works
    assert sum(item.held_out for item in items) == HELD_OUT * works
    assert abs(sum(map(is_short, items)) - len(items) / 5) <= 1


@pytest.mark.parametrize("works", [5, 97])
def test_too_few_and_too_many_works_are_refused(works):
    with pytest.raises(InputError, match=f"works = {works}; give 6 to 96"):
        works_of(0, works)
