"""The worker of `benchmarks.retraining`: JAX is imported once the number of devices is known."""

from collections.abc import Callable
from typing import Any

from benchmarks.worker import serve

UPDATES, BATCH = 40, 16


def _training(devices: int, per_device: int, loop: bool) -> Callable[[], Any]:
    """So many updates of so many models, as a call."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    import numpy as np

    from tda_jax import devices as spread
    from tda_jax.evaluation.small_unet import small_unet
    from tda_jax.evaluation.synthetic import synthetic_corpus
    from tda_jax.models.denoiser import predict_fn
    from tda_jax.training import many
    from tda_jax.training.denoiser import batch_loss
    from tda_jax.training.loop import Recipe

    made, corpus = small_unet(0), synthetic_corpus(0, 10, 8, 4, 0, 0)
    data = (corpus.examples.latent, corpus.examples.condition)
    loss = batch_loss(predict_fn(made.module), made.schedule)
    recipe = Recipe(UPDATES, BATCH, 4e-3, 0)
    if loop:
        return _looped(loss, made.params, data, recipe)
    used = spread.local_devices(devices)
    trainer = many.make_trainer(loss, made.params, data, recipe, (UPDATES,), used, per_device)
    rng = np.random.default_rng(0)
    jobs = [many.Job(rng.permutation(80)[:40], 0) for _ in range(trainer.together)]
    return lambda: many.train(trainer, jobs)


def _looped(loss: Any, params: Any, data: Any, recipe: Any) -> Callable[[], Any]:
    """The same updates of one model in `lax.scan`."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tda_jax.training import loop, many

    optimiser = loop.optimiser_of(recipe)
    update = loop.update_of(loss, optimiser)
    order = many.order(80, recipe, many.Job(np.arange(40), 0))

    @jax.jit
    def run(params: Any, data: Any, order: Any) -> Any:
        key = jax.random.key(0)

        def step(state: Any, at: Any) -> tuple[Any, None]:
            number, rows = at
            batch = jax.tree.map(lambda x: x[rows], data)
            return update(state, batch, jax.random.fold_in(key, number), number), None

        start = loop.start_of(params, optimiser, recipe.steps)
        steps = jnp.arange(recipe.steps, dtype=jnp.int32)
        return jax.lax.scan(step, start, (steps, order))[0].average

    return lambda: jax.block_until_ready(run(params, data, order))


if __name__ == "__main__":
    serve({"training": _training})
