"""The parts of a small pipeline fit each other, and are what diffusers' configs say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.errors import InputError
from tda_jax.models import captions
from tda_jax.models.denoiser import Condition, predict_fn
from tda_jax.training import parts

SIZES = parts.Sizes((8, 8, 16), 4, (8, 16), 16, 1, 8)
SAID = ["slow piano", "fast drums"]


@pytest.mark.parametrize("kind", ["text", "class"])
def test_a_caption_and_a_spectrogram_go_through_all_parts(kind):
    parts.refuse(kind, SIZES)
    vae, unet = parts.vae(SIZES, 0), parts.unet(kind, SIZES, 1)
    encoder, tokenizer = parts.text_encoder(kind, SIZES, SAID, 2)
    made = captions.conditions(encoder, tokenizer, [*SAID, ""])
    assert (made.text is not None) == (kind == "text")
    q = vae.module.apply({"params": vae.params}, jnp.zeros((1, 32, 16, 1)), method="encode")
    assert q.mean.shape == (1, 8, 4, 4)
    one = Condition(*(None if x is None else jnp.asarray(x[0]) for x in made))
    predict = predict_fn(unet.module)
    out = jax.eval_shape(predict, unet.params, q.mean[0], jnp.int32(3), one)
    assert out.shape == (8, 4, 4)
    assert "transformer" in unet.groups


def test_seeds_tell_parts_apart():
    first, again, other = (parts.vae(SIZES, seed).params for seed in (0, 0, 1))
    kernel = [np.asarray(p["decoder"]["conv_in"]["kernel"]) for p in (first, again, other)]
    np.testing.assert_array_equal(kernel[0], kernel[1])
    assert np.abs(kernel[0] - kernel[2]).max() > 0.01


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("both", {}, "kind = 'both'; choose one of"),
        ("text", {"unet": (8,)}, "two multiples of 8"),
        ("text", {"unet": (8, 12)}, "two multiples of 8"),
        ("text", {"vae": (8, 6)}, "give multiples of 4"),
        ("text", {"text": 10}, "give a multiple of 4, the heads"),
        ("text", {"latent": 0}, "latent = 0"),
    ],
)
def test_sizes_of_which_no_part_can_be_made_are_refused(kind, change, message):
    with pytest.raises(InputError, match=message):
        parts.refuse(kind, SIZES._replace(**change))
