"""Input that cannot be used is refused before any work, with a message that says what to do."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import attribute, attribute_inputs, synthetic_default
from tda_jax.errors import InputError
from tda_jax.evaluation.small_unet import small_unet
from tda_jax.evaluation.synthetic import synthetic_corpus
from tda_jax.examples import corpus_fingerprint
from tda_jax.models import families
from tda_jax.models.export import save_pipeline
from tda_jax.models.pretrained import load_pipeline
from tests.corpus import lab_dataset
from tests.experiments import arrays_card


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folders of a shrunk default, with a model that was not trained."""
    workdir = tmp_path_factory.mktemp("made")
    settings = arrays_card.shrunk(workdir).synthetic
    synthetic_default.make_corpus(workdir / "synthetic", settings)
    unet = small_unet(0)
    save_pipeline(workdir / "synthetic" / "model", synthetic_default._pipeline(unet, unet.params))
    return workdir


def refused(config, workdir, words):
    events = []
    with pytest.raises(InputError, match=words):
        attribute.run(config, lambda *event: events.append(event))
    assert events == []
    assert not workdir.exists()


def nan_in(arrays):
    arrays["work01-v01"][2, 3, 1] = np.nan
    return arrays


def longer(arrays):
    arrays["work01-v01"] = np.zeros((9, 8, 4), np.float32)
    return arrays


def without(arrays):
    del arrays["work01-v01"]
    return arrays


def silent(arrays):
    return arrays | {"work01-v01": np.zeros(8, np.float32)}


def channels_first(arrays):
    return {name: np.moveaxis(x, -1, 0) for name, x in arrays.items()}


def narrow(arrays):
    return {name: x[:, :15] for name, x in arrays.items()}


@pytest.mark.parametrize(
    ("field", "spoil", "words"),
    [
        ("latent", nan_in, r"latents of \['work01-v01'\] hold nan or inf"),
        ("latent", longer, r"latent.npz: 1 of 20 arrays are not of the shape \(8, 8, 4\)"),
        ("text", without, r"text.npz: its ids are not those of .*1 are missing \['work01-v01'\]"),
        ("mask", silent, r"masks of \['work01-v01'\] keep no frame"),
        ("latent", channels_first, r"channels first\? use --config.layout=CHW"),
        ("text", narrow, "text of width 15, where this UNet takes 16"),
    ],
)
def test_arrays_that_cannot_be_used(made, tmp_path, field, spoil, words):
    corpus = arrays_card.copied(made, tmp_path / "corpus")
    arrays_card.change(corpus, field, spoil)
    out = tmp_path / "out"
    refused(arrays_card.folders(out, made, corpus), out, words)


def test_channels_first_can_be_read_as_such(made, tmp_path):
    corpus = arrays_card.copied(made, tmp_path / "corpus")
    arrays_card.change(corpus, "latent", channels_first)
    config = arrays_card.folders(tmp_path / "out", made, corpus, layout="CHW")
    read, _ = attribute._read(config)[1].corpus, None
    usual = attribute._read(arrays_card.folders(tmp_path / "out", made))[1].corpus
    np.testing.assert_array_equal(read.examples.latent, usual.examples.latent)


def test_an_id_that_repeats(made, tmp_path):
    corpus = arrays_card.copied(made, tmp_path / "corpus")
    lines = (corpus / "metadata.jsonl").read_text().splitlines()
    (corpus / "metadata.jsonl").write_text("\n".join([*lines, lines[3]]))
    out = tmp_path / "out"
    refused(arrays_card.folders(out, made, corpus), out, r"line 21: the id .* is on line 4 too")


def test_a_condition_that_is_missing(made, tmp_path):
    corpus = arrays_card.copied(made, tmp_path / "corpus")
    (corpus / "text.npz").unlink()
    (corpus / "text_mask.npz").unlink()
    out = tmp_path / "out"
    refused(arrays_card.folders(out, made, corpus), out, "tracks: have no text, which this UNet")


