"""From a config to the parts of an experiment, for training and for everything that reads a run folder."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax import augment, data, labels, losses, models, optim, train_step
from fer_jax import metrics as metrics_lib
from fer_jax.cli import UserError
from fer_jax.data import Examples, Render
from fer_jax.devices import Devices
from fer_jax.metrics import Metrics
from fer_jax.train_step import TrainState


class Parts(NamedTuple):
    """What a config stands for; all of it is fixed during a run."""

    model: nn.Module
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    mode: labels.Mode
    render: Render
    render_device: Callable[..., jax.Array]
    init: Callable[[], TrainState]  # the state before the first step


def build(config: ConfigDict, steps_per_epoch: int = 1) -> Parts:
    """The parts that a config names.

    Raises:
        UserError: a name or value that does not exist.
    """
    image, recipe = config.image, config.augment.recipe
    for field, value, known in (
        ("data.label_mode", config.data.label_mode, labels.MODES),
        ("augment.recipe", recipe, augment.RECIPES),
        ("augment.renderer", config.augment.renderer, ("host", "device")),
        ("image.normalize", image.normalize, augment.NORMALIZATIONS),
    ):
        if value not in known:
            raise UserError(f"unknown {field} {value!r}: choose one of {', '.join(known)}")
    try:
        model = models.create_model(config.model.name, config.model.dropout, config.model.dtype)
        epochs = config.train.epochs
        schedule = optim.create_schedule(config.optim.learning_rate, config.schedule, steps_per_epoch, epochs)
        optimizer = optim.create_optimizer(config.optim, schedule)
    except ValueError as error:
        raise UserError(f"{error}") from None

    def init() -> TrainState:
        variables = models.init(model, config.seed, image.size)
        return train_step.create_state(variables, optimizer, config.optim.ema_decay)

    return Parts(
        model=model,
        schedule=schedule,
        optimizer=optimizer,
        mode=labels.MODES[config.data.label_mode],
        render=Render(recipe, image.normalize, image.size, config.augment.renderer == "device"),
        render_device=partial(augment.render_device, size=image.size, normalize=image.normalize),
        init=init,
    )


def evaluator(parts: Parts, devices: Devices, batch_size: int) -> Callable[[Any, Examples], Metrics]:
    """A function of (variables, examples) that counts every example once; it compiles once."""
    loss = losses.LOSSES["cross_entropy"]
    step = jax.jit(partial(train_step.eval_step, model=parts.model, loss=loss, render=parts.render_device))

    def evaluate(variables: Any, examples: Examples) -> Metrics:
        batches = data.eval_batches(examples, parts.render, batch_size=batch_size, process=devices.process)
        total = metrics_lib.zeros()
        with closing(data.prefetch(batches, devices.shard)) as ready:
            for batch in ready:
                total = metrics_lib.merge(total, step(variables, batch))
        return total

    return evaluate
