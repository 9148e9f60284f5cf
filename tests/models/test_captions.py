"""Captions → tokens → conditions: folders, trained tokenizers, and what a condition depends on."""

import json
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.errors import InputError
from tda_jax.models import captions
from tda_jax.models.families import FAMILIES, initialise
from tda_jax.models.pretrained import Component, Record
from tests.models import cases

CAPTIONS = [
    "Slow jazz piano ballad",
    "fast techno with a hard kick drum, 128 bpm",
    "slow ambient pads & strings",
    "it's a jazz waltz for piano",
    "a hard rock guitar, don't stop",
] * 3
KINDS = ("clip", "roberta", "words")


# Folders, written by hand.

CLIP_TOKENS = ["!", "l", "o", "w", "e", "r", "w</w>", "r</w>", "!</w>", "lo", "low</w>", "er</w>"]
CLIP_TOKENS += ["low", "<|startoftext|>", "<|endoftext|>"]
CLIP_MERGES = ["l o", "lo w</w>", "e r</w>", "lo w"]
START, END = 13, 14
LOW, LOWER = [10], [12, 11]  # "low</w>" and "low" "er</w>"

ROBERTA_TOKENS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "l",
    "o",
    "w",
    "e",
    "r",
    "Ġ",
    "lo",
    "low",
    "Ġlow",
]
ROBERTA_TOKENS += ["er", "L", "<mask>"]
ROBERTA_MERGES = ["l o", "lo w", "Ġ low", "e r"]


def write(folder, tokens, merges, config, special_map=None):
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if special_map is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(special_map))
    return folder


