"""The text encoders beyond parity: what they look at, old files, refusals, the way back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tda_jax import params as tree
from tda_jax.errors import InputError
from tda_jax.models import export, pretrained
from tda_jax.models.families import FAMILIES, initialise
from tests.models import cases, checkpoints, golden

CLIP, CLAP = "CLIPTextModel", "ClapTextModelWithProjection"
SMALL = ("clip_text", "clip_text_gelu", "clap_text")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text_encoders")
    made = {n: pretrained.load_component(golden.checkpoint(folder / n, n)) for n in SMALL}
    apply = {n: jax.jit(c.module.apply) for n, c in made.items()}
    return {n: lambda *a, n=n, p=c.params: apply[n]({"params": p}, *a) for n, c in made.items()}


def given(name):
    return [jnp.asarray(x) for x in checkpoints.inputs(cases.SMALL[name], golden.SEED).values()]


# What is looked at.


@pytest.mark.parametrize("name", ["clip_text", "clip_text_gelu"])
@pytest.mark.parametrize("place", [1, 5])
def test_no_state_depends_on_a_later_token(models, name, place):
    (ids,) = given(name)
    changed = ids.at[:, place].set((ids[:, place] + 1) % 40)
    before = models[name](ids).last_hidden_state
    after = models[name](changed).last_hidden_state
    np.testing.assert_array_equal(before[:, :place], after[:, :place])
    moved = np.abs(np.asarray(before - after))[:, place:].max(axis=-1)
    assert np.all(moved > 1e-4)  # and every later one does


@pytest.mark.parametrize(("name", "end"), [("clip_text", 59), ("clip_text_gelu", 7)])
def test_the_pooled_state_is_that_of_the_first_end_token(models, name, end):
    (ids,) = given(name)
    out = models[name](ids)
    for row in range(len(ids)):
        place = np.flatnonzero(np.asarray(ids[row]) == end)[0]
        np.testing.assert_array_equal(out.pooled[row], out.last_hidden_state[row, place])
    assert np.sum(np.asarray(ids) == 59) > len(ids) or name != "clip_text"  # padding is one too


def test_clap_does_not_depend_on_how_far_captions_are_padded(models):
    ids, mask = given("clap_text")
    expected = models["clap_text"](ids, mask)
    for more in (1, 3):
        pad = ((0, 0), (0, more))
        longer = models["clap_text"](jnp.pad(ids, pad, constant_values=1), jnp.pad(mask, pad))
        np.testing.assert_allclose(longer, expected, atol=5e-7)


def test_clap_does_not_depend_on_what_stands_behind_the_mask(models):
    ids, mask = given("clap_text")
    other = jnp.where(mask, ids, 17)
    np.testing.assert_array_equal(models["clap_text"](other, mask), models["clap_text"](ids, mask))
    # The mask is what hides it: tokens that are seen change the embedding.
    seen = models["clap_text"](other, jnp.ones_like(mask))
    assert np.abs(np.asarray(seen - models["clap_text"](ids, mask)))[1:].max() > 1e-3


def test_clap_embeddings_have_unit_norm_even_without_a_token(models):
    ids, mask = given("clap_text")
    for seen in (mask, jnp.zeros_like(mask)):
        norms = np.linalg.norm(models["clap_text"](ids, seen), axis=-1)
        np.testing.assert_allclose(norms, 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_captions_beyond_the_table_of_positions_are_refused(models, name):
    arguments = [jnp.zeros((1, 16), x.dtype) for x in given(name)]
    with pytest.raises(ValueError, match="captions of 16 tokens; the model has positions for 1"):
        models[name](*arguments)


# Random parameters.


@pytest.mark.parametrize("name", SMALL)
def test_random_parameters_can_be_drawn(name):
    case = cases.SMALL[name]
    family = FAMILIES[case.class_name]
    config = family.read_config(case.config, "test")
    drawn = tree.flatten(initialise(family, config, 0))
    tables = [np.asarray(v) for k, v in drawn.items() if k.endswith("/embedding")]
    assert len(tables) == (3 if name == "clap_text" else 2)
    assert np.std(np.concatenate([t.ravel() for t in tables])) == pytest.approx(0.02, rel=0.1)
    out = family.build(config).apply({"params": tree.merge(drawn)}, *given(name))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))


# Files.


def rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = change(load_file(file))
    save_file(tensors, file, metadata={"format": "pt"})


def places(dtype):
    return np.arange(11, dtype=dtype)[None]


OLD = {
    "prefix and positions": lambda t: (
        {f"text_model.{k}": v for k, v in t.items()}
        | {"text_model.embeddings.position_ids": places(np.int64)}
    ),
    "prefix": lambda t: {f"text_model.{k}": v for k, v in t.items()},
    "positions": lambda t: t | {"embeddings.position_ids": places(np.int64)},
    "positions in half precision": lambda t: t | {"embeddings.position_ids": places(np.float16)},
}


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), a, b)


@pytest.mark.parametrize("age", OLD)
def test_older_clip_files_are_read(tmp_path, age):
    folder = golden.checkpoint(tmp_path / "text_encoder", "clip_text")
    expected = pretrained.load_component(folder)
    rewrite(folder, OLD[age])
    read = pretrained.load_component(folder)
    assert_same(expected.params, read.params)
    assert read.record.tensors == expected.record.tensors


def test_the_integer_tables_of_clap_are_passed_over(tmp_path):
    folder = golden.checkpoint(tmp_path / "text_encoder", "clap_text")
    expected = pretrained.load_component(folder).params
    stem = "text_model.embeddings."
    tables = {f"{stem}position_ids": places(np.int64), f"{stem}token_type_ids": places(np.int64)}
    rewrite(folder, lambda t: t | tables)
    assert_same(expected, pretrained.load_component(folder).params)


def test_other_integers_are_refused(tmp_path):
    folder = golden.checkpoint(tmp_path / "text_encoder", "clip_text")
    rewrite(folder, lambda t: t | {"encoder.position_ids": places(np.int64)})
    with pytest.raises(InputError, match=r"encoder\.position_ids is of type int64, no floating"):
        pretrained.load_component(folder)


def test_a_text_encoder_is_loaded_by_its_name_and_saved(tmp_path):
    folder = tmp_path / "riffusion"
    golden.checkpoint(folder / "text_encoder", "clip_text")
    rewrite(folder / "text_encoder", OLD["prefix and positions"])
    index = {
        "_class_name": "StableDiffusionPipeline",
        "text_encoder": ["transformers", CLIP],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    loaded = pretrained.load_pipeline(folder, ("text_encoder",))
    assert set(loaded.components) == {"text_encoder"}
    export.save_pipeline(tmp_path / "saved", loaded)
    saved = load_file(tmp_path / "saved" / "text_encoder" / "model.safetensors")
    assert {k: list(v.shape) for k, v in saved.items()} == golden.manifests()["clip_text"]
    again = pretrained.load_pipeline(tmp_path / "saved")
    assert_same(loaded.components["text_encoder"].params, again.components["text_encoder"].params)
    assert again.index["text_encoder"] == ["transformers", CLIP]


# Configs.

REFUSED = {
    "clip activation": (CLIP, {"hidden_act": "relu"}, "hidden_act is 'relu'; only quick_gelu and"),
    "clip heads": (CLIP, {"num_attention_heads": 5}, "is 5; it must divide hidden_size 512"),
    "clip mask": (CLIP, {"use_attention_mask": True}, "use_attention_mask is True, which is not"),
    "clip end tokens": (
        CLIP,
        {"eos_token_id": [1, 2]},
        r"eos_token_id is \[1, 2\], which is not a",
    ),
    "clip width": (CLIP, {"hidden_size": 0}, "hidden_size is 0, which is not a whole number above"),
    "clip positions": (CLIP, {"position_embedding_type": "rotary"}, "'rotary', which is not supp"),
    "clap activation": (CLAP, {"hidden_act": "gelu_new"}, "is 'gelu_new', which is not supported"),
    "clap projection": (CLAP, {"projection_hidden_act": "gelu"}, "only 'relu' is"),
    "clap positions": (
        CLAP,
        {"position_embedding_type": "relative_key"},
        "position_embedding_type is 'relative_key', which is not supported; only 'absolute' is",
    ),
    "clap heads": (CLAP, {"num_attention_heads": 7}, "is 7; it must divide hidden_size 768"),
    "clap padding": (CLAP, {"pad_token_id": 513}, "pad_token_id is 513; it must be below 513"),
    "clap decoder": (CLAP, {"is_decoder": True}, "is_decoder is True, which is not supported"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_settings_that_are_not_ported_are_refused(fault):
    name, config, message = REFUSED[fault]
    with pytest.raises(InputError, match=f"^config.json: .*{message}"):
        FAMILIES[name].read_config(config, "config.json")


def test_keys_of_transformers_base_class_are_passed_over():
    keys = {"torch_dtype": "float32", "dropout": 0.0, "initializer_factor": 1.0, "bos_token_id": 0}
    for name in (CLIP, CLAP):
        read = FAMILIES[name].read_config
        assert read(keys, "config.json") == read({}, "config.json")
