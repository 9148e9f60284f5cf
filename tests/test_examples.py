import inspect

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax.columns import Column
from tda_jax.errors import InputError
from tda_jax.examples import (
    Corpus,
    corpus_fingerprint,
    corpus_of,
    facts_of,
    in_dtype,
    in_memory,
    lengths_and_levels,
    moments,
    take,
    unmasked,
)

IDS = ["b", "a", "d", "c"]


def parts(n=4, seed=0):
    """Arguments of a corpus of tracks that are all different."""
    rng = np.random.default_rng(seed)
    return {
        "ids": IDS[:n],
        "latents": rng.standard_normal((n, 3, 2)).astype(np.float32),
        "condition": {
            "clap": rng.standard_normal((n, 5)).astype(np.float32),
            "tokens": np.arange(n * 2, dtype=np.int32).reshape(n, 2),
        },
        "masks": np.tile(np.array([1, 0.5, 0], np.float32), (n, 1)),
        "members": np.arange(n) % 2 == 0,
        "metadata": [{"title": f"t{i}"} for i in range(n)],
    }


def reordered(given, order):
    def turn(x):
        return x[order] if isinstance(x, np.ndarray) else [x[i] for i in order]

    condition = {name: turn(x) for name, x in given["condition"].items()}
    others = {name: turn(x) for name, x in given.items() if name != "condition"}
    return others | {"condition": condition}


def same(left, right):
    leaves, tree = jax.tree.flatten(left)
    others, other_tree = jax.tree.flatten(right)
    return tree == other_tree and all(map(np.array_equal, leaves, others))


def test_tracks_stand_in_the_order_of_their_ids():
    given = parts()
    corpus = corpus_of(**given)
    assert corpus.ids == ("a", "b", "c", "d")
    order = [1, 0, 3, 2]
    np.testing.assert_array_equal(corpus.examples.latent, given["latents"][order])
    np.testing.assert_array_equal(corpus.examples.mask, given["masks"][order])
    for name, x in given["condition"].items():
        np.testing.assert_array_equal(corpus.examples.condition[name], x[order])
    assert corpus.members.tolist() == [False, True, False, True]
    assert [m["title"] for m in corpus.metadata] == ["t1", "t0", "t3", "t2"]


@given(st.permutations(range(4)), st.integers(0, 3))
def test_the_order_given_does_not_matter(order, seed):
    given = parts(seed=seed)
    corpus = corpus_of(**given)
    again = corpus_of(**reordered(given, order))
    assert same(corpus, again)
    assert corpus_fingerprint(again) == corpus_fingerprint(corpus)


def test_by_default_every_frame_counts_and_every_track_is_a_member():
    given = parts()
    corpus = corpus_of(given["ids"], given["latents"])
    assert corpus.examples.condition is None
    np.testing.assert_array_equal(corpus.examples.mask, np.ones((4, 3), np.float32))
    assert corpus.examples.mask.dtype == np.float32
    assert corpus.members.tolist() == [True] * 4
    assert corpus.metadata == ({},) * 4
    assert len({id(entry) for entry in corpus.metadata}) == 4  # one track's alone to fill
    assert same(unmasked(corpus_of(**given).examples).mask, corpus.examples.mask)


def test_masks_of_bools_become_weights():
    given = parts() | {"masks": np.array([[True, False, False]] * 4)}
    mask = corpus_of(**given).examples.mask
    assert mask.dtype == np.float32
    assert mask.tolist() == [[1, 0, 0]] * 4


def _changed(name, value):
    return lambda: parts() | {name: value}


def _spoilt(name, index, value):
    def make():
        given = parts()
        given[name][index] = value
        return given

    return make


def _condition(**changed):
    return lambda: parts() | {"condition": parts()["condition"] | changed}


def _half_nan():
    half = parts()["latents"].astype(ml_dtypes.bfloat16)
    half[2, 1, 0] = np.nan
    return parts() | {"latents": half}


