"""What a UNet does not take is refused, and what looks wrong is said."""

import numpy as np
import pytest

from tda_jax import examples
from tda_jax.corpus import fitting
from tda_jax.errors import InputError
from tda_jax.models.denoiser import Condition
from tda_jax.models.unet_config import unet_config

TEXT = unet_config({"in_channels": 4, "out_channels": 4, "cross_attention_dim": 16}, "test")
WIDTHS = [320, 640, 1280, 1280]
CLAP = unet_config(
    {
        "cross_attention_dim": WIDTHS,
        "block_out_channels": WIDTHS,
        "class_embed_type": "simple_projection",
        "projection_class_embeddings_input_dim": 5,
    },
    "test",
)


def corpus(shape=(8, 6, 4), n=6, seed=0, members=None, masks=None, scale=1.0, **condition):
    rng = np.random.default_rng(seed)
    latents = (scale * rng.standard_normal((n, *shape))).astype(np.float32)
    parts = {name: np.zeros((n, *axes), np.float32) for name, axes in condition.items()}
    ids = [f"track {i}" for i in range(n)]
    return examples.corpus_of(ids, latents, Condition(**parts), masks, members)


def test_what_fits_passes():
    fitting.refuse_unfit(corpus(text=(3, 16)), TEXT, "tracks", "HWC")
    fitting.refuse_unfit(corpus(embedding=(5,)), CLAP, "tracks", "HWC")
    fitting.refuse_unfit(corpus((1, 1, 4), text=(3, 16)), TEXT, "tracks", "HWC")


SHAPES = pytest.mark.parametrize(
    ("shape", "layout", "words"),
    [
        ((4, 8, 6), "HWC", "have 6 channels, .* takes 4: channels first\\? use .*layout=CHW"),
        ((6, 4, 8), "CHW", "have 8 channels, .* takes 4: channels last\\? use .*layout=HWC"),
        ((8, 6, 5), "HWC", "have 5 channels, .* takes 4; give latents of its own VAE"),
        ((8, 4), "HWC", r"have the shape \(8, 4\); this UNet takes \(frames, bins, 4\)"),
    ],
)


@SHAPES
def test_latents_of_another_shape(shape, layout, words):
    with pytest.raises(InputError, match=f"^tracks: latents .*{words}"):
        fitting.refuse_unfit(corpus(shape, text=(3, 16)), TEXT, "tracks", layout)


@SHAPES
def test_stored_latents_of_another_shape(tmp_path, shape, layout, words):
    """The shape as it would be read; on disk it may lie otherwise."""
    stored = np.zeros(shape if layout == "HWC" else (*shape[-1:], *shape[:-1]))
    np.savez(tmp_path / "latent.npz", a=stored, b=stored)
    with pytest.raises(InputError, match=f"^tracks: latents .*{words}"):
        fitting.refuse_stored(tmp_path, TEXT, "tracks", layout)


def test_stored_latents_that_fit_pass(tmp_path):
    fitting.refuse_stored(tmp_path, TEXT, "tracks", "HWC")  # no latents: for others to refuse
    np.savez(tmp_path / "latent.npz", a=np.zeros((4, 8, 6)))
    fitting.refuse_stored(tmp_path, TEXT, "tracks", "CHW")


@pytest.mark.parametrize(
    ("condition", "config", "words"),
    [
        ({}, TEXT, "have no text, .* an array of width 16"),
        ({"text": (3, 15)}, TEXT, "text of width 15, where this UNet takes 16"),
        ({"text": (3, 16), "embedding": (5,)}, TEXT, "have embedding, which .* does not take"),
        ({}, CLAP, "have no embedding, .* an array of width 5"),
        ({"embedding": (5,), "text": (3, 16)}, CLAP, "have text, which .* does not take"),
    ],
)
def test_conditions_that_the_model_does_not_take(condition, config, words):
    with pytest.raises(InputError, match=f"^queries: {words}"):
        fitting.refuse_unfit(corpus(**condition), config, "queries", "HWC")


@pytest.mark.parametrize(("scale", "odd"), [(0.18, True), (0.4, False), (2.5, False), (5.5, True)])
def test_the_scale_of_latents(scale, odd):
    said = fitting.scale_warnings(corpus(n=20, scale=scale), "tracks")
    assert bool(said) == odd
    assert all("scaling_factor" in line for line in said)


def test_padding_does_not_count_for_the_scale():
    made = corpus(n=20)
    made.examples.latent[:, 4:] = 100.0
    masks = np.tile((np.arange(8) < 4).astype(np.float32), (20, 1))
    padded = made._replace(examples=made.examples._replace(mask=masks))
    assert fitting.scale_warnings(made, "tracks")
    assert not fitting.scale_warnings(padded, "tracks")


def test_decoys_that_are_missing_few_or_different():
    (missing,) = fitting.decoy_warnings(corpus())
    assert "no decoys" in missing
    many = corpus(n=400, members=np.arange(400) < 200)
    assert fitting.decoy_warnings(many) == []
    (few,) = fitting.decoy_warnings(corpus(n=400, members=np.arange(400) < 360))
    assert "40 decoys are few for 360 members: no fewer than 176 " in few  # 360 / (0.05 · 41)
    masks = np.ones((400, 8), np.float32)
    masks[200:, 5:] = 0  # every decoy is short
    masks[:10, 7] = 0
    (differ,) = fitting.decoy_warnings(corpus(n=400, members=np.arange(400) < 200, masks=masks))
    assert "do not match members in valid_frames" in differ
