"""Tokens and conditions are those of transformers' tokenizers and models, from the same folders."""

import json

import numpy as np
import pytest

from tda_jax.models import captions, export
from tda_jax.models.pretrained import load_component
from tests.models import cases, checkpoints, compare, golden
from tests.models.test_captions import (
    CAPTIONS,
    CLIP_MERGES,
    CLIP_TOKENS,
    KINDS,
    ROBERTA_MERGES,
    ROBERTA_TOKENS,
    SD_CONFIG,
    write,
)

pytestmark = pytest.mark.parity

HARD = [
    "",
    "  A  JAZZ\tPiano\n",
    "unseen wörds ☃ 🎹🎶 don't we'll I'M",
    "<|endoftext|> jazz <|startoftext|>",
    "<s> <mask> jazz </s> <pad><unk>",
    "slow " * 50,
    "Ünïcode e\u0301 İstanbul ß ﬁ",
    "123456 !!! ... 12.5kHz",
    "a_b-c d\u200b\u00a0x\r\ny",
    "日本語のジャズ",
]
CLASSES = {
    "clip": ("CLIPTokenizerFast", "CLIPTokenizer", "AutoTokenizer"),
    "roberta": ("RobertaTokenizerFast", "RobertaTokenizer", "AutoTokenizer"),
    "words": ("PreTrainedTokenizerFast", "AutoTokenizer"),
}


def theirs(cls, folder, texts):
    """Tokens as the pipelines of diffusers ask for them."""
    import transformers

    tokenizer = getattr(transformers, cls).from_pretrained(folder)
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return tokenizer(texts, max_length=tokenizer.model_max_length, **options)


def assert_same_tokens(folder, cls, texts):
    ids, mask = captions.token_ids(captions.load_tokenizer(folder), texts)
    out = theirs(cls, folder, texts)
    np.testing.assert_array_equal(ids, out.input_ids.numpy())
    np.testing.assert_array_equal(mask, out.attention_mask.numpy())


@pytest.mark.parametrize(("kind", "cls"), [(k, c) for k in KINDS for c in CLASSES[k]])
def test_trained_tokenizers_give_transformers_tokens(kind, cls, tmp_path):
    captions.save_tokenizer(tmp_path / "t", captions.make_tokenizer(CAPTIONS, 20, kind))
    assert_same_tokens(tmp_path / "t", cls, CAPTIONS + HARD)
    if kind != "words":  # of which transformers reads no tables
        (tmp_path / "t" / "tokenizer.json").unlink()
        assert_same_tokens(tmp_path / "t", cls, CAPTIONS + HARD)


@pytest.mark.parametrize("special_map", [None, {"pad_token": "!"}])
def test_folders_of_stable_diffusion_give_transformers_tokens(special_map, tmp_path):
    folder = write(tmp_path / "t", CLIP_TOKENS, CLIP_MERGES, SD_CONFIG, special_map)
    texts = ["low  LOWER", "", "low!", "<|endoftext|>low", "lower lower lower lower", "nöne"]
    assert_same_tokens(folder, "CLIPTokenizer", texts)


@pytest.mark.parametrize("space", [False, True])
def test_folders_of_audioldm_give_transformers_tokens(space, tmp_path):
    mask = {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False}
    config = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 9}
    config |= {"add_prefix_space": space}
    special_map = {"mask_token": mask | {"single_word": False}}
    folder = write(tmp_path / "t", ROBERTA_TOKENS, ROBERTA_MERGES, config, special_map)
    texts = ["low lower", "Low", "low <mask> low<mask>", "", " low", "low low low low low low low"]
    assert_same_tokens(folder, "RobertaTokenizer", texts)
    captions.save_tokenizer(tmp_path / "saved", captions.load_tokenizer(folder))
    assert_same_tokens(tmp_path / "saved", "RobertaTokenizer", texts)


def encoder_folder(folder, name, **config):
    """A saved text encoder of a case, with a table for the tokenizers' larger vocabularies."""
    from tests.models import torch_side

    case = cases.SMALL[name]
    case = case._replace(config=case.config | config)
    state = checkpoints.random_state(torch_side.state_shapes(case), golden.SEED)
    checkpoints.write_component(folder / "torch", case, state)
    export.save_component(folder / "ours", load_component(folder / "torch"))
    return folder


def test_clip_conditions_are_what_stable_diffusion_feeds_its_unet(tmp_path):
    import torch
    import transformers

    folder = encoder_folder(tmp_path, "clip_text", vocab_size=600)
    captions.save_tokenizer(tmp_path / "t", captions.make_tokenizer(CAPTIONS, 11, "clip"))
    made = captions.conditions(
        load_component(folder / "torch"), captions.load_tokenizer(tmp_path / "t"), CAPTIONS + HARD
    )
    # Loaded from the folder that we wrote: transformers reads it as it reads its own.
    net = transformers.CLIPTextModel.from_pretrained(folder / "ours").eval()
    with torch.no_grad():
        expected = net(theirs("CLIPTokenizer", tmp_path / "t", CAPTIONS + HARD).input_ids)[0]
    print(compare.assert_parity({"text": made.text}, {"text": expected.numpy()}))


@pytest.mark.parametrize("kind", ["roberta", "words"])
def test_clap_conditions_are_what_audioldm_feeds_its_unet(kind, tmp_path):
    import torch
    import transformers

    folder = encoder_folder(tmp_path, "clap_text", vocab_size=400)
    captions.save_tokenizer(tmp_path / "t", captions.make_tokenizer(CAPTIONS, 13, kind))
    made = captions.conditions(
        load_component(folder / "torch"), captions.load_tokenizer(tmp_path / "t"), CAPTIONS + HARD
    )
    net = transformers.ClapTextModelWithProjection.from_pretrained(folder / "ours").eval()
    inputs = theirs(CLASSES[kind][0], tmp_path / "t", CAPTIONS + HARD)
    with torch.no_grad():
        out = net(inputs.input_ids, attention_mask=inputs.attention_mask).text_embeds
    expected = torch.nn.functional.normalize(out, dim=-1).numpy()
    print(compare.assert_parity({"embedding": made.embedding}, {"embedding": expected}))


def test_configs_of_transformers_own_defaults_are_read_alike(tmp_path):
    """A config that leaves everything out means the same model in both libraries."""
    import transformers

    from tda_jax.models.families import FAMILIES

    for name in ("CLIPTextModel", "ClapTextModelWithProjection"):
        config = getattr(transformers, name).config_class()
        config.save_pretrained(tmp_path / name)
        read = FAMILIES[name].read_config
        written = json.loads((tmp_path / name / "config.json").read_text())
        assert read(written, "config.json") == read({}, "config.json")