def test_a_group_that_selects_nothing(made, tmp_path):
    """A UNet without transformers."""
    model = tmp_path / "model"
    shutil.copytree(made / "synthetic" / "model", model)
    path = model / "unet" / "config.json"
    config = json.loads(path.read_text())
    config |= {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    path.write_text(json.dumps(config))
    out = tmp_path / "out"
    refused(arrays_card.folders(out, made, model=str(model)), out, "selects none of")


def lab_of(corpus, folder, more=None, layout="HWC"):
    """A lab's own dataset of the tracks of a corpus, with more features of text."""
    arrays, kinds, more = corpus.examples, tfds.features, more or {}
    parts = {"latent": arrays.latent, "text": arrays.condition.text, "mask": arrays.mask}
    parts["text_mask"] = arrays.condition.text_mask
    parts = {name: np.asarray(x) for name, x in parts.items()}
    if layout == "CHW":
        parts["latent"] = np.moveaxis(parts["latent"], -1, 1)
    of_kind = {
        name: kinds.Tensor(shape=x.shape[1:], dtype=x.dtype.type) for name, x in parts.items()
    }
    rows = [
        {"id": name, "member": bool(member), **{part: x[i] for part, x in parts.items()}, **more}
        for i, (name, member) in enumerate(zip(corpus.ids, corpus.members, strict=True))
    ]
    of_kind |= {"id": kinds.Text(), "member": kinds.Scalar(np.bool_)}
    of_kind |= dict.fromkeys(more, kinds.Text())
    return lab_dataset.write(folder, of_kind, rows, {"train": len(rows)})


def test_a_lab_s_own_dataset_in_the_other_layout_is_refused_by_its_shape(made, tmp_path):
    config = arrays_card.folders(tmp_path / "out", made)
    config.corpus = str(lab_of(attribute._read(config)[1].corpus, tmp_path / "lab", layout="CHW"))
    refused(config, tmp_path / "out", r"channels first\? use --config.layout=CHW")


def test_a_part_of_a_lab_s_query_cannot_be_asked_about(made, tmp_path):
    config = arrays_card.folders(tmp_path / "out", made)
    asked = lab_of(attribute._read(config)[1].queries, tmp_path / "lab", {"query_frames": "[0, 4]"})
    config.queries, config.query_ids = str(asked), ""
    refused(config, tmp_path / "out", "query_frames for 'work00-v00', but a dataset's rows")


def test_a_lab_s_own_dataset_gives_the_corpus_of_its_arrays(made, tmp_path):
    config = arrays_card.folders(tmp_path / "out", made)
    usual = attribute._read(config)[1]
    config.corpus = str(lab_of(usual.corpus, tmp_path / "lab"))
    got = attribute._read(config)[1]
    assert corpus_fingerprint(got.corpus) == corpus_fingerprint(usual.corpus)
    assert got.queries.ids == usual.queries.ids
    assert attribute_inputs._made_of(config) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group": "layers"}, "has no parameter group 'layers'.*choose one of"),
        ({"corpus_size": 11}, "N = 11 is smaller than the 12 training tracks given"),
        ({"corpus_size": 0}, "corpus_size = 0; give --config.corpus_size=N"),
        ({"corpus_size": -1}, "N = -1; give the size of the model's whole training set"),
        ({"query_ids": ""}, "neither queries nor query_ids are given"),
        ({"query_ids": "work00-v00,work00-v99"}, "no track 'work00-v99'; .*'work00-v0"),
        ({"query_ids": '["work00-v00", "work00-v00"]'}, "name a track twice"),
        ({"query_ids": '["work00-v00"'}, "is no JSON list"),
        ({"query_ids": ","}, "names no track; give one at least"),
        ({"query_ids": '[["work00-v00"]]'}, "is no id; give strings"),
        ({"corpus": ""}, "model = .* but no corpus"),
        ({"model": ""}, "corpus = .* but no model"),
        ({"model": "/no/such/folder"}, "/no/such/folder/model_index.json: cannot be read"),
        ({"corpus": "/no/such/folder"}, "/no/such/folder: no such folder"),
        ({"queries": "/no/such/folder", "query_ids": ""}, "/no/such/folder: no such folder"),
        ({"layout": "NHWC"}, "layout = 'NHWC'; choose one of"),
        ({"method": "both"}, "method = 'both'; choose one of .*'exact'"),
        ({"weighting": "mean"}, "weighting = 'mean'; choose one of .*'ratio'"),
        ({"dtype": "float16"}, "dtype = 'float16'; choose one of .*'bfloat16'"),
        ({"strata": 15}, "strata = 15; give a multiple of 10"),
        ({"replicates": 3}, "replicates = 3; give 4 at least"),
        ({"batch": -1}, "batch = -1; give 1 at least, or 0 for what fits"),
        ({"queries_per_pass": -1}, "queries_per_pass = -1; give 1 at least, or 0"),
        ({"devices": 99}, "99 devices asked for"),
        ({"fisher_tracks": 13}, "fisher_tracks = 13; give 1 to 12"),
        ({"frames": True}, "frames = True needs method = 'exact'"),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_settings_that_cannot_be_used(made, tmp_path, changes, words):
    out = tmp_path / "out"
    refused(arrays_card.folders(out, made, **changes), out, words)


def test_a_part_of_a_track_is_asked_about_in_a_folder_of_queries(made, tmp_path):
    corpus = arrays_card.copied(made, tmp_path / "corpus")
    path = corpus / "metadata.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [x | {"query_frames": [0, 4]} if x["id"] == "work00-v00" else x for x in lines]
    path.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    words = "query_frames for 'work00-v00'; they count for queries only"
    refused(arrays_card.folders(out, made, corpus), out, words)


@pytest.mark.parametrize(
    ("changes", "synthetic", "words"),
    [
        ({"group": "layers"}, {}, "has no parameter group 'layers'"),
        ({"corpus_size": 5}, {}, "N = 5 is smaller than the 12"),
        ({"query_ids": "nobody"}, {}, "no track 'nobody'"),
        ({}, {"steps": 0}, "synthetic.steps = 0"),
        ({}, {"batch": 13}, "synthetic.batch = 13; give 1 to 12"),
        ({}, {"learning_rate": 0.0}, "synthetic.learning_rate = 0.0"),
        ({}, {"captions": 3}, "3 captions do not cross with 4 variants"),
        ({}, {"queries": 13}, "13 queries of 12 members"),
    ],
    ids=str,
)
def test_nothing_is_trained_for_a_card_that_cannot_be_run(tmp_path, changes, synthetic, words):
    config, events = arrays_card.shrunk(tmp_path / "out", **changes), []
    config.synthetic.update(synthetic)
    with pytest.raises(InputError, match=words):
        attribute.run(config, lambda *event: events.append(event))
    assert events == []
    assert not (tmp_path / "out" / "synthetic" / "model").exists()


def test_the_card_has_a_default_for_every_setting(tmp_path):
    """And it is the library's, but for sizes, which it leaves open."""
    given = attribute_inputs.settings_of(arrays_card.default(), 128)
    assert given == type(given)(128, "transformer")
    compute = attribute_inputs.compute_of(arrays_card.default())
    assert compute == type(compute)(compute.devices, 0, 0, 0)
    with pytest.raises(AttributeError, match="nonsense"):
        arrays_card.default().nonsense = 1


def test_ids_may_be_listed_in_three_ways():
    wanted = ["a", "b c"]
    assert attribute_inputs.listed("a, b c") == wanted
    assert attribute_inputs.listed('["a", "b c"]') == wanted
    assert attribute_inputs.listed(("a", "b c")) == wanted


def test_the_folder_of_the_default_is_the_model_that_was_trained(made):
    loaded = load_pipeline(made / "synthetic" / "model").components["unet"]
    unet = small_unet(0)
    assert loaded.module.config == unet.module.config
    assert families.FAMILIES["UNet2DConditionModel"].groups(unet.module.config) == loaded.groups
    same = {
        path: np.array_equal(leaf, _flat(loaded.params)[path])
        for path, leaf in _flat(unet.params).items()
    }
    assert all(same.values())


def _flat(params):
    from tda_jax import params as tree

    return tree.flatten(params)


def test_the_corpus_of_the_default_is_read_as_it_was_made(made):
    settings = arrays_card.shrunk(made).synthetic
    names = ("seed", "works", "variants", "captions", "held_out", "unseen_works")
    wanted = synthetic_corpus(**{name: settings[name] for name in names})
    read = attribute_inputs.read_arrays(made / "synthetic" / "corpus")
    assert (read.ids, read.metadata) == (wanted.ids, wanted.metadata)
    np.testing.assert_array_equal(read.members, wanted.members)
    np.testing.assert_array_equal(read.examples.latent, wanted.examples.latent)
    np.testing.assert_array_equal(read.examples.mask, wanted.examples.mask)


def command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "experiments.attribute", *flags],
        cwd=arrays_card.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.grop=all", "the card has no setting 'grop'; did you mean 'group'?"),
        ("--config.synthetic.nonsense=1", "the card has no setting 'nonsense'"),
        ("--config=no/such/card.py", "the card cannot be read"),
        ("--config.corpus=here", "corpus = 'here' but no model"),
        ("nonsense", "unknown arguments ['nonsense']"),
    ],
)
def test_an_error_on_the_command_line_is_one_line(tmp_path, flag, words):
    done = command(flag, f"--config.workdir={tmp_path / 'out'}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert done.stdout == ""
