import json
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.corpus.arrays import read_arrays, read_queries, save_arrays
from tda_jax.errors import InputError
from tda_jax.examples import corpus_fingerprint, corpus_of, in_memory
from tda_jax.models.denoiser import Condition

IDS = ["a", "b", "disk/c"]
FRAMES, WIDTH, CHANNELS = 5, 4, 2


def fields(dtype=np.float32):
    rng = np.random.default_rng(0)

    def of(*shape):
        return {name: rng.standard_normal(shape).astype(dtype) for name in IDS}

    return {
        "latent": of(FRAMES, WIDTH, CHANNELS),
        "embedding": of(6),
        "text": of(3, 7),
        "text_mask": {name: np.array([1, 1, 0]) for name in IDS},
        "mask": {name: np.array([1, 1, 1, 0.5, 0], np.float32) for name in IDS},
    }


def put(folder, given, packed=(), metadata=None):
    """Writes fields as folders, those in `packed` as .npz, and metadata by line."""
    for name, arrays in given.items():
        if name in packed:
            np.savez(folder / f"{name}.npz", **arrays)
            continue
        for key, x in arrays.items():
            path = folder / name / f"{key}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, x)
    if metadata is not None:
        lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in metadata]
        (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def lines(**changes):
    """A line for each track; `changes` of the track "b"."""
    return [{"id": name, **(changes if name == "b" else {})} for name in IDS]


@pytest.mark.parametrize("packed", [(), ("latent", "embedding", "text", "text_mask", "mask")])
def test_a_folder_is_read_as_it_stands(tmp_path, packed):
    metadata = [
        {"id": "disk/c", "title": "C", "tags": {"x": [1]}},
        {"id": "a", "member": False},
        "",
        {"id": "b", "member": True},
    ]
    corpus = in_memory(read_arrays(put(tmp_path, fields(), packed, metadata)))
    assert corpus.ids == tuple(IDS)
    examples, expected = corpus.examples, fields()
    for i, name in enumerate(IDS):
        np.testing.assert_array_equal(examples.latent[i], expected["latent"][name])
        np.testing.assert_array_equal(examples.mask[i], expected["mask"][name])
        np.testing.assert_array_equal(examples.condition.embedding[i], expected["embedding"][name])
        np.testing.assert_array_equal(examples.condition.text[i], expected["text"][name])
    assert isinstance(examples.condition, Condition)
    assert examples.condition.text_mask.dtype == bool
    assert examples.condition.text_mask.tolist() == [[True, True, False]] * 3
    assert corpus.members.tolist() == [False, True, True]
    assert corpus.metadata == ({}, {}, {"title": "C", "tags": {"x": [1]}})


def test_latents_alone_are_a_corpus(tmp_path):
    corpus = in_memory(read_arrays(put(tmp_path, {"latent": fields()["latent"]})))
    assert corpus.examples.condition == Condition(None, None, None)
    assert corpus.members.all()
    assert corpus.examples.mask.tolist() == [[1.0] * FRAMES] * 3
    assert corpus.metadata == ({}, {}, {})


def test_frames_become_a_mask(tmp_path):
    given = {"latent": fields()["latent"]}
    corpus = in_memory(read_arrays(put(tmp_path, given, metadata=lines(frames=2))))
    assert corpus.examples.mask.tolist() == [[1] * 5, [1, 1, 0, 0, 0], [1] * 5]
    assert corpus.metadata[1] == {}


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 5)])
def test_channels_first_are_turned(tmp_path, shape):
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal(shape).astype(np.float32) for name in IDS}
    corpus = in_memory(read_arrays(put(tmp_path, {"latent": given}), layout="CHW"))
    assert corpus.examples.latent.shape == (3, *shape[1:], 2)
    for i, name in enumerate(IDS):
        for channel in range(2):
            np.testing.assert_array_equal(
                corpus.examples.latent[i, ..., channel], given[name][channel]
            )
    assert corpus.examples.mask.shape == (3, 5)