def token(content):
    """A special token as the config of Stable Diffusion 1.x writes it."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"__type": "AddedToken", "content": content, **flags}


SD_CONFIG = {
    "bos_token": token("<|startoftext|>"),
    "eos_token": token("<|endoftext|>"),
    "unk_token": token("<|endoftext|>"),
    "pad_token": "<|endoftext|>",
    "model_max_length": 7,
    "tokenizer_class": "CLIPTokenizer",
}


@pytest.fixture
def clip_folder(tmp_path):
    return write(tmp_path / "tokenizer", CLIP_TOKENS, CLIP_MERGES, SD_CONFIG)


@pytest.fixture
def roberta_folder(tmp_path):
    config = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 7}
    return write(tmp_path / "tokenizer", ROBERTA_TOKENS, ROBERTA_MERGES, config)


def test_clip_tables_are_read_as_clip_means_them(clip_folder):
    tokenizer = captions.load_tokenizer(clip_folder)
    assert tokenizer.max_length == 7
    ids, mask = captions.token_ids(tokenizer, ["low  LOWER", "", "low!", "lower\n"])
    assert ids.tolist() == [
        [START, *LOW, *LOWER, END, END, END],
        [START, END, END, END, END, END, END],
        [START, *LOW, 8, END, END, END, END],
        [START, *LOWER, END, END, END, END],
    ]
    assert mask.sum(axis=1).tolist() == [5, 2, 4, 4]
    assert ids.dtype == np.int32
    assert mask.dtype == bool


def test_the_map_of_special_tokens_counts_before_the_config(tmp_path):
    # Stable Diffusion 2.x pads with "!" and says so only in that file.
    folder = write(tmp_path / "t", CLIP_TOKENS, CLIP_MERGES, SD_CONFIG, {"pad_token": "!"})
    ids, mask = captions.token_ids(captions.load_tokenizer(folder), ["low"])
    assert ids.tolist() == [[START, *LOW, END, 0, 0, 0, 0]]
    assert mask.sum() == 3


def test_roberta_tables_are_read_as_roberta_means_them(roberta_folder):
    tokenizer = captions.load_tokenizer(roberta_folder)
    ids, mask = captions.token_ids(tokenizer, ["low lower", "Low", "lower"])
    assert ids.tolist() == [
        [0, 11, 12, 13, 2, 1, 1],
        [0, 14, 5, 6, 2, 1, 1],  # case matters
        [0, 11, 13, 2, 1, 1, 1],
    ]
    assert np.array_equal(mask, ids != 1)


def test_roberta_may_begin_with_a_space(roberta_folder):
    edit(roberta_folder / "tokenizer_config.json", add_prefix_space=True)
    ids, _ = captions.token_ids(captions.load_tokenizer(roberta_folder), ["low"])
    assert ids[0, :3].tolist() == [0, 12, 2]


def test_tokenizer_json_counts_before_the_tables(clip_folder, tmp_path):
    captions.save_tokenizer(tmp_path / "saved", captions.load_tokenizer(clip_folder))
    (tmp_path / "saved" / "vocab.json").write_text("{}")
    text = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    # Padding and length of that file are those of whoever wrote it last.
    text["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0}
    text["truncation"]["direction"] = "Right"
    (tmp_path / "saved" / "tokenizer.json").write_text(json.dumps(text))
    ids, _ = captions.token_ids(captions.load_tokenizer(tmp_path / "saved"), ["low lower"])
    assert ids.tolist() == [[START, *LOW, *LOWER, END, END, END]]


def test_long_captions_keep_their_end_and_the_log_counts_them(clip_folder, caplog):
    tokenizer = captions.load_tokenizer(clip_folder, max_length=5)
    with caplog.at_level(logging.WARNING, logger="absl"):
        ids, mask = captions.token_ids(tokenizer, ["low low low", "low low low low", "low"])
    assert ids[:2].tolist() == [[START, *LOW * 3, END]] * 2
    assert mask[:2].all()
    assert "1 of 3 captions were cut to 5 tokens" in caplog.text


# What cannot be used.


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


BAD = {
    "no config": (
        lambda p: (p / "tokenizer_config.json").unlink(),
        r"tokenizer_config\.json: cannot be read as JSON",
    ),
    "no tables": (
        lambda p: [(p / name).unlink() for name in ("vocab.json", "merges.txt")],
        r"lacks vocab\.json and merges\.txt; complete the download",
    ),
    "no merges": (lambda p: (p / "merges.txt").unlink(), r"lacks merges\.txt; complete"),
    "unknown class": (
        lambda p: edit(p / "tokenizer_config.json", tokenizer_class="T5Tokenizer"),
        r"tokenizer_class is 'T5Tokenizer', .*; only \['CLIPTokenizer', 'RobertaTokenizer'\] are",
    ),
    "no class": (
        lambda p: edit(p / "tokenizer_config.json", tokenizer_class=None),
        r"tokenizer_class is None, and there is no tokenizer\.json",
    ),
    "no length": (
        lambda p: edit(p / "tokenizer_config.json", model_max_length=1e30),
        r"the length of captions is 1e\+30 .*; give max_length, above 2",
    ),
    "no room": (
        lambda p: edit(p / "tokenizer_config.json", model_max_length=2),
        r"the length of captions is 2 .*above 2",
    ),
    "no padding": (
        lambda p: edit(p / "tokenizer_config.json", pad_token=None),
        r"pad_token is None, no token of the vocabulary",
    ),
    "a token that is none": (
        lambda p: edit(p / "tokenizer_config.json", eos_token=5),
        r"eos_token is 5, no token; restore",
    ),
    "tables that do not fit": (
        lambda p: (p / "merges.txt").write_text("#version: 0.2\nx y\n"),
        r"merges\.txt: cannot be read as a tokenizer \(.*x.*out of vocabulary\); restore",
    ),
    "broken tokenizer.json": (
        lambda p: (p / "tokenizer.json").write_text("{}"),
        r"tokenizer\.json: cannot be read as a tokenizer",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_folder_is_refused(fault, clip_folder):
    break_it, message = BAD[fault]
    break_it(clip_folder)
    with pytest.raises(InputError, match=message) as error:
        captions.load_tokenizer(clip_folder)
    assert str(clip_folder) in str(error.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none: the tokenizer's folder is missing; complete"):
        captions.load_tokenizer(tmp_path / "none")


@pytest.mark.parametrize("given", ["low", []])
def test_captions_are_a_list(clip_folder, given):
    with pytest.raises(InputError, match="give a list of at least one caption"):
        captions.token_ids(captions.load_tokenizer(clip_folder), given)


# Trained on captions.


@pytest.mark.parametrize("kind", KINDS)
def test_training_does_not_depend_on_the_order_of_captions(kind):
    first = captions.make_tokenizer(CAPTIONS, 12, kind)
    second = captions.make_tokenizer(CAPTIONS[::-1], 12, kind)
    assert first.backend.to_str() == second.backend.to_str()
    assert first._replace(backend=None) == second._replace(backend=None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_gives_the_same_ids(kind, tmp_path):
    made = captions.make_tokenizer(CAPTIONS, 12, kind)
    captions.save_tokenizer(tmp_path / "saved", made)
    loaded = captions.load_tokenizer(tmp_path / "saved")
    assert loaded.max_length == 12
    texts = [*CAPTIONS, "", "unseen wörds ☃ 🎹", "<|endoftext|> <s> <mask>", "Slow " * 30]
    for a, b in zip(
        captions.token_ids(made, texts), captions.token_ids(loaded, texts), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="saved: exists already; give a new folder"):
        captions.save_tokenizer(tmp_path / "saved", made)
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("kind", ["clip", "roberta"])
def test_byte_pairs_spell_what_was_never_seen(kind):
    tokenizer = captions.make_tokenizer(CAPTIONS, 200, kind)
    ids, mask = captions.token_ids(tokenizer, ["Ünseen ☃ 🎹 qxz §"])
    inside = ids[0, mask[0]][1:-1]
    text = tokenizer.backend.decode(inside.tolist(), skip_special_tokens=False)
    assert text.replace("</w>", " ").strip().lower() == "ünseen ☃ 🎹 qxz §"


# RoBERTa's space is a byte of the word that follows it; a word that is unknown is one token.
@pytest.mark.parametrize(("kind", "pieces"), [("clip", 7), ("roberta", 8), ("words", 1)])
def test_what_recurs_becomes_one_token_and_the_rest_is_spelled(kind, pieces):
    tokenizer = captions.make_tokenizer(CAPTIONS, 30, kind)
    count = lambda text: captions.token_ids(tokenizer, [text])[1].sum()  # noqa: E731
    assert count("jazz piano") - count("jazz") == 1
    assert count("jazz zyzzyva") - count("jazz") == pieces


def test_special_tokens_have_the_ids_that_the_encoders_expect():
    clip = captions.make_tokenizer(CAPTIONS, 12, "clip").backend
    # The pooled state is found as the highest id of a caption.
    assert clip.token_to_id("<|endoftext|>") == clip.get_vocab_size() - 1
    for kind in ("roberta", "words"):
        backend = captions.make_tokenizer(CAPTIONS, 12, kind).backend
        first = [backend.id_to_token(i) for i in range(4)]
        assert first == ["<s>", "<pad>", "</s>", "<unk>"]


def test_the_vocabulary_stays_within_its_size():
    sizes = {"clip": 512 + 2, "roberta": 256 + 5, "words": 5}
    for kind, least in sizes.items():
        backend = captions.make_tokenizer(CAPTIONS, 12, kind, size=7).backend
        assert backend.get_vocab_size() == least + 7


def test_unknown_kinds_and_lengths_without_room_are_refused():
    with pytest.raises(InputError, match=r"is 'char'; choose one of \['clip', 'roberta', 'words'"):
        captions.make_tokenizer(CAPTIONS, 12, "char")
    with pytest.raises(InputError, match="max_length is 2, of which 2 are special tokens"):
        captions.make_tokenizer(CAPTIONS, 2, "clip")


# Conditions.


def component(name, **config):
    case = cases.SMALL[name]
    family = FAMILIES[case.class_name]
    settings = family.read_config(case.config | config, name)
    record = Record(case.class_name, name, "raw", 0, "", ())
    return Component(family.build(settings), initialise(family, settings, 0), {}, {}, record)


@pytest.fixture(scope="module")
def clip():
    return component("clip_text", vocab_size=600), captions.make_tokenizer(CAPTIONS, 11, "clip")


@pytest.fixture(scope="module")
def clap():
    return component("clap_text", vocab_size=400), captions.make_tokenizer(CAPTIONS, 13, "roberta")


def test_clip_conditions_are_the_states_of_padded_captions(clip):
    encoder, tokenizer = clip
    made = captions.conditions(encoder, tokenizer, CAPTIONS[:3])
    ids = jnp.asarray(captions.token_ids(tokenizer, CAPTIONS[:3])[0])
    states = encoder.module.apply({"params": encoder.params}, ids).last_hidden_state
    assert made.embedding is None
    assert made.text_mask is None
    assert made.text.shape == (3, 11, 24)
    assert isinstance(made.text, np.ndarray)
    assert made.text.dtype == np.float32
    np.testing.assert_allclose(made.text, states, rtol=0, atol=1e-5)  # float32, two programs


def test_clap_conditions_are_unit_embeddings(clap):
    encoder, tokenizer = clap
    made = captions.conditions(encoder, tokenizer, CAPTIONS[:3])
    tokens = map(jnp.asarray, captions.token_ids(tokenizer, CAPTIONS[:3]))
    embedding = encoder.module.apply({"params": encoder.params}, *tokens)
    assert made.text is None
    assert made.text_mask is None
    assert isinstance(made.embedding, np.ndarray)
    assert made.embedding.dtype == np.float32
    np.testing.assert_allclose(made.embedding, embedding, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(made.embedding, axis=-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", ["clip", "clap"])
def test_a_condition_depends_on_its_caption_alone(name, request):
    encoder, tokenizer = request.getfixturevalue(name)
    texts = [f"{a} {b}" for a in CAPTIONS[:5] for b in ("", "slow", "hard rock", "a", "128")]
    value = lambda texts: np.concatenate(  # noqa: E731
        [x for x in captions.conditions(encoder, tokenizer, texts) if x is not None]
    )
    whole = value(texts)
    assert len(np.unique(whole, axis=0)) > 15
    for count in (1, 16, 17):
        np.testing.assert_array_equal(value(texts[:count]), whole[:count])
    np.testing.assert_array_equal(value(texts[::-1]), whole[::-1])


def test_one_program_serves_any_number_of_captions(clap):
    encoder, tokenizer = clap
    captions.conditions(encoder, tokenizer, CAPTIONS[:1])
    compiled = captions._encode._cache_size()
    captions.conditions(encoder, tokenizer, CAPTIONS * 3)
    assert captions._encode._cache_size() == compiled


def test_a_tokenizer_that_does_not_fit_is_refused(clip, clap):
    long = captions.make_tokenizer(CAPTIONS, 12, "clip")
    with pytest.raises(
        InputError, match="pads captions to 12 tokens, and the CLIPTextModel has po"
    ):
        captions.conditions(clip[0], long, CAPTIONS)
    with pytest.raises(InputError, match=r"padding token '<\|endoftext\|>' is \d+, and the ClapT"):
        captions.conditions(clap[0], clip[1], CAPTIONS)
    with pytest.raises(
        InputError, match=r"token '.*' is \d+, and the text encoder knows 60 tokens"
    ):
        captions.conditions(component("clip_text"), clip[1], CAPTIONS)
    with pytest.raises(InputError, match="captions cannot be encoded by a SpeechT5HifiGan"):
        captions.conditions(component("hifigan"), clip[1], CAPTIONS)