BAD = {
    "whole numbers": (_changed("latents", np.ones((4, 3, 2), np.int16)), "latents are of .* int16"),
    "members by number": (_changed("members", np.array([1, 0, 1, 1])), r"members are int64\[4\]"),
    "members of two axes": (
        _changed("members", np.ones((4, 2), bool)),
        r"are bool\[4, 2\]; give 4",
    ),
    "no tracks": (lambda: {"ids": [], "latents": np.zeros((0, 3, 2))}, "corpus is empty"),
    "an id twice": (_changed("ids", ["a", "b", "a", "b"]), r"ids \['a', 'b'\] repeat \(2 in all\)"),
    "no name": (_changed("ids", ["a", "", "b", "c"]), r"ids \[''\] are no names"),
    "half a surrogate pair": (
        _changed("ids", ["a", "\udc80", "b", "c"]),
        r"\\udc80'\] are no Unic",
    ),
    "fewer ids": (_changed("ids", ["a", "b", "c"]), r"latents has shape \(4, 3, 2\) for 3 ids"),
    "fewer masks": (_changed("masks", np.ones((3, 3))), r"masks has shape \(3, 3\) for 4 ids"),
    "shorter masks": (_changed("masks", np.ones((4, 2))), r"masks of shape \(4, 2\)"),
    "two axes": (_changed("latents", np.ones((4, 3))), r"latents of shape \(4, 3\)"),
    "no channels": (_changed("latents", np.ones((4, 3, 0))), r"latents of shape \(4, 3, 0\)"),
    "no frames": (
        lambda: parts() | {"latents": np.ones((4, 0, 2)), "masks": np.ones((4, 0))},
        "no axis of length 0",
    ),
    "fewer metadata": (_changed("metadata", [{}]), "1 metadata for 4 ids"),
    "nan": (_spoilt("latents", (1, 2, 0), np.nan), r"latents of \['a'\] hold nan or inf"),
    "inf": (_spoilt("latents", (3, 0, 0), -np.inf), r"latents of \['c'\] hold nan or inf"),
    "nan of 16 bits": (_half_nan, r"latents of \['d'\] hold nan or inf"),
    "nan in a mask": (_spoilt("masks", (0, 0), np.nan), r"masks of \['b'\] hold nan or inf"),
    "an empty mask": (_spoilt("masks", 2, 0), r"masks of \['d'\] keep no frame"),
    "a mask above 1": (_spoilt("masks", (0, 0), 2), r"masks of \['b'\] leave 0 .. 1"),
    "a mask below 0": (_spoilt("masks", (0, 1), -0.1), r"masks of \['b'\] leave 0 .. 1"),
    "nan in a condition": (
        _condition(clap=np.full((4, 5), np.nan, np.float32)),
        r"condition\['clap'\] of \['b', 'a', 'd', 'c'\] hold nan",
    ),
    "inf in a number a track": (
        _condition(clap=np.array([0, 1, np.inf, 2], np.float32)),
        r"condition\['clap'\] of \['d'\] hold",
    ),
    "fewer conditions": (
        _condition(clap=np.ones((3, 5))),
        r"condition\['clap'\] has shape \(3, 5\)",
    ),
    "a condition for all": (_condition(clap=np.float32(1)), r"condition\['clap'\] has shape \(\)"),
    "words": (_condition(tokens=np.array(["a"] * 4)), r"condition\['tokens'\] are of dtype <U1"),
    "objects": (_condition(tokens=np.array([None] * 4)), r"\['tokens'\] are of dtype object"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_its_name(case):
    make, says = BAD[case]
    # Annotations, which are checked in tests only, refuse some of it before the message is made.
    with pytest.raises(InputError, match=says):
        inspect.unwrap(corpus_of)(**make())


def test_many_offenders_are_counted():
    ids = [f"{i:02d}" for i in range(9)]
    with pytest.raises(InputError, match=r"\['00', '01', '02', '03', '04'\] and 4 more hold nan"):
        corpus_of(ids, np.full((9, 3, 2), np.nan, np.float32))


def test_take_gives_the_tracks_asked_for():
    corpus = corpus_of(**parts())
    for rows in ([2, 0], np.array([2, 0]), range(2, -1, -2), np.array([2, 0], np.uint8)):
        taken = take(corpus, rows)
        assert taken.ids == ("c", "a")
        np.testing.assert_array_equal(taken.examples.latent, corpus.examples.latent[[2, 0]])
        np.testing.assert_array_equal(
            taken.examples.condition["tokens"], corpus.examples.condition["tokens"][[2, 0]]
        )
        assert [m["title"] for m in taken.metadata] == ["t3", "t1"]
    assert take(corpus, []).ids == ()


def test_take_refuses_a_mask_and_fractions():
    corpus = corpus_of(**parts())
    for rows in (corpus.members, np.array([0.5])):
        with pytest.raises(InputError, match=r"rows of dtype .*; give positions"):
            take(corpus, rows)


@pytest.mark.parametrize("start", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float32, np.float64])
def test_floats_are_cast_and_nothing_else(start, dtype):
    given = parts()
    given["latents"] = given["latents"].astype(start)
    given["condition"]["clap"] = given["condition"]["clap"].astype(start)
    examples = in_dtype(corpus_of(**given).examples, dtype)
    assert examples.latent.dtype == dtype
    assert examples.condition["clap"].dtype == dtype
    assert examples.condition["tokens"].dtype == np.int32
    assert examples.mask.dtype == np.float32


def test_the_fingerprint_is_of_the_set_of_tracks():
    corpus = corpus_of(**parts())
    first = corpus_fingerprint(corpus)
    assert first == corpus_fingerprint(take(corpus, [3, 1, 0, 2]))
    assert first == corpus_fingerprint(corpus._replace(metadata=({"title": "other"},) * 4))
    on_device = corpus._replace(examples=jax.tree.map(jnp.asarray, corpus.examples))
    assert first == corpus_fingerprint(on_device)


def _but(**changed):
    return lambda corpus: corpus._replace(**changed)


def _with(path, change):
    """A change of one array of the examples."""

    def apply(corpus):
        examples = jax.tree.map(np.array, corpus.examples)
        if path in examples._fields:
            return corpus._replace(
                examples=examples._replace(**{path: change(examples._asdict()[path])})
            )
        condition = examples.condition | {path: change(examples.condition[path])}
        return corpus._replace(examples=examples._replace(condition=condition))

    return apply


def _nudged(x):
    x[2].flat[0] = np.nextafter(x[2].flat[0], np.inf) if x.dtype.kind == "f" else x[2].flat[0] + 1
    return x


def _swapped(x):
    return x[[1, 0, 2, 3]]


CHANGES = {
    "a latent": _with("latent", _nudged),
    "a mask": _with("mask", _nudged),
    "a condition": _with("clap", _nudged),
    "a token": _with("tokens", _nudged),
    "latents swapped": _with("latent", _swapped),
    "conditions swapped": _with("clap", _swapped),
    "a shape": _with("latent", lambda x: x.reshape(4, 3, 1, 2)),
    "a dtype": _with("tokens", lambda x: x.view(np.uint32)),
    "a member": _but(members=np.array([True, True, False, True])),
    "an id": _but(ids=("a", "b", "c", "e")),
    "ids swapped": _but(ids=("b", "a", "c", "d")),
    "a track less": lambda corpus: take(corpus, [0, 1, 2]),
    "a track twice": lambda corpus: take(corpus, [0, 1, 2, 3, 3]),
    "no condition": lambda c: c._replace(examples=c.examples._replace(condition=None)),
    "the condition's names": lambda c: c._replace(
        examples=c.examples._replace(
            condition={"a": c.examples.condition["clap"], "b": c.examples.condition["tokens"]}
        )
    ),
}


def test_the_fingerprint_follows_every_change():
    corpus = corpus_of(**parts())
    found = {name: corpus_fingerprint(change(corpus)) for name, change in CHANGES.items()}
    assert len({corpus_fingerprint(corpus), *found.values()}) == 1 + len(CHANGES)


def as_columns(given, asked):
    """The same arguments with latents, masks and conditions as columns; notes what is read."""

    def column(x):
        def read(rows):
            asked.append(len(rows))
            return x[rows]

        return Column(x.shape, x.dtype, read)

    condition = {name: column(x) for name, x in given["condition"].items()}
    changed = {"latents": column(given["latents"]), "masks": column(given["masks"])}
    return given | changed | {"condition": condition}


def test_what_one_reading_tells_is_what_arrays_tell():
    given, asked = parts(), []
    arrays, columns = corpus_of(**given), corpus_of(**as_columns(given, asked))
    once = sum(asked)
    assert once == 4 * len(IDS)  # latents, masks and two conditions
    for rows in ([0, 1, 2, 3], [3, 1], [2]):
        one, other = take(arrays, rows), take(columns, rows)
        assert facts_of(one) is None
        assert facts_of(other) is not None
        assert corpus_fingerprint(other) == corpus_fingerprint(one)
        np.testing.assert_array_equal(moments(other), moments(one))
        np.testing.assert_array_equal(lengths_and_levels(other), lengths_and_levels(one))
    assert sum(asked) == once


@pytest.mark.parametrize("changed", ["examples", "members", "ids"])
def test_of_a_corpus_that_was_changed_nothing_is_taken_for_known(changed):
    corpus = corpus_of(**as_columns(parts(), []))
    other = {
        "examples": unmasked(corpus.examples),
        "members": ~corpus.members,
        "ids": tuple("wxyz"),
    }[changed]
    made = corpus._replace(**{changed: other})
    assert facts_of(made) is None
    plain = Corpus(made.ids, in_memory(made).examples, made.members, made.metadata)
    assert corpus_fingerprint(made) == corpus_fingerprint(plain) != corpus_fingerprint(corpus)
    np.testing.assert_array_equal(lengths_and_levels(made), lengths_and_levels(plain))
    assert facts_of(take(made, [0, 1])) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_of_columns_that_are_not_finite_are_refused(value):
    given = parts()
    given["latents"][2, 1, 0] = value
    with pytest.raises(InputError, match=r"latents of \['d'\] hold nan or inf"):
        corpus_of(**as_columns(given, []))
