"""The loader on whole folders: what it returns, what it refuses, and the way back."""

import json
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tda_jax import params as tree
from tda_jax.errors import InputError
from tda_jax.models import converted, export, pretrained
from tests.models import cases, golden

NOISE = {"_class_name": "DDIMScheduler"} | cases.AUDIOLDM_NOISE
INDEX = {
    "_class_name": "AudioLDMPipeline",
    "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "ClapTextModelWithProjection"],
    "tokenizer": ["transformers", "RobertaTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "vocoder": ["transformers", "SpeechT5HifiGan"],
    "safety_checker": [None, None],
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="session")
def shared_pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "audioldm"
    folder.mkdir()
    parts = {"unet": "class_added", "vae": "vae_mel", "vocoder": "hifigan"}
    for part, case in (parts | {"text_encoder": "clap_text"}).items():
        golden.checkpoint(folder / part, case)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(NOISE))
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder


@pytest.fixture
def pipeline(shared_pipeline, tmp_path):
    """A pipeline folder to break."""
    return shutil.copytree(shared_pipeline, tmp_path / "pipeline")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def assert_same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), a, b)


def test_a_pipeline_has_its_components_and_names_the_others(pipeline):
    loaded = pretrained.load_pipeline(pipeline)
    assert set(loaded.components) == {"text_encoder", "unet", "vae", "vocoder"}
    assert loaded.unsupported == {"tokenizer": "RobertaTokenizer"}
    assert loaded.schedule.alpha[0] == pytest.approx((1 - 0.0015) ** 0.5)
    unet = loaded.components["unet"]
    assert unet.record.class_name == "UNet2DConditionModel"
    assert unet.record.weights == "unstated"
    assert unet.record.tensors == len(golden.manifests()["class_added"])
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(unet.params))


def test_only_the_parts_asked_for_are_read(pipeline):
    shutil.rmtree(pipeline / "vocoder")
    assert set(pretrained.load_pipeline(pipeline, ("unet",)).components) == {"unet"}


def test_paths_are_diffusers_names_joined_by_slashes(pipeline):
    unet = pretrained.load_component(pipeline / "unet")
    names = {
        path.replace("/kernel", "/weight").replace("/scale", "/weight").replace("/", ".")
        for path in tree.flatten(unet.params)
    }
    assert names == set(golden.manifests()["class_added"])


# Fingerprints and records.


def test_the_fingerprint_follows_weights_and_config(pipeline):
    def key():
        return pretrained.load_component(pipeline / "unet").record.fingerprint

    first = key()
    assert key() == first
    rewrite(pipeline / "unet" / WEIGHTS, lambda t: t["conv_in.bias"].__iadd__(1))
    second = key()
    edit(pipeline / "unet" / "config.json", sample_size=7)
    assert len({first, second, key()}) == 3


def test_averaged_weights_are_taken_and_recorded(pipeline):
    shutil.copytree(pipeline / "unet", pipeline / "unet_ema")
    edit(pipeline / "unet_ema" / "config.json", decay=0.999, optimization_step=10)
    rewrite(pipeline / "unet_ema" / WEIGHTS, lambda t: t["conv_in.bias"].fill(7))
    averaged = pretrained.load_pipeline(pipeline).components["unet"]
    assert averaged.record.weights == "ema"
    assert np.all(averaged.params["conv_in"]["bias"] == 7)
    raw = pretrained.load_pipeline(pipeline, ema=False).components["unet"]
    assert raw.record.weights == "raw"
    assert not np.any(raw.params["conv_in"]["bias"] == 7)


def test_ema_keys_in_a_config_are_recorded_as_what_they_are(pipeline):
    # They stay in the config when averaged weights are loaded and trained on.
    edit(pipeline / "unet" / "config.json", decay=0.999, optimization_step=10)
    for ema in (True, False):
        record = pretrained.load_component(pipeline / "unet", ema=ema).record
        assert record.weights == "ema by its config"


def test_a_folder_named_ema_has_no_raw_weights(pipeline):
    (pipeline / "unet").rename(pipeline / "unet_ema")
    assert pretrained.load_component(pipeline / "unet_ema").record.weights == "ema"
    with pytest.raises(InputError, match=r"unet_ema: the plain file holds averaged \(EMA\) weig"):
        pretrained.load_component(pipeline / "unet_ema", ema=False)


VARIANTS = {  # (ema, variant) → (which file is read, what is recorded)
    (True, None): ("ema", "ema"),
    (False, None): ("raw", "raw"),
    (True, "non_ema"): ("raw", "raw"),
    (False, "non_ema"): ("raw", "raw"),
    (True, "fp16"): ("half", "ema"),
}


