import csv
import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tda_jax.errors import InputError
from tda_jax.export import with_metadata, write_csv, write_parquet

COLUMNS = {
    "rank": np.array([1, 2, 3]),
    "id": ["b", 'say "a", or\nb', "é"],
    "score": np.array([0.1, -1e-300, np.nan]),
    "small": np.array([0.1, np.inf, -0.0], np.float32),
    "member": np.array([True, False, True]),
}


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_csv_file_is_what_people_expect(tmp_path):
    write_csv(tmp_path / "new" / "scores.csv", COLUMNS)
    assert (tmp_path / "new" / "scores.csv").read_bytes().decode() == (
        "rank,id,score,small,member\n"
        "1,b,0.1,0.10000000149011612,true\n"
        '2,"say ""a"", or\nb",-1e-300,inf,false\n'
        "3,é,,-0.0,true\n"
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@given(data=st.data())
def test_floats_survive_exactly(tmp_path_factory, dtype, data):
    size = np.dtype(dtype).itemsize
    bits = data.draw(st.lists(st.binary(min_size=size, max_size=size), min_size=1))
    values = np.frombuffer(b"".join(bits), dtype)
    folder = tmp_path_factory.mktemp("x")
    for given_as in (values, list(values)):
        write_csv(folder / "x.csv", {"x": given_as, "id": ["i"] * len(values)})
        _, *rows = read_csv(folder / "x.csv")
        found = np.array([float(row[0] or "nan") for row in rows])
        np.testing.assert_array_equal(found, values.astype(np.float64))  # nan where nan is
        np.testing.assert_array_equal(
            np.signbit(found[found == 0]), np.signbit(values[values == 0])
        )
    write_parquet(folder / "x.parquet", {"x": values})
    column = parquet.read_table(folder / "x.parquet")["x"].to_numpy()
    assert column.dtype == (np.float32 if size == 2 else dtype)
    np.testing.assert_array_equal(column, values.astype(column.dtype))


def test_parquet_keeps_types(tmp_path):
    write_parquet(tmp_path / "new" / "t.parquet", COLUMNS | {"byte": np.array([1, 2, 3], np.uint8)})
    table = parquet.read_table(tmp_path / "new" / "t.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "rank": "int64",
        "id": "string",
        "score": "double",
        "small": "float",
        "member": "bool",
        "byte": "uint8",
    }
    assert table["id"].to_pylist() == COLUMNS["id"]
    assert table["member"].to_pylist() == [True, False, True]
    np.testing.assert_array_equal(table["score"].to_numpy(), COLUMNS["score"])


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, -2], "int64", [1, None, -2]),
        ([1, 2.5, None], "double", [1.0, 2.5, None]),
        ([True, None, False], "bool", [True, None, False]),
        (["a", None, ""], "string", ["a", None, ""]),
        ([None, None, None], "string", [None, None, None]),
        ([True, 1, 2.5], "string", ["true", "1", "2.5"]),
        (["a", 1, {"b": [1, None]}], "string", ["a", "1", '{"b": [1, null]}']),
        ([[1, "é"], [], None], "string", ['[1, "é"]', "[]", None]),
        ([2**63, 1, 2], "string", [str(2**63), "1", "2"]),
        ([2**53 + 1, 0.5, 2], "string", [str(2**53 + 1), "0.5", "2"]),
        ([np.float32(0.5), np.int64(1), 2], "double", [0.5, 1.0, 2.0]),
    ],
)
def test_lists_of_any_values(tmp_path, values, kind, expected):
    write_parquet(tmp_path / "t", {"x": values})
    column = parquet.read_table(tmp_path / "t")["x"]
    assert (str(column.type), column.to_pylist()) == (kind, expected)
    # The CSV file says the same in words.
    write_csv(tmp_path / "t.csv", {"x": values, "y": [0, 0, 0]})
    words = [row[0] for row in read_csv(tmp_path / "t.csv")[1:]]
    for word, value in zip(words, expected, strict=True):
        said = json.loads(word) if word and kind != "string" else word
        assert said == ("" if value is None else value)


def test_metadata_becomes_columns_by_name():
    metadata = [{"title": "T", "tags": ["x"]}, {}, {"artist": "A", "title": None}]
    table = with_metadata(COLUMNS, metadata)
    assert list(table) == [*COLUMNS, "artist", "tags", "title"]
    assert table["title"] == ["T", None, None]
    assert table["tags"] == [["x"], None, None]
    assert table["artist"] == [None, None, "A"]
    assert table["score"] is COLUMNS["score"]


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"score": 7}, {"meta_score": 7}),
        ({"score": 7, "meta_score": 8}, {"meta_score": 8, "meta_meta_score": 7}),
        ({"id": 7, "meta_id": 8}, {"meta_id": 8, "meta_meta_id": 7}),
        ({"id": 7, "meta_meta_id": 9}, {"meta_id": 7, "meta_meta_id": 9}),
    ],
)
def test_metadata_never_takes_a_results_name(entry, names):
    table = with_metadata({"id": ["a"], "score": [0.5]}, [entry])
    assert table == {"id": ["a"], "score": [0.5]} | {name: [x] for name, x in names.items()}


@pytest.mark.parametrize("write", [write_csv, write_parquet])
@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({}, "give at least one"),
        ({"a": [1], "b": np.zeros(2)}, r"columns of the lengths \{'a': 1, 'b': 2\}"),
        ({"a": "text"}, "column 'a' is not of one axis"),
        ({"a": [1, {2}]}, r"column 'a' holds \{2\}, which no table does"),
        ({"a": [object()]}, "column 'a' holds <object"),
    ],
)
def test_what_is_no_table_is_refused_and_leaves_the_old_file(tmp_path, write, columns, says):
    path = tmp_path / "t"
    path.write_text("old")
    with pytest.raises(InputError, match=says):
        write(path, columns)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_metadata_of_other_rows_is_refused():
    with pytest.raises(InputError, match=r"\{'a': 2, '\(metadata\)': 1\}"):
        with_metadata({"a": [1, 2]}, [{}])


def test_a_table_without_rows_keeps_its_names(tmp_path):
    write_csv(tmp_path / "t.csv", {"id": [], "score": np.zeros(0)})
    assert (tmp_path / "t.csv").read_text() == "id,score\n"
    write_parquet(tmp_path / "t.parquet", {"id": [], "score": np.zeros(0)})
    assert parquet.read_table(tmp_path / "t.parquet").column_names == ["id", "score"]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for write in (write_csv, write_parquet):
        with pytest.raises(InputError, match=r"file/t: cannot be written"):
            write(tmp_path / "file" / "t", COLUMNS)


def test_a_cell_of_nan_is_empty_wherever_it_stands(tmp_path):
    write_csv(tmp_path / "t", {"x": [math.nan, "a", None], "y": [1, np.float32("nan"), 2]})
    assert read_csv(tmp_path / "t")[1:] == [["", "1"], ["a", ""], ["", "2"]]