@pytest.mark.parametrize("packed", [(), ("latent", "embedding", "text")])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits_become_float32(tmp_path, dtype, packed):
    corpus = in_memory(read_arrays(put(tmp_path, fields(dtype), packed)))
    examples, expected = corpus.examples, fields(dtype)
    for i, name in enumerate(IDS):
        for found, field in (
            (examples.latent, "latent"),
            (examples.condition.embedding, "embedding"),
            (examples.condition.text, "text"),
        ):
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found[i], expected[field][name].astype(np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
def test_dtypes_byte_orders_and_memory_orders_may_mix(tmp_path, order):
    given = fields(np.float64)["latent"]
    mixed = {
        "a": given["a"].astype(f"{order}f2"),
        "b": given["b"].astype(f"{order}f8"),
        "disk/c": np.asfortranarray(given["disk/c"].astype(f"{order}f4")),
    }
    corpus = in_memory(read_arrays(put(tmp_path, {"latent": mixed})))
    assert corpus.examples.latent.dtype == np.dtype(np.float64)
    for i, name in enumerate(IDS):
        np.testing.assert_array_equal(corpus.examples.latent[i], mixed[name])


@pytest.mark.parametrize("dtype", [">f2", ">f4"])
def test_other_byte_orders_become_this_machines(tmp_path, dtype):
    given = {name: x.astype(dtype) for name, x in fields()["latent"].items()}
    latent = in_memory(read_arrays(put(tmp_path, {"latent": given}))).examples.latent
    assert latent.dtype.str == np.dtype(np.float32).str
    np.testing.assert_array_equal(latent[1], given["b"])


def test_what_is_no_array_is_passed_over(tmp_path):
    folder = put(tmp_path, fields(), ("text",))
    (folder / "README.md").write_text("mine")
    (folder / "audio").mkdir()
    (folder / "audio" / "a.wav").write_bytes(b"")
    (folder / "latent" / ".DS_Store").write_bytes(b"")
    (folder / "latent" / "._a.npy").write_bytes(b"")
    assert read_arrays(folder).ids == tuple(IDS)


def test_linked_folders_count(tmp_path):
    put(tmp_path / "x", {"latent": fields()["latent"]})
    (tmp_path / "y" / "latent").mkdir(parents=True)
    (tmp_path / "y" / "latent" / "disk2").symlink_to(tmp_path / "x" / "latent")
    assert read_arrays(tmp_path / "y").ids == ("disk2/a", "disk2/b", "disk2/disk/c")


def without(name, key):
    given = fields()
    del given[name][key]
    return given


def changed(name, key, x):
    given = fields()
    given[name][key] = x
    return given


def every(name, x):
    return fields() | {name: dict.fromkeys(IDS, x)}


def only(*names):
    return {name: x for name, x in fields().items() if name in names}


NAN = np.where(np.arange(6) == 3, np.nan, 0).astype(np.float32)
BAD_FIELDS = {
    "a latent less": (without("latent", "a"), r"embedding.*1 are not known \['a'\]"),
    "a text less": (without("text", "b"), r"text.*: its ids are not those of .*latent.*\['b'\]"),
    "a mask more": (changed("mask", "new", np.ones(5)), r"1 are not known \['new'\]"),
    "no latents": (only("text", "mask"), "no latent/ and no latent.npz"),
    "an unknown field": (fields() | {"clap": {"a": np.ones(2)}}, "clap.*holds arrays but is no"),
    "nothing": ({}, "no latent/ and no latent.npz"),
    "a shape": (
        changed("latent", "b", np.ones((4, 4, 2), np.float32)),
        r"1 of 3 .* not of the shape \(5, 4, 2\) of the others: 'b' has \(4, 4, 2\)",
    ),
    "one axis": (every("latent", np.ones(3)), r"latents have the shape \(3,\)"),
    "an axis of 0": (every("latent", np.ones((5, 0))), r"the shape \(5, 0\); give axes of 1"),
    "embeddings in a batch": (
        every("embedding", np.ones((1, 6))),
        r"embedding has the shape \(1, 6\); give \(classdim,\)",
    ),
    "pooled text": (every("text", np.ones(7)), r"text has the shape \(7,\); give \(tokens, text"),
    "mask too short": (every("mask", np.ones(4)), "mask has 4 frames where there are 5"),
    "text mask too long": (every("text_mask", np.ones(4)), "4 tokens where there are 3"),
    "mask of no text": (only("latent", "text_mask"), "a mask of no text; give text too"),
    "whole latents": (every("latent", np.ones((5, 2), int)), "latent is int64; give floating"),
    "whole text": (every("text", np.ones((3, 2), np.int32)), "text is int32; give floating"),
    "complex latents": (every("latent", np.ones((5, 2), complex)), "'a' .*complex128, no real"),
    "long doubles": (every("latent", np.ones((5, 2), np.longdouble)), "float128, no real number"),
    "words": (
        changed("text", "b", np.array([["x"]])),
        r"text.*: 'b' cannot be read .*<U1, no real",
    ),
    "records": (
        changed("text", "b", np.zeros((3, 7), [("x", "i2")])),
        r"text.*: 'b' cannot be read .*no real number",
    ),
    "objects": (
        changed("embedding", "disk/c", np.array([{}], object)),
        r"embedding.*: 'disk/c' cannot be read \(it holds Python objects",
    ),
    "nan in a latent": (
        changed("latent", "b", np.full((5, 4, 2), np.nan, np.float16)),
        r"latents of \['b'\] hold nan or inf",
    ),
    "nan in an embedding": (changed("embedding", "a", NAN), r"embedding of \['a'\] hold nan"),
    "an empty mask": (changed("mask", "b", np.zeros(5)), r"masks of \['b'\] keep no frame"),
    "a mask above 1": (changed("mask", "b", np.full(5, 2)), r"masks of \['b'\] leave 0 .. 1"),
    "no tokens": (
        changed("text_mask", "b", np.zeros(3)),
        r"text_mask.*1 text masks keep no token, such as those of \['b'\]",
    ),
    "an additive text mask": (
        changed("text_mask", "disk/c", np.array([0, 0, -10000.0])),
        r"1 text masks hold values beside 0 and 1, such as those of \['disk/c'\]",
    ),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_fields_are_refused(tmp_path, case, packed):
    given, says = BAD_FIELDS[case]
    with pytest.raises(InputError, match=says):
        read_arrays(put(tmp_path, given, given if packed else ()))


BAD_LINES = {
    "no JSON": (['{"id": "a"}', '{"id": '], r"metadata.jsonl, line 2: no sound JSON"),
    "a list": ([*lines(), "", "[1]"], r"line 5: \[1\] is no object with id"),
    "no id": ([{"title": "A"}], "line 1: .*is no object with id"),
    "an id by number": ([{"id": 3}], "line 1: id is 3; give a string that is not empty"),
    "an id twice": ([*lines(), {"id": "b"}], "line 4: the id 'b' is on line 2 too"),
    "a key twice": (['{"id": "a", "x": 1, "x": 2}'], "line 1: no sound JSON .'x' is there twice"),
    "half a surrogate pair": (['{"id": "a", "x": "\\ud800"}'], "line 1: no sound JSON"),
    "a line less": (lines()[:2], r"metadata.jsonl: its ids .*1 are missing \['disk/c'\], 0"),
    "a line more": ([*lines(), {"id": "d"}], r"0 are missing \[\], 1 are not known \['d'\]"),
    "no lines": (
        [],
        r"3 are missing \['a', 'b', 'disk/c'\]",
    ),
    "member by word": (lines(member="no"), "line 2: member is 'no'; give true or false"),
    "member by number": (lines(member=0), "line 2: member is 0; give true or false"),
    "no frames": (lines(frames=0), "line 2: frames is 0; give a whole number above 0"),
    "half a frame": (lines(frames=1.5), "line 2: frames is 1.5; give a whole number"),
    "true frames": (lines(frames=True), "line 2: frames is True; give a whole number"),
    "too many frames": (lines(frames=6), "frames of 'b' is 6, but its latent has 5; give 1 .. 5"),
    "a range backwards": (lines(query_frames=[3, 3]), "line 2: query_frames is .3, 3.; give two"),
    "a range before": (lines(query_frames=[-1, 3]), r"query_frames is \[-1, 3\]"),
    "a range of one": (lines(query_frames=[1]), r"query_frames is \[1\]"),
    "a range in seconds": (lines(query_frames=[0.5, 2]), r"query_frames is \[0.5, 2\]"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_metadata_is_refused_by_line(tmp_path, case):
    metadata, says = BAD_LINES[case]
    with pytest.raises(InputError, match=says):
        read_arrays(put(tmp_path, only("latent"), metadata=metadata))


def test_frames_beside_a_mask_are_refused(tmp_path):
    folder = put(tmp_path, only("latent", "mask"), metadata=lines(frames=2))
    with pytest.raises(InputError, match="frames for 'b', but there is a mask too; keep one"):
        read_arrays(folder)


def test_metadata_that_is_no_text_is_refused(tmp_path):
    folder = put(tmp_path, only("latent"))
    (folder / "metadata.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(InputError, match=r"metadata.jsonl: cannot be read .*as UTF-8"):
        read_arrays(folder)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    folder = put(
        tmp_path, only("latent"), metadata=["\ufeff" + json.dumps({"id": "a"}), *lines()[1:]]
    )
    assert read_arrays(folder).ids == tuple(IDS)


def test_a_field_that_is_there_twice_is_refused(tmp_path):
    put(tmp_path, only("latent"), ("latent",))
    with pytest.raises(InputError, match=r"latent/ and latent.npz are both there; keep one"):
        read_arrays(put(tmp_path, only("latent")))


def test_other_places_for_arrays_are_refused(tmp_path):
    np.save(tmp_path / "latent.npy", np.ones((3, 5, 2)))
    with pytest.raises(InputError, match=r"latent.npy: holds arrays but is no field"):
        read_arrays(tmp_path)
    (tmp_path / "latent.npy").rename(tmp_path / "latent")
    with pytest.raises(InputError, match="latent: is no folder"):
        read_arrays(tmp_path)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_arrays(tmp_path / "nowhere")
    with pytest.raises(InputError, match="layout = 'NCHW'; choose one of"):
        read_arrays(tmp_path, layout="NCHW")


def test_an_empty_field_is_refused(tmp_path):
    (put(tmp_path, only("latent")) / "text").mkdir()
    with pytest.raises(InputError, match="text: holds no arrays"):
        read_arrays(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, 150])
@pytest.mark.parametrize("name", ["latent/b.npy", "text.npz"])
def test_files_that_are_cut_off_are_refused(tmp_path, name, keep):
    path = put(tmp_path, fields(), ("text",)) / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"latent: 'b' cannot be read|text.npz: no sound npz"):
        read_arrays(tmp_path)


def test_a_file_that_is_cut_off_is_known_by_its_header(tmp_path):
    path = put(tmp_path, only("latent")) / "latent" / "b.npy"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-10])
    # Before any array is read: the other track, which comes first, is not finite.
    np.save(tmp_path / "latent" / "a.npy", np.full((FRAMES, WIDTH, CHANNELS), np.nan))
    with pytest.raises(
        InputError, match=f"'b' cannot be read .it is cut off: {size - 10} of {size}"
    ):
        read_arrays(tmp_path)


def test_a_changed_byte_in_an_archive_is_found(tmp_path):
    path = put(tmp_path, only("latent"), ("latent",)) / "latent.npz"
    with zipfile.ZipFile(path) as archive:
        last = archive.infolist()[-1]
        size = last.file_size
    content = bytearray(path.read_bytes())
    content[last.header_offset + size // 2 + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"'disk/c' cannot be read .*CRC"):
        read_arrays(tmp_path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "latent.npz", "w") as archive:
        archive.writestr("a.txt", "mine")
    with pytest.raises(InputError, match=r"member 'a.txt' is no .npy, or is there twice"):
        read_arrays(tmp_path)


def test_an_id_twice_in_an_archive_is_refused(tmp_path):
    put(tmp_path, only("latent"), ("latent",))
    with (
        zipfile.ZipFile(tmp_path / "latent.npz", "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("a.npy", archive.read("a.npy"))
    with pytest.raises(InputError, match=r"member 'a.npy' is no .npy, or is there twice"):
        read_arrays(tmp_path)


def test_a_query_may_ask_about_a_part(tmp_path):
    metadata = [
        {"id": "a", "query_frames": [1, 3]},
        {"id": "b"},
        {"id": "disk/c", "query_frames": [3, 5], "frames": 4},
    ]
    folder = put(tmp_path, only("latent", "text"), metadata=metadata)
    queries = read_queries(folder)
    assert queries.examples.mask.tolist() == [[0, 1, 1, 0, 0], [1] * 5, [0, 0, 0, 1, 0]]
    assert queries.metadata[0] == {"query_frames": [1, 3]}
    # As a corpus the same folder is whole.
    corpus = in_memory(read_arrays(folder))
    assert corpus.examples.mask.tolist() == [[1] * 5, [1] * 5, [1, 1, 1, 1, 0]]
    np.testing.assert_array_equal(corpus.examples.latent, queries.examples.latent)


def test_a_part_is_weighted_as_the_mask_says(tmp_path):
    folder = put(tmp_path, only("latent", "mask"), metadata=lines(query_frames=[2, 5]))
    assert read_queries(folder).examples.mask[1].tolist() == [0, 0, 1, 0.5, 0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"query_frames": [4, 6]}, r"query_frames of 'b' is \[4, 6\], but it has 5 frames"),
        ({"query_frames": [3, 5], "frames": 3}, r"'b' is \[3, 5\], where its mask has no valid"),
    ],
)
def test_a_part_without_music_is_refused(tmp_path, changes, says):
    folder = put(tmp_path, only("latent"), metadata=lines(**changes))
    with pytest.raises(InputError, match=says):
        read_queries(folder)


def corpus_to_save(ids=("file", "../x", "é/ 1.npy", "b"), dtype=np.float32, parts=("embedding",)):
    rng = np.random.default_rng(1)
    n = len(ids)
    shapes = {"embedding": (n, 3), "text": (n, 2, 3)}
    condition = {p: rng.standard_normal(shapes[p]).astype(dtype) for p in parts if p in shapes}
    if "text_mask" in parts:
        condition["text_mask"] = np.array([[True, False]] * n)
    return corpus_of(
        list(ids),
        rng.standard_normal((n, 4, 2)).astype(dtype),
        Condition(**condition),
        np.tile(np.array([1, 1, 0.25, 0], np.float32), (n, 1)),
        np.arange(n) % 2 == 0,
        [{"title": f"t{i}", "nested": {"x": [i, None]}} for i in range(n)],
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parts", [(), ("embedding",), ("text",), ("text", "text_mask")])
def test_a_saved_corpus_comes_back_as_it_was(tmp_path, dtype, parts):
    corpus = corpus_to_save(dtype=dtype, parts=parts)
    save_arrays(tmp_path / "new" / "c", corpus)
    again = in_memory(read_arrays(tmp_path / "new" / "c"))
    assert again.ids == corpus.ids
    assert again.metadata == corpus.metadata
    assert corpus_fingerprint(again) == corpus_fingerprint(corpus)


@settings(max_examples=25)
@given(ids=st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_any_ids_survive(tmp_path_factory, ids):
    corpus = corpus_to_save(sorted(ids))
    folder = tmp_path_factory.mktemp("ids") / "c"
    if any("\0" in name for name in ids):
        with pytest.raises(InputError, match="hold a zero byte"):
            save_arrays(folder, corpus)
        return
    save_arrays(folder, corpus)
    assert corpus_fingerprint(read_arrays(folder)) == corpus_fingerprint(corpus)


def test_a_corpus_is_not_saved_among_other_things(tmp_path):
    corpus = corpus_to_save()
    save_arrays(tmp_path / "c", corpus)
    before = {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()}
    with pytest.raises(InputError, match="c: is not empty; give a new folder"):
        save_arrays(tmp_path / "c", corpus)
    assert {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metadata": ({"frames": 3}, {}, {}, {})}, "has the key 'frames'; rename it"),
        ({"metadata": ({"x": {1, 2}}, {}, {}, {})}, "x is .* of type set"),
    ],
)
def test_metadata_that_would_not_come_back_is_refused(tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        save_arrays(tmp_path / "c", corpus_to_save()._replace(**changes))
    assert not (tmp_path / "c").exists()


def test_only_this_layouts_conditions_are_saved(tmp_path):
    corpus = corpus_to_save()
    other = corpus._replace(examples=corpus.examples._replace(condition={"x": np.ones((4, 2))}))
    with pytest.raises(InputError, match="a condition of type dict; give a Condition"):
        save_arrays(tmp_path / "c", other)
    none = corpus._replace(examples=corpus.examples._replace(condition=None))
    save_arrays(tmp_path / "c", none)
    assert read_arrays(tmp_path / "c").examples.condition == Condition(None, None, None)


def test_a_saving_that_broke_off_is_not_read(tmp_path, monkeypatch):
    corpus = corpus_to_save(parts=("embedding", "text"))
    save_arrays(tmp_path / "whole", corpus)
    count = len(list((tmp_path / "whole").iterdir()))
    from tda_jax.corpus import arrays

    real = arrays.whole_file
    for done in range(count):
        left = iter(range(done))

        def fails(path, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(path)

        monkeypatch.setattr(arrays, "whole_file", fails)
        with pytest.raises(KeyboardInterrupt):
            save_arrays(tmp_path / f"c{done}", corpus)
        with pytest.raises(InputError, match=r"no such folder|no latent/"):
            read_arrays(tmp_path / f"c{done}")