@pytest.mark.parametrize(("ema", "variant"), VARIANTS)
def test_beside_a_non_ema_variant_the_plain_file_is_averaged(pipeline, ema, variant):
    unet = pipeline / "unet"
    values = {"ema": 5, "raw": 6, "half": 7}
    names = {"ema": "", "raw": ".non_ema", "half": ".fp16"}
    for kind, infix in names.items():
        file = unet / f"diffusion_pytorch_model{infix}.safetensors"
        if kind != "ema":
            shutil.copy(unet / WEIGHTS, file)
        rewrite(file, lambda t, kind=kind: t["conv_in.bias"].fill(values[kind]))
    component = pretrained.load_component(unet, ema=ema, variant=variant)
    read, recorded = VARIANTS[ema, variant]
    assert np.all(component.params["conv_in"]["bias"] == values[read])
    assert component.record.weights == recorded
    with pytest.raises(InputError, match="variant fp16 holds averaged"):
        pretrained.load_component(unet, ema=False, variant="fp16")


def test_half_precision_becomes_float32(pipeline):
    expected = pretrained.load_component(pipeline / "vae").params
    file = pipeline / "vae" / WEIGHTS
    tensors = {name: t.astype(np.float16) for name, t in load_file(file).items()}
    save_file(tensors, pipeline / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    half = pretrained.load_component(pipeline / "vae", variant="fp16").params
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(np.float32(np.float16(a)), b), expected, half
    )


def test_older_names_of_the_vaes_attention_are_read(pipeline):
    expected = pretrained.load_component(pipeline / "vae").params
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors):
        for name in [n for n in tensors if ".attentions." in n]:
            for new, was in old.items():
                if f".{new}." in name:
                    tensors[name.replace(f".{new}.", f".{was}.")] = tensors.pop(name)

    rewrite(pipeline / "vae" / WEIGHTS, rename)
    assert_same(expected, pretrained.load_component(pipeline / "vae").params)


@pytest.mark.parametrize(
    ("magnitude", "direction"),
    [
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ],
)
def test_weight_norm_is_merged(pipeline, magnitude, direction):
    folder = pipeline / "vocoder"
    expected = pretrained.load_component(folder).params

    def decompose(tensors):
        for name in [n for n in tensors if n.startswith("upsampler") and n.endswith(".weight")]:
            weight = tensors.pop(name)
            stem = name.removesuffix("weight")
            norm = np.sqrt(np.sum(np.square(weight), axis=(1, 2), keepdims=True))
            tensors[stem + magnitude], tensors[stem + direction] = norm, 3.0 * weight

    rewrite(folder / "model.safetensors", decompose)
    merged = pretrained.load_component(folder)
    assert merged.record.tensors == len(golden.manifests()["hifigan"]) + 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-7), expected, merged.params)


# The converted copy.


