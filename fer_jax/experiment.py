"""From a config to the parts of an experiment, for training and for everything that reads a run folder."""

import math
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax import augment, labels, loader, losses, models, optim, train_step
from fer_jax import config as config_lib
from fer_jax import metrics as metrics_lib
from fer_jax.cli import UserError
from fer_jax.devices import Devices
from fer_jax.loader import Batch, Examples, Render
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
    decay: optim.Decay | None  # of the average of the weights
    init: Callable[..., TrainState]  # () or (variables) -> the state before the first step


def build(config: ConfigDict, steps_per_epoch: int = 1) -> Parts:
    """The parts that a config names.

    Raises:
        UserError: a name or value that does not exist.
    """
    try:
        _check(config)
        model = models.create_model(**config.model)
        epochs = config.train.epochs
        schedule = optim.create_schedule(config.optim.learning_rate, config.schedule, steps_per_epoch, epochs)
        optimizer = optim.create_optimizer(config.optim, schedule)
        decay = optim.create_decay(config.optim, steps_per_epoch, epochs)
    except ValueError as error:
        raise UserError(f"{error}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"the config was made for another version of fer_jax: {error}") from None
    image, on_device = config.image, config.augment.renderer == "device"

    def init(variables: Any = None) -> TrainState:
        if variables is None:
            variables = models.init(model, config.seed, image.size)
        create = partial(train_step.create_state, optimizer=optimizer, averaged=decay is not None)
        return jax.jit(create)(variables)  # one program, where zeros leaf by leaf would be some fifty

    return Parts(
        model=model,
        schedule=schedule,
        optimizer=optimizer,
        mode=labels.MODES[config.data.label_mode],
        render=Render(config.augment.recipe, image.normalize, image.size, on_device, config.augment.erase),
        render_device=partial(augment.render_device, size=image.size, normalize=image.normalize),
        decay=decay,
        init=init,
    )


def check_sources(config: ConfigDict) -> None:
    """Raises UserError where a run folder is missing that a new run learns from."""
    for run in (*config.data.teachers, *([config.train.init_from] if config.train.init_from else [])):
        config_lib.read(Path(run))


def _check(config: ConfigDict) -> None:
    """Raises ValueError where a name is unknown or a number can mean nothing."""
    flat = config_lib.flatten(config.to_dict())
    names: dict[str, Collection[str]] = {
        "data.label_mode": labels.MODES,
        "augment.recipe": augment.RECIPES,
        "augment.renderer": ("host", "device"),
        "image.normalize": augment.NORMALIZATIONS,
    }
    ranges = {
        "seed": (0, 2**63),
        "data.temperature": (0.01, 100),
        "data.smoothing": (0, 0.99),
        "data.teacher_share": (0, 1),
        "data.balance": (0, 1),
        "data.logit_adjustment": (0, 10),
        "image.size": (16, 1024),
        "augment.mixup": (0, 100),
        "augment.cutmix": (0, 1),
        "augment.erase": (0, 1),
        "model.dropout": (0, 0.99),
        "model.width": (0.125, 16),
        "model.depth": (0, 16),
        "model.stochastic_depth": (0, 0.99),
        "optim.learning_rate": (0, 1e30),
        "optim.b1": (0, 0.999999),
        "optim.b2": (0, 0.999999),
        "optim.momentum": (0, 0.999999),
        "optim.weight_decay": (0, 1e6),
        "optim.l2": (0, 1e6),
        "optim.clip_norm": (0, math.inf),
        "optim.ema_decay": (0, 0.999999),
        "optim.swa_epochs": (0, flat["train.epochs"]),
        "schedule.warmup_epochs": (0, math.inf),
        "schedule.final_scale": (0, 1),
        "train.epochs": (1, math.inf),
        "train.batch_size": (1, math.inf),
        "train.eval_batch_size": (1, math.inf),
        "train.steps_per_call": (1, math.inf),
        "train.patience": (0, math.inf),
    }
    for field, known in names.items():
        if flat[field] not in known:
            raise ValueError(f"unknown {field} {flat[field]!r}: choose one of {', '.join(known)}")
    for field, (low, high) in ranges.items():
        if not low <= flat[field] <= high:
            raise ValueError(f"{field}={flat[field]!r} must be at least {low} and at most {high}")
    mode = flat["data.label_mode"]
    if labels.MODES[mode].marks:
        plain = {"data.temperature": 1.0, "data.smoothing": 0.0, "augment.mixup": 0.0, "augment.cutmix": 0.0}
        for field, off in {**plain, "data.teachers": type(flat["data.teachers"])()}.items():
            if flat[field] != off:
                raise ValueError(f"{field}={flat[field]!r} does not go with data.label_mode={mode}: set it to {off}")
    for field, other in (("augment.mixup", "augment.cutmix"), ("optim.ema_decay", "optim.swa_epochs")):
        if flat[field] and flat[other]:
            raise ValueError(f"{field}={flat[field]!r} does not go with {other}={flat[other]!r}: set one of them to 0")
    if flat["augment.renderer"] == "host" and flat["train.steps_per_call"] > 1:
        raise ValueError("train.steps_per_call above 1 needs augment.renderer=device: the host renders step by step")
    if flat["model.depth"] == 0 and (flat["model.squeeze_excite"] or flat["model.stochastic_depth"]):
        raise ValueError("model.depth=0 leaves no residual block for model.squeeze_excite and model.stochastic_depth")
    if flat["image.size"] % 8:
        raise ValueError(f"image.size={flat['image.size']} must be a multiple of 8")


def step_function(
    config: ConfigDict, parts: Parts, devices: Devices, examples: Examples
) -> Callable[..., tuple[TrainState, Metrics]]:
    """(state, totals, batches) -> (state, totals); see `train_step.train_steps`."""
    prior = loader.chances(examples.target, config.data.balance) @ examples.target  # of what is drawn
    loss = losses.LOSSES[parts.mode.loss]
    step = partial(
        train_step.train_step,
        model=parts.model,
        optimizer=parts.optimizer,
        loss=losses.logit_adjusted(loss, prior, config.data.logit_adjustment),
        render=parts.render_device,
        decay=parts.decay,
    )
    steps = jax.jit(partial(train_step.train_steps, step=step), donate_argnums=0)
    pictures = devices.replicate(examples.images) if parts.render.on_device else None
    # An argument, not a constant: all seeds share one compiled program.
    seed: Any = np.array([0, config.seed % 2**32], np.uint32)  # what jax.random.key makes of it
    return lambda state, totals, batches: steps(state, totals, pictures, batches, seed)


def ready_batches(
    config: ConfigDict, parts: Parts, devices: Devices, examples: Examples, steps_per_epoch: int, start_step: int = 0
) -> Generator[Batch, None, None]:
    """The batches of each call of the step function from `start_step` on, on the devices; close it when done."""
    batches = loader.train_batches(
        examples,
        parts.render,
        batch_size=config.train.batch_size,
        seed=config.seed,
        sampled=parts.mode.sampled,
        balance=config.data.balance,
        mixup=config.augment.mixup,
        cutmix=config.augment.cutmix,
        start_step=start_step,
        process=devices.process,
    )
    calls = loader.calls(batches, config.train.steps_per_call, steps_per_epoch, start_step)
    return loader.prefetch(calls, partial(devices.shard, axis=1))


def evaluator(parts: Parts, devices: Devices, batch_size: int) -> Callable[[Any, Examples], Metrics]:
    """A function of (variables, examples) that counts every example once; it compiles once."""
    loss = losses.LOSSES["cross_entropy"]
    step = jax.jit(partial(train_step.eval_step, model=parts.model, loss=loss, render=parts.render_device))
    batch_size = devices.round_up(batch_size)

    def evaluate(variables: Any, examples: Examples) -> Metrics:
        batches = loader.eval_batches(examples, parts.render, batch_size=batch_size, process=devices.process)
        total = devices.replicate(metrics_lib.zeros())
        with closing(loader.prefetch(batches, devices.shard)) as ready:
            for batch in ready:
                total = metrics_lib.merge(total, step(variables, batch))
        return total

    return evaluate
