"""Text encoders learn what captions sound like; VAEs learn spectrograms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.errors import InputError
from tda_jax.models.families import FAMILIES, initialise
from tda_jax.training import autoencoder, contrast, loop

RNG = np.random.default_rng(0)
CAPTIONS, EACH = 4, 6


def embed(params, ids, mask):
    return (params["table"][ids] * mask[:, :, None].astype(jnp.float32)).sum(1)


def pairs():
    """Tracks of four captions, whose sounds lie about four points."""
    caption = np.repeat(np.arange(CAPTIONS), EACH)
    ids = np.stack([caption, np.full_like(caption, CAPTIONS)], 1).astype(np.int32)
    centres = RNG.standard_normal((CAPTIONS, 10))
    sounds = centres[caption] + 0.3 * RNG.standard_normal((len(caption), 10))
    return contrast.Pairs(ids, ids < CAPTIONS, sounds.astype(np.float32), np.arange(len(ids)))


def start(width=8):
    table = np.random.default_rng(1).standard_normal((CAPTIONS + 1, width))
    return {"table": jnp.asarray(0.1 * table, jnp.float32)}


def test_captions_are_told_apart():
    given = pairs()
    found = contrast.fit(embed, start(), given, loop.Recipe(300, 12, 0.02, 0))
    # With every positive equally likely the loss is their mean entropy at least: log 6 at most.
    assert found.losses[:3].mean() > 2.3 > 1.4 > found.losses[-10:].mean()
    assert found.params["table"].shape == (CAPTIONS + 1, 8)
    np.testing.assert_array_equal(
        found.params["table"],
        contrast.fit(embed, start(), given, loop.Recipe(300, 12, 0.02, 0)).params["table"],
    )


def several_captions():
    """Pairs of which most are of a track with two of the captions."""
    track = np.concatenate([np.arange(12), np.arange(12)])  # rows 0 and 12 are of one, and so on
    track[3] = 99
    return pairs()._replace(track=10**12 * track - 5)


@pytest.mark.parametrize("made", [pairs, several_captions])
def test_the_loss_is_the_formula(made):
    """Positives are the pairs of a pair's caption or track; `fit` starts from this loss."""
    given, caption = made(), np.repeat(np.arange(CAPTIONS), EACH)
    fitted = contrast.fit(embed, start(), given, loop.Recipe(1, len(caption), 0.1, 0)).losses[0]
    head = contrast._head(8, 10, 0)
    _, track = np.unique(given.track, return_inverse=True)
    loss = contrast._loss(embed)(
        {"encoder": start(), "compare": head}, (*given[:3], track, caption), jax.random.key(0)
    )
    h = {k: np.asarray(v, np.float64) for k, v in head.items()}
    text = np.asarray(start()["table"], np.float64)[caption] @ h["text"]
    sound = np.maximum(np.float64(given.sounds) @ h["sound_in"], 0) @ h["sound_out"]
    total = 0.0
    for x, y in ((text, sound), (sound, text)):
        for i in range(len(x)):
            cosine = [
                10.0 * x[i] @ y[j] / np.linalg.norm(x[i]) / np.linalg.norm(y[j])
                for j in range(len(y))
            ]
            log_sum = np.log(np.exp(cosine).sum())
            alike = [
                cosine[j] - log_sum
                for j in range(len(y))
                if caption[j] == caption[i] or given.track[j] == given.track[i]
            ]
            total -= np.mean(alike) / len(x) / 2
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert float(fitted) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("together", [True, False])
def test_captions_of_one_track_are_no_negatives_of_each_other(together):
    """By hand: two texts at a right angle, each with a sound along it; cosines times 2."""
    eye = jnp.eye(2, dtype=jnp.float32)
    head = {"text": eye, "sound_in": eye, "sound_out": eye, "log_scale": jnp.float32(np.log(2))}
    track = jnp.array([7, 7 if together else 8])
    rows = (jnp.array([[0], [1]]), jnp.ones((2, 1), bool), eye, track, jnp.array([0, 1]))
    params = {"encoder": {"table": eye}, "compare": head}
    got = contrast._loss(embed)(params, rows, jax.random.key(0))
    own = np.log1p(np.exp(-2.0))  # minus the log of the share of 2 among 2 and 0; of 0, 2 more
    assert float(got) == pytest.approx(own + 1 if together else own, rel=1e-5)


def test_features_of_padding_do_not_count():
    latents = RNG.standard_normal((3, 6, 2, 2)).astype(np.float32)
    other = latents.copy()
    other[:, 4:] = 99
    frames = np.array([4, 3, 4], np.int32)
    np.testing.assert_array_equal(
        contrast.sound_features(latents, frames), contrast.sound_features(other, frames)
    )
    found = contrast.sound_features(latents, frames)
    assert found.shape == (3, 8)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)


def test_one_track_alone_is_refused():
    alone = pairs()._replace(track=np.full(CAPTIONS * EACH, 3))
    with pytest.raises(InputError, match="there is one track only"):
        contrast.fit(embed, start(), alone, loop.Recipe(3, 2, 0.1, 0))


def test_one_caption_for_all_is_refused():
    given = pairs()
    alike = given._replace(ids=np.zeros_like(given.ids))
    with pytest.raises(InputError, match="every track has the same caption"):
        contrast.fit(embed, start(), alike, loop.Recipe(3, 2, 0.1, 0))


def small_vae():
    config = {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "latent_channels": 2,
        "norm_num_groups": 4,
        "mid_block_add_attention": False,
    }
    family = FAMILIES["AutoencoderKL"]
    read = family.read_config(config, "test")
    return family.build(read), initialise(family, read, 0)


def mels(n=6, frames=32):
    t, m = np.meshgrid(np.arange(frames), np.arange(8), indexing="ij")
    phase = RNG.uniform(0, 6, (n, 1, 1))
    return (-5 + 3 * np.sin(t / 4 + m / 3 + phase)).astype(np.float32)[..., None]


def test_a_vae_learns_to_reconstruct():
    module, params = small_vae()
    x = mels()
    start = autoencoder.fitted_start(params, x)
    objective = autoencoder.Objective(16, 1e-4)
    found = autoencoder.fit(module, start, x, objective, loop.Recipe(150, 4, 1e-2, 0))
    assert found.losses[-20:].mean() < 0.6 < 1.5 < found.losses[:3].mean()


def test_a_crop_that_does_not_fit_is_refused():
    module, params = small_vae()
    for crop in (15, 1, 34):
        objective = autoencoder.Objective(crop, 1e-4)
        with pytest.raises(InputError, match=f"crop = {crop} frames; give a multiple of 2 from 2"):
            autoencoder.fit(module, params, mels(), objective, loop.Recipe(1, 1, 0.1, 0))


def test_a_latent_element_is_scaled_to_one():
    means, stds = 3 * RNG.standard_normal((500, 40)) + 1, np.full((500, 40), 4.0)
    scale = autoencoder.latent_scale(means.astype(np.float32), stds.astype(np.float32))
    assert scale == pytest.approx(1 / 5, rel=0.01)