def test_a_converted_copy_gives_the_same_and_serves_the_second_start(
    pipeline, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    first = pretrained.load_pipeline(pipeline, cache=cache)
    monkeypatch.setattr(pretrained, "_read", None)  # the second start must not read torch weights
    second = pretrained.load_pipeline(pipeline, cache=cache)
    for name in first.components:
        assert_same(first.components[name].params, second.components[name].params)
        assert first.components[name].record == second.components[name].record


def test_a_converted_copy_never_serves_other_weights(pipeline, tmp_path):
    cache = tmp_path / "cache"
    pretrained.load_component(pipeline / "unet", cache=cache)
    rewrite(pipeline / "unet" / WEIGHTS, lambda t: t["conv_in.bias"].fill(7))
    changed = pretrained.load_component(pipeline / "unet", cache=cache)
    assert np.all(changed.params["conv_in"]["bias"] == 7)


def test_a_half_written_copy_is_not_taken_for_a_whole_one(pipeline, tmp_path):
    cache = tmp_path / "cache"
    expected = pretrained.load_component(pipeline / "unet").params
    killed = f"""
import os
from pathlib import Path
from tda_jax.models import converted, pretrained
Path.rename = lambda *_: os.kill(os.getpid(), 9)
pretrained.load_component({str(pipeline / "unet")!r}, cache={str(cache)!r})
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert list(cache.glob("*.part"))
    assert_same(expected, pretrained.load_component(pipeline / "unet", cache=cache).params)
    assert_same(expected, pretrained.load_component(pipeline / "unet", cache=cache).params)


def copies(cache):
    return [folder for folder in cache.iterdir() if folder.is_dir()]


DAMAGE = {
    "a flipped bit": lambda file: file.write_bytes(
        bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]
    ),
    "half a file": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "no file": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_copy_is_replaced_by_the_checkpoint(pipeline, tmp_path, damage):
    cache = tmp_path / "cache"
    expected = pretrained.load_component(pipeline / "unet", cache=cache).params
    (copy,) = copies(cache)
    data = max(copy.rglob("*"), key=lambda p: p.stat().st_size)
    DAMAGE[damage](data)
    assert_same(expected, pretrained.load_component(pipeline / "unet", cache=cache).params)
    assert copies(cache) == [copy]  # made anew
    assert converted.restore(cache, "another key", {}) is None


def test_a_copy_that_cannot_be_kept_does_not_spoil_the_load(pipeline, tmp_path, monkeypatch):
    expected = pretrained.load_component(pipeline / "unet").params

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(converted, "_largest", fail)
    cache = tmp_path / "cache"
    assert_same(expected, pretrained.load_component(pipeline / "unet", cache=cache).params)
    assert copies(cache) == []


def test_a_cache_that_is_a_file_is_refused(pipeline, monkeypatch):
    no_reading(monkeypatch)
    with pytest.raises(InputError, match=r"config\.json: is a file; give a folder for converted"):
        pretrained.load_component(pipeline / "unet", cache=pipeline / "unet" / "config.json")


def test_processes_that_fill_one_cache_at_once_all_succeed(pipeline, tmp_path):
    program = f"""
import sys
from tda_jax.models import converted, pretrained
keep = converted.keep
def meet(*arguments):  # both have found no copy before either keeps one
    print("ready", flush=True)
    sys.stdin.readline()
    keep(*arguments)
converted.keep = meet
pretrained.load_component({str(pipeline / "unet")!r}, cache={str(tmp_path / "cache")!r})
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", program], **pipes) for _ in range(2)]
    assert [p.stdout.readline() for p in both] == ["ready\n"] * 2
    for p in both:
        p.stdin.write("\n")
        p.stdin.flush()
    assert [p.wait() for p in both] == [0, 0]
    assert len(copies(tmp_path / "cache")) == 1


@pytest.mark.slow
def test_each_process_of_a_pod_may_fill_the_cache(pipeline, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"""
import sys
import jax
jax.distributed.initialize("127.0.0.1:{port}", num_processes=2, process_id=int(sys.argv[1]))
from tda_jax.models import pretrained
for _ in range(2):
    pretrained.load_component({str(pipeline / "unet")!r}, cache={str(tmp_path / "cache")!r})
"""
    both = [subprocess.Popen([sys.executable, "-c", program, str(i)]) for i in range(2)]
    assert [p.wait(timeout=120) for p in both] == [0, 0]


# The way back.


def test_saved_pipelines_load_again_unchanged(pipeline, tmp_path):
    first = pretrained.load_pipeline(pipeline)
    export.save_pipeline(tmp_path / "saved", first)
    second = pretrained.load_pipeline(tmp_path / "saved")
    for name in first.components:
        assert_same(first.components[name].params, second.components[name].params)
        assert first.components[name].config == second.components[name].config
    assert first.schedule.config == second.schedule.config
    assert json.loads((tmp_path / "saved" / "model_index.json").read_text()) == {
        key: value for key, value in INDEX.items() if key not in ("tokenizer", "safety_checker")
    }


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae", "vocoder"])
def test_saved_tensors_are_the_original_ones(pipeline, tmp_path, part):
    export.save_component(tmp_path / "saved", pretrained.load_component(pipeline / part))
    (saved,) = (tmp_path / "saved").glob("*.safetensors")
    original = load_file(next((pipeline / part).glob("*.safetensors")))
    assert_same(original, load_file(saved))


def test_nothing_is_overwritten(pipeline):
    loaded = pretrained.load_pipeline(pipeline, ("unet",))
    with pytest.raises(InputError, match="exists already"):
        export.save_pipeline(pipeline, loaded)


def test_a_failed_or_killed_run_leaves_nothing_in_the_way(pipeline, tmp_path, monkeypatch):
    unet = pretrained.load_component(pipeline / "unet")
    (tmp_path / "saved.part").mkdir()
    (tmp_path / "saved.part" / "junk").touch()

    def fail(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(export, "save_file", fail)
        with pytest.raises(OSError, match="disk full"):
            export.save_component(tmp_path / "saved", unet)
    export.save_component(tmp_path / "saved", unet)
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["config.json", WEIGHTS]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pipeline", "saved", "saved.part"]


def test_parameters_that_are_not_finite_are_not_saved(pipeline, tmp_path):
    unet = pretrained.load_component(pipeline / "unet")
    unet.params["conv_in"]["bias"] = unet.params["conv_in"]["bias"].at[0].set(np.nan)
    with pytest.raises(InputError, match="conv_in/bias is not finite"):
        export.save_component(tmp_path / "saved", unet)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parity
def test_saved_pipelines_load_in_diffusers(pipeline, tmp_path):
    import diffusers
    import transformers

    export.save_pipeline(tmp_path / "saved", pretrained.load_pipeline(pipeline))
    for part, cls in (
        ("unet", diffusers.UNet2DConditionModel),
        ("vae", diffusers.AutoencoderKL),
        ("vocoder", transformers.SpeechT5HifiGan),
        ("text_encoder", transformers.ClapTextModelWithProjection),
    ):
        ours = cls.from_pretrained(tmp_path / "saved" / part).state_dict()
        theirs = cls.from_pretrained(pipeline / part).state_dict()
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            np.testing.assert_array_equal(ours[name].numpy(), tensor.numpy())
    diffusers.DDIMScheduler.from_pretrained(tmp_path / "saved" / "scheduler")


# Bad input: each one error that names the file, the value and the remedy, before weights are read.


def no_reading(monkeypatch):
    monkeypatch.setattr(pretrained, "_read", lambda *_: pytest.fail("weights were read"))


BAD = {
    "missing component": (
        lambda p: shutil.rmtree(p / "vae"),
        r"vae: the component's folder is missing; complete the download",
    ),
    "missing index": (lambda p: (p / "model_index.json").unlink(), r"model_index\.json: cannot be"),
    "index is a list": (
        lambda p: (p / "model_index.json").write_text("[]"),
        r"model_index\.json: holds list, not an object",
    ),
    "missing config": (
        lambda p: (p / "unet" / "config.json").unlink(),
        r"unet/config\.json: cannot be read as JSON",
    ),
    "config is no JSON": (
        lambda p: (p / "unet" / "config.json").write_text("{"),
        r"unet/config\.json: cannot be read as JSON",
    ),
    "unsupported class": (
        lambda p: edit(p / "unet" / "config.json", _class_name="AudioLDM2UNet2DConditionModel"),
        r"class AudioLDM2UNet2DConditionModel is not supported yet; supported are \['Auto",
    ),
    "class of another component": (
        lambda p: shutil.copytree(p / "vae", p / "unet", dirs_exist_ok=True),
        r"is for class AutoencoderKL, but model_index\.json says UNet2DConditionModel",
    ),
    "wrong kind": (
        lambda p: edit(p / "unet" / "config.json", block_out_channels="16, 32"),
        r"block_out_channels is '16, 32', which is not a list of whole numbers above 0",
    ),
    "wrong kind, a boolean": (
        lambda p: edit(p / "unet" / "config.json", in_channels=True),
        r"in_channels is True, which is not a whole number above 0",
    ),
    "not ported": (
        lambda p: edit(p / "unet" / "config.json", resnet_time_scale_shift="scale_shift"),
        r"resnet_time_scale_shift is 'scale_shift', which is not supported; only 'default' is",
    ),
    "unknown key": (
        lambda p: edit(p / "unet" / "config.json", new_layer=3),
        r"new_layer is 3, and this key is unknown",
    ),
    "block that is not ported": (
        lambda p: edit(
            p / "unet" / "config.json", down_block_types=["DownBlock2D", "KDownBlock2D"]
        ),
        r"down_block_types is .*\['KDownBlock2D'\] is not ported",
    ),
    "blocks that do not fit": (
        lambda p: edit(p / "unet" / "config.json", block_out_channels=[16, 32, 48]),
        r"down_block_types is .* give one value for each of 3 blocks",
    ),
    "groups that do not divide": (
        lambda p: edit(p / "unet" / "config.json", norm_num_groups=5),
        r"norm_num_groups is 5; it must divide width 16",
    ),
    "heads that do not divide": (
        lambda p: edit(p / "unet" / "config.json", attention_head_dim=5),
        r"attention_head_dim is 5; it counts heads and must divide width 16",
    ),
    "scheduler's wrong kind": (
        lambda p: edit(p / "scheduler" / "scheduler_config.json", beta_start="0.1"),
        r"scheduler_config\.json: beta_start",
    ),
    "scheduler of another process": (
        lambda p: edit(
            p / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"]
        ),
        r"scheduler_config\.json: _class_name = 'FlowMatchEulerDiscreteScheduler' is not",
    ),
    "epsilon of zero": (
        lambda p: edit(p / "unet" / "config.json", norm_eps=0.0),
        r"norm_eps is 0\.0, which is not a finite number above 0",
    ),
    "even kernel": (
        lambda p: edit(p / "vocoder" / "config.json", resblock_kernel_sizes=[3, 4]),
        r"resblock_kernel_sizes is 4; an even one keeps no length",
    ),
    "an unknown key that is false": (
        lambda p: edit(p / "unet" / "config.json", new_bias=False),
        r"new_bias is False, and this key is unknown",
    ),
    "quantised weights": (
        lambda p: rewrite(
            p / "unet" / WEIGHTS,
            lambda t: t.update({"conv_in.bias": t["conv_in.bias"].astype(np.int8)}),
        ),
        r"conv_in\.bias is of type int8, no floating type",
    ),
    "truncated weights": (
        lambda p: (p / "unet" / WEIGHTS).write_bytes((p / "unet" / WEIGHTS).read_bytes()[:-9]),
        rf"unet/{WEIGHTS}: no sound safetensors file",
    ),
    "weights of another family": (
        lambda p: shutil.copy(p / "vae" / WEIGHTS, p / "unet" / WEIGHTS),
        r"unet: the weights do not fit the config beside them: \d+ missing \(.*\d+ unexpected",
    ),
    "weights of another size": (
        lambda p: edit(
            p / "unet" / "config.json", block_out_channels=[16, 48], cross_attention_dim=[16, 48]
        ),
        r"misshapen \(.* is \(.*\), not \(.*\)",
    ),
    "a tensor too few": (
        lambda p: rewrite(p / "unet" / WEIGHTS, lambda t: t.pop("conv_in.bias")),
        r"1 missing \(conv_in\.bias\)",
    ),
    "a tensor too many": (
        lambda p: rewrite(p / "unet" / WEIGHTS, lambda t: t.update(extra=np.ones(3, np.float32))),
        r"1 unexpected \(extra\)",
    ),
    "half a weight norm": (
        lambda p: rewrite(
            p / "vocoder" / "model.safetensors",
            lambda t: t.update({"conv_pre.weight_v": t.pop("conv_pre.weight")}),
        ),
        r"1 unexpected \(conv_pre\.weight_v for conv_pre\.weight\)",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_folder_is_refused_before_weights_are_read(fault, pipeline, monkeypatch):
    no_reading(monkeypatch)
    break_it, message = BAD[fault]
    break_it(pipeline)
    with pytest.raises(InputError, match=message) as error:
        pretrained.load_pipeline(pipeline)
    assert str(pipeline) in str(error.value)


def test_asking_for_what_is_not_there_is_refused(pipeline, monkeypatch):
    no_reading(monkeypatch)
    with pytest.raises(InputError, match="component tokenizer is a RobertaTokenizer, which is not"):
        pretrained.load_pipeline(pipeline, ("tokenizer",))
    with pytest.raises(InputError, match="has no component denoiser; it has"):
        pretrained.load_pipeline(pipeline, ("denoiser",))
    with pytest.raises(
        InputError, match="Ask for a variant that is present: none, the plain files"
    ):
        pretrained.load_component(pipeline / "unet", variant="fp16")


def test_a_pickle_that_would_run_code_is_refused_and_not_run(pipeline, tmp_path):
    import pickle
    import zipfile

    proof = tmp_path / "proof"

    class Harm:
        def __reduce__(self):
            return (exec, (f"open({str(proof)!r}, 'w')",))

    (pipeline / "unet" / WEIGHTS).unlink()
    with zipfile.ZipFile(pipeline / "unet" / "diffusion_pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"conv_in.weight": Harm()}, 2))
    with pytest.raises(InputError, match=r"diffusion_pytorch_model\.bin: .*exec"):
        pretrained.load_component(pipeline / "unet")
    assert not proof.exists()


def test_values_beyond_float32_are_refused(pipeline):
    def widen(tensors):
        tensors["conv_in.bias"] = np.full_like(tensors["conv_in.bias"], 1e300, dtype=np.float64)

    rewrite(pipeline / "unet" / WEIGHTS, widen)
    with (
        np.errstate(over="ignore"),
        pytest.raises(InputError, match=r"conv_in\.bias is not finite in float32"),
    ):
        pretrained.load_component(pipeline / "unet")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(pipeline, value):
    rewrite(pipeline / "unet" / WEIGHTS, lambda t: t["conv_in.bias"].__setitem__(0, value))
    with pytest.raises(InputError, match=r"conv_in\.bias is not finite"):
        pretrained.load_component(pipeline / "unet")
