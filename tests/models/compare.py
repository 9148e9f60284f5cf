"""The bounds of parity: float32 against float32, where torch itself is as far from float64."""

import numpy as np

MAX_ABS, RELATIVE_RMS = 2e-5, 1e-5
WAVEFORM_RELATIVE_RMS = 2e-4  # HiFi-GAN multiplies rounding through some 60 convolutions
LOSS_RTOL = 1e-5
GRADIENT_RELATIVE_L2 = 1e-4  # over all parameters: single true gradients can be zero


def relative(differences, references):
    norm = lambda arrays: np.sqrt(sum(np.sum(np.float64(a) ** 2) for a in arrays))  # noqa: E731
    return norm(differences) / norm(references)


def probe(size):
    """A vector that no two swapped entries leave unchanged.

    The scalar whose gradient is compared cannot be the square of an output of unit norm.
    """
    return np.cos(2.399963 * np.arange(size)).astype(np.float32)


def sketched(out):
    """The same outputs with every gradient as (norm, inner product with a fixed direction).

    Small enough to keep, and an entry out of place still changes the inner product.
    """
    kept = {key: value for key, value in out.items() if not key.startswith("gradient:")}
    for key in out.keys() - kept.keys():
        flat = np.float64(out[key]).ravel()
        direction = np.cos(2.399963 * np.arange(flat.size))
        kept[key] = np.array([np.linalg.norm(flat), flat @ direction])
    return kept


def figures(ours, theirs):
    """The difference by name: {"prediction": (max abs / max(1, max abs), relative rms), ...}."""
    assert ours.keys() == theirs.keys()
    found = {}
    for key in theirs:
        assert ours[key].shape == theirs[key].shape, key
        if not key.startswith("gradient:"):
            difference = np.abs(np.float64(ours[key]) - theirs[key])
            scale = max(1.0, np.abs(theirs[key]).max())  # ten steps grow a random model's samples
            found[key] = (difference.max() / scale, relative([difference], [theirs[key]]))
    gradients = [key for key in theirs if key.startswith("gradient:")]
    if gradients:
        differences = [np.float64(ours[k]) - theirs[k] for k in gradients]
        found["gradients"] = (None, relative(differences, [theirs[k] for k in gradients]))
    return found


def assert_parity(ours, theirs):
    """Asserts every bound and returns the figures."""
    found = figures(ours, theirs)
    for key, (largest, rms) in found.items():
        if key == "gradients":
            assert rms <= GRADIENT_RELATIVE_L2, found
        elif key == "losses":
            np.testing.assert_allclose(ours[key], theirs[key], rtol=LOSS_RTOL)
        else:
            bound = WAVEFORM_RELATIVE_RMS if key == "waveform" else RELATIVE_RMS
            assert largest <= MAX_ABS, (key, found)
            assert rms <= bound, (key, found)
    return found
