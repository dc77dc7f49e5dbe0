"""The parts of a training run, made from its config."""

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict
from threadpoolctl import threadpool_limits

from fer_jax.core import runtime
from fer_jax.core.devices import Devices
from fer_jax.data import batching, labels
from fer_jax.data.batching import Augmentation, Batch, Examples
from fer_jax.models import registry
from fer_jax.training import losses, optim, train_step
from fer_jax.training import metrics as metrics_lib
from fer_jax.training.metrics import Metrics
from fer_jax.training.network import NetworkParts, build_network
from fer_jax.training.train_step import TrainState


class Parts(NamedTuple):
    """The parts that stay the same during a training run."""

    network: NetworkParts
    mode: labels.Mode
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    decay: optim.Decay | None  # of the weight average


def build(config: ConfigDict, steps_per_epoch: int) -> Parts:
    """Return the parts of a checked config; see `checks.check`."""
    epochs = config.train.epochs
    schedule = optim.create_schedule(config.optim.learning_rate, config.schedule, steps_per_epoch, epochs)
    return Parts(
        network=build_network(config),
        mode=labels.MODES[config.data.label_mode],
        schedule=schedule,
        optimizer=optim.create_optimizer(config.optim, schedule),
        decay=optim.create_decay(config.optim, steps_per_epoch, epochs),
    )


def create_train_state(config: ConfigDict, variables: Any = None) -> TrainState:
    """Return the state before the first step, from `variables` or from fresh weights."""
    if variables is None:
        variables = registry.init(registry.create_model(**config.model), config.seed, config.image.size)
    # The state does not depend on the learning rates, so this schedule is never called.
    optimizer = optim.create_optimizer(config.optim, schedule=lambda step: 0.0)
    averaged = bool(config.optim.ema_decay or config.optim.swa_epochs)
    create = partial(train_step.create_state, optimizer=optimizer, averaged=averaged)
    return jax.jit(create)(variables)  # one program; zeros leaf by leaf would be about fifty


def checkpoint_tree(config: ConfigDict) -> dict[str, Any]:
    """Return the shapes of the arrays of a checkpoint: the state, and the metrics of the unfinished epoch."""
    return jax.eval_shape(lambda: {"state": create_train_state(config), "totals": metrics_lib.zeros()})


def step_function(
    config: ConfigDict, parts: Parts, devices: Devices, examples: Examples
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Return the compiled (state, totals, batches) -> (state, totals); see `train_step.train_steps`."""
    # The class prior of the sampled images.
    prior = batching.sampling_probabilities(examples.target, config.data.balance) @ examples.target
    loss = losses.LOSSES[parts.mode.loss]
    step = partial(
        train_step.train_step,
        model=parts.network.model,
        optimizer=parts.optimizer,
        loss=losses.logit_adjusted(loss, prior, config.data.logit_adjustment),
        render=parts.network.render_device,
        decay=parts.decay,
    )
    steps = jax.jit(
        partial(train_step.train_steps, step=step), donate_argnums=0, compiler_options=runtime.step_options()
    )
    images = devices.replicate(examples.images) if parts.network.render.on_device else None
    # An argument, not a constant: all seeds share one compiled program.
    seed: Any = np.array([0, config.seed % 2**32], np.uint32)  # what jax.random.key makes of it
    return lambda state, totals, batches: steps(state, totals, images, batches, seed)


def augmentation(config: ConfigDict, epoch: int) -> Augmentation:
    """Return what changes the training images in an epoch, by its number from 0 on."""
    fields = config.augment
    if epoch >= config.train.epochs - fields.final_epochs:
        return Augmentation(fields.final_recipe)
    return Augmentation(fields.recipe, fields.erase, fields.mixup, fields.cutmix)


def ready_batches(
    config: ConfigDict, parts: Parts, devices: Devices, examples: Examples, steps_per_epoch: int, start_step: int = 0
) -> Generator[Batch, None, None]:
    """Yield the batches of each call of the step function, on the devices. Close the generator when done."""
    batches = batching.train_batches(
        examples,
        parts.network.render,
        partial(augmentation, config),
        batch_size=config.train.batch_size,
        seed=config.seed,
        sampled=parts.mode.sampled,
        balance=config.data.balance,
        start_step=start_step,
        process=devices.process,
    )
    calls = batching.calls(batches, config.train.steps_per_call, steps_per_epoch, start_step)
    # numpy renders beside the step: with threads of its own BLAS would take the cores from it.
    with threadpool_limits(1, "blas"):
        yield from batching.prefetch(calls, partial(devices.shard, axis=1))


def evaluator(network: NetworkParts, devices: Devices, batch_size: int) -> Callable[[Any, Examples], Metrics]:
    """Return the metrics as a function of (variables, examples). It counts every example once and compiles once."""
    loss = losses.LOSSES["cross_entropy"]
    step = jax.jit(partial(train_step.eval_step, model=network.model, loss=loss, render=network.render_device))
    batch_size = devices.round_up(batch_size)

    def evaluate(variables: Any, examples: Examples) -> Metrics:
        batches = batching.eval_batches(examples, network.render, batch_size=batch_size, process=devices.process)
        total = devices.replicate(metrics_lib.zeros())
        with closing(batching.prefetch(batches, devices.shard)) as ready:
            for batch in ready:
                total = metrics_lib.merge(total, step(variables, batch))
        return total

    return evaluate
