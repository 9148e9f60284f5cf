"""Noisy inputs, training targets, and the ways back from a prediction. One example at a time.

x_t = alpha * x_0 + sigma * noise; v = alpha * noise - sigma * x_0 (Salimans & Ho 2022,
"Progressive Distillation for Fast Sampling of Diffusion Models", arXiv 2202.00512, appendix D).
Since alpha^2 + sigma^2 = 1, x_0 = alpha * x_t - sigma * v and noise = sigma * x_t + alpha * v.

Every function takes arrays of one shape and one timestep; the batch form is `jax.vmap`. Arithmetic
is in float32 at least, and results have the type of the first array. A timestep outside the
schedule gives nan.
"""

from jaxtyping import Array, Float

from tda_jax.diffusion.schedules import NoiseSchedule, Time, alpha_sigma
from tda_jax.precision import in_working_dtype


def add_noise(
    schedule: NoiseSchedule,
    x0: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    t: Time,
) -> Float[Array, "*shape"]:
    """Mixes a clean example with noise: x_t = alpha(t) * x_0 + sigma(t) * noise.

    Args:
        schedule: the noise process.
        x0: the clean latent, in the model's scaling.
        noise: standard normal.
        t: timestep, 0 .. T-1.

    Returns:
        x_t, of the shape and type of x0 (Ho et al. 2020, arXiv 2006.11239, eq. 4).
    """
    clean, eps = in_working_dtype(x0, noise)
    alpha, sigma = alpha_sigma(schedule, t, clean.dtype)
    return (alpha * clean + sigma * eps).astype(x0.dtype)


def target(
    schedule: NoiseSchedule,
    x0: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    t: Time,
) -> Float[Array, "*shape"]:
    """What the network should predict at x_t = add_noise(schedule, x0, noise, t).

    Args:
        schedule: the noise process; its prediction type decides.
        x0: the clean latent, in the model's scaling.
        noise: the noise in x_t.
        t: timestep, 0 .. T-1.

    Returns:
        The noise ("epsilon"), or v = alpha(t) * noise - sigma(t) * x_0 ("v_prediction"), of the
        shape and type of x0.
    """
    clean, eps = in_working_dtype(x0, noise)
    alpha, sigma = alpha_sigma(schedule, t, clean.dtype)
    if schedule.prediction_type == "v_prediction":
        eps = alpha * eps - sigma * clean
    return eps.astype(x0.dtype)


def x0_from_prediction(
    schedule: NoiseSchedule,
    x_t: Float[Array, "*shape"],
    prediction: Float[Array, "*shape"],
    t: Time,
) -> Float[Array, "*shape"]:
    """The clean latent that a prediction at x_t stands for.

    Args:
        schedule: the noise process; its prediction type says what `prediction` is.
        x_t: the noisy latent.
        prediction: the network's output at (x_t, t).
        t: timestep, 0 .. T-1.

    Returns:
        x_0, of the shape and type of x_t. From epsilon it is (x_t - sigma * eps) / alpha, which
        multiplies rounding errors by 1/alpha(T-1): 84 for AudioLDM, 20,000 for cosine betas.
    """
    x, out = in_working_dtype(x_t, prediction)
    alpha, sigma = alpha_sigma(schedule, t, x.dtype)
    return split_prediction(schedule.prediction_type, alpha, sigma, x, out)[0].astype(x_t.dtype)


def eps_from_prediction(
    schedule: NoiseSchedule,
    x_t: Float[Array, "*shape"],
    prediction: Float[Array, "*shape"],
    t: Time,
) -> Float[Array, "*shape"]:
    """The noise that a prediction at x_t stands for.

    Args:
        schedule: the noise process; its prediction type says what `prediction` is.
        x_t: the noisy latent.
        prediction: the network's output at (x_t, t).
        t: timestep, 0 .. T-1.

    Returns:
        The noise, of the shape and type of x_t.
    """
    x, out = in_working_dtype(x_t, prediction)
    alpha, sigma = alpha_sigma(schedule, t, x.dtype)
    return split_prediction(schedule.prediction_type, alpha, sigma, x, out)[1].astype(x_t.dtype)


def split_prediction(
    prediction_type: str,
    alpha: Float[Array, ""],
    sigma: Float[Array, ""],
    x_t: Float[Array, "*shape"],
    prediction: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The (x_0, noise) that a prediction stands for, with alpha and sigma given. All of one type.

    Args:
        prediction_type: "epsilon" or "v_prediction".
        alpha: share of signal in x_t.
        sigma: share of noise in x_t.
        x_t: the noisy latent.
        prediction: the network's output.

    Returns:
        The clean latent and the noise.
    """
    if prediction_type == "v_prediction":
        return alpha * x_t - sigma * prediction, sigma * x_t + alpha * prediction
    return (x_t - sigma * prediction) / alpha, prediction
