"""LoRA weights merged into a UNet: exact small answers, diffusers as reference, bad files."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tda_jax import fingerprint
from tda_jax import params as tree
from tda_jax.errors import InputError
from tda_jax.models import pretrained
from tests.models import golden

MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KERNEL = MODULE.replace(".", "/") + "/kernel"
WIDTH, RANK = 16, 2


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return golden.checkpoint(tmp_path_factory.mktemp("lora") / "unet", "class_added")


@pytest.fixture(scope="module")
def base(unet):
    return tree.flatten(pretrained.load_component(unet).params)


def factors(seed=0, inputs=(WIDTH,), outputs=WIDTH):
    rng = np.random.default_rng(seed)
    down = rng.standard_normal((RANK, *inputs)).astype(np.float32)
    up = rng.standard_normal((outputs, RANK) + (1,) * (len(inputs) - 1)).astype(np.float32)
    return down, up


def merged(unet, tensors, folder, strength=1.0, metadata=None):
    file = folder / "pytorch_lora_weights.safetensors"
    save_file(tensors, file, metadata=metadata)
    component = pretrained.load_component(unet, loras={file: strength})
    ((name, sha, recorded),) = component.record.lora
    assert (name, recorded) == (file.name, strength)
    assert sha == fingerprint.of_files([file])
    return tree.flatten(component.params)


def changed(base, after):
    return {path for path in base if not np.array_equal(base[path], after[path])}


SPELLINGS = {
    "peft": (f"unet.{MODULE}.lora_A.weight", f"unet.{MODULE}.lora_B.weight"),
    "peft, adapter's name": (
        f"unet.{MODULE}.lora_A.default.weight",
        f"unet.{MODULE}.lora_B.default.weight",
    ),
    "no prefix": (f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"),
    "lora.down": (f"unet.{MODULE}.lora.down.weight", f"unet.{MODULE}.lora.up.weight"),
    "linear layer": (
        f"unet.{MODULE}.lora_linear_layer.down.weight",
        f"unet.{MODULE}.lora_linear_layer.up.weight",
    ),
    "attention processor": tuple(
        f"{MODULE.removesuffix('.to_q')}.processor.to_q_lora.{end}.weight" for end in ("down", "up")
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_product_is_added_to_the_weight_and_nothing_else_moves(unet, base, tmp_path, spelling):
    down, up = factors()
    after = merged(unet, dict(zip(SPELLINGS[spelling], (down, up), strict=True)), tmp_path, 0.5)
    assert changed(base, after) == {KERNEL}
    np.testing.assert_allclose(after[KERNEL], base[KERNEL] + 0.5 * (up @ down).T, rtol=1e-6)


def test_the_old_spelling_of_the_output_projection(unet, base, tmp_path):
    stem = MODULE.removesuffix("to_q") + "processor.to_out_lora"
    down, up = factors()
    after = merged(unet, {f"{stem}.down.weight": down, f"{stem}.up.weight": up}, tmp_path)
    assert changed(base, after) == {KERNEL.replace("to_q", "to_out/0")}


def test_a_convolution_is_merged(unet, base, tmp_path):
    stem = "unet.down_blocks.0.resnets.0.conv1"
    down, up = factors(inputs=(WIDTH, 3, 3))
    after = merged(unet, {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, tmp_path)
    path = "down_blocks/0/resnets/0/conv1/kernel"
    expected = base[path] + np.einsum("or,rihw->hwio", up[:, :, 0, 0], down)
    assert changed(base, after) == {path}
    np.testing.assert_allclose(after[path], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"unet.r": RANK, "unet.lora_alpha": 6}, 3.0),
        ({"unet.r": RANK, "unet.lora_alpha": 6, "unet.use_rslora": True}, 6 / RANK**0.5),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_q": 8}}, 4.0),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn2.to_q": 8}}, 3.0),
        ({"unet.r": RANK}, 4.0),
    ],
)
def test_the_adapters_config_scales(unet, base, tmp_path, config, scale):
    down, up = factors()
    tensors = dict(zip(SPELLINGS["peft"], (down, up), strict=True))
    after = merged(unet, tensors, tmp_path, 1.0, {"lora_adapter_metadata": json.dumps(config)})
    np.testing.assert_allclose(after[KERNEL], base[KERNEL] + scale * (up @ down).T, rtol=1e-5)


def test_strength_and_file_are_part_of_the_fingerprint(unet, tmp_path):
    keys = set()
    for seed, strength in ((0, 1.0), (0, 0.5), (1, 1.0)):
        file = tmp_path / str(seed) / "pytorch_lora_weights.safetensors"
        file.parent.mkdir(exist_ok=True)
        save_file(dict(zip(SPELLINGS["peft"], factors(seed), strict=True)), file)
        keys.add(pretrained.load_component(unet, loras={file: strength}).record.fingerprint)
    keys.add(pretrained.load_component(unet).record.fingerprint)
    assert len(keys) == 4


DOWN, UP = factors()
A, B = SPELLINGS["peft"]
BAD = {
    "one factor": ({A: DOWN}, {}, rf"{MODULE} has no up factor"),
    "ranks": ({A: DOWN, B: UP[:, :1]}, {}, "whose ranks do not fit"),
    "another width": ({A: DOWN[:, :5], B: UP}, {}, r"1 of its 1 changes do not fit.*\(16, 5\)"),
    "another model": (
        {"unet.layer.lora_A.weight": DOWN, "unet.layer.lora_B.weight": UP},
        {},
        r"layer \(\(16, 16\), model: None\)",
    ),
    "text encoder": ({f"text_encoder.{A}": DOWN}, {}, "changes a text encoder"),
    "alpha tensors": (
        {A: DOWN, B: UP, f"unet.{MODULE}.alpha": np.ones(1, np.float32)},
        {},
        r"to_q\.alpha' scales a change in a way that diffusers passes over",
    ),
    "rank 0": ({A: DOWN[:0], B: UP[:, :0]}, {}, "whose ranks do not fit"),
    "metadata that is a list": ({A: DOWN, B: UP}, {"lora_adapter_metadata": "[]"}, "not an object"),
    "alpha that is a word": (
        {A: DOWN, B: UP},
        {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": "x"})},
        "lora_alpha is 'x', not a finite number",
    ),
    "kohya": ({"lora_unet_down_blocks_0.lora_down.weight": DOWN}, {}, "is no LoRA weight in diff"),
    "not finite": ({A: DOWN * np.nan, B: UP}, {}, "are not finite"),
    "nothing": ({}, {}, "no module at all"),
    "dora": (
        {A: DOWN, B: UP},
        {"lora_adapter_metadata": json.dumps({"unet.use_dora": True})},
        "DoRA is not supported",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_files_are_refused_by_name(unet, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(pretrained, "_read", lambda *_: pytest.fail("weights were read"))
    tensors, metadata, message = BAD[fault]
    file = tmp_path / "lora.safetensors"
    save_file(tensors, file, metadata=metadata or None)
    with pytest.raises(InputError, match=message) as error:
        pretrained.load_component(unet, loras={file: 1.0})
    assert str(file) in str(error.value)


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused(unet, tmp_path, strength):
    save_file({A: DOWN, B: UP}, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match="its strength is"):
        pretrained.load_component(unet, loras={tmp_path / "lora.safetensors": strength})


def test_a_product_that_overflows_is_refused(unet, tmp_path):
    save_file({A: DOWN * 1e30, B: UP * 1e30}, tmp_path / "lora.safetensors")
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(InputError, match=r"to_q\.weight is not finite in float32"),
    ):
        pretrained.load_component(unet, loras={tmp_path / "lora.safetensors": 1.0})


def test_files_of_one_name_are_all_recorded_and_one_file_only_once(unet, base, tmp_path):
    files = {}
    for seed, strength in ((0, 1.0), (1, 0.5)):
        file = tmp_path / str(seed) / "pytorch_lora_weights.safetensors"
        file.parent.mkdir()
        save_file(dict(zip(SPELLINGS["peft"], factors(seed), strict=True)), file)
        files[file] = strength
    component = pretrained.load_component(unet, loras=files)
    assert [strength for _, _, strength in component.record.lora] == [1.0, 0.5]
    (down, up), (down2, up2) = factors(0), factors(1)
    expected = base[KERNEL] + (up @ down).T + 0.5 * (up2 @ down2).T
    after = tree.flatten(component.params)[KERNEL]
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="is given twice as a LoRA"):
        pretrained.load_component(unet, loras={file: 1.0, str(file): 1.0})


def test_the_folders_name_does_not_matter(unet, base, tmp_path, monkeypatch):
    folder = shutil.copytree(unet, tmp_path / "my-model")
    after = merged(folder, dict(zip(SPELLINGS["peft"], factors(), strict=True)), tmp_path)
    assert changed(base, after) == {KERNEL}
    monkeypatch.chdir(folder)
    assert pretrained.load_component(".").record.folder == "my-model"


def test_a_file_that_is_no_safetensors_is_refused(unet, tmp_path):
    (tmp_path / "lora.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"lora\.safetensors: cannot be read as LoRA weights"):
        pretrained.load_component(unet, loras={tmp_path / "lora.safetensors": 1.0})


@pytest.mark.parity
@pytest.mark.parametrize("alpha", [4, 16])
def test_merging_equals_diffusers_fused_weights(unet, base, tmp_path, alpha):
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(0)
    theirs = UNet2DConditionModel.from_pretrained(unet)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "ff.net.0.proj"]
    theirs.add_adapter(LoraConfig(r=4, lora_alpha=alpha, target_modules=targets))
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    lora_config = {"r": 4, "lora_alpha": alpha}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(theirs),
        unet_lora_adapter_metadata=lora_config,
    )
    theirs.fuse_lora(lora_scale=0.7)
    theirs.unload_lora()
    theirs.save_pretrained(tmp_path / "fused")
    expected = tree.flatten(pretrained.load_component(tmp_path / "fused").params)
    ours = pretrained.load_component(
        unet, loras={tmp_path / "pytorch_lora_weights.safetensors": 0.7}
    )
    ours = tree.flatten(ours.params)
    assert len(changed(base, ours)) > 20
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, expected
    )
