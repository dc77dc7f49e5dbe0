"""A training run: epochs, evaluation, early stopping, logs, checkpoints, and going on where one left off.

`build` turns a config into the parts of a run, for training and for everything that reads a run folder;
`train` drives them. All side effects of training are here, in `fer_jax.logs` and in `fer_jax.checkpoint`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax import augment, checkpoint, data, labels, losses, models, optim, train_step
from fer_jax import config as config_lib
from fer_jax import metrics as metrics_lib
from fer_jax.cli import UserError, stop_requests
from fer_jax.data import Examples, Render
from fer_jax.devices import Devices
from fer_jax.logs import SCALARS, EpochProgress, EventLog
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


def train(config: ConfigDict, run: Path, say: Callable[[str], None] = print) -> str:
    """Train `config` in the run folder, from its latest checkpoint if it has one, until it is done.

    Done is the last epoch, or `train.patience` epochs without a better validation accuracy. SIGTERM or Ctrl-C
    saves and returns early.

    Returns:
        How it ended: "complete", "stopped early", or the name of the signal that interrupted it.

    Raises:
        UserError: config, data or folder cannot be used, or loss or gradient became non-finite.
    """
    devices = Devices()
    for field in ("batch_size", "eval_batch_size"):
        devices.check_batch_size(config.train[field], f"train.{field}")
    build(config)  # a wrong name shows before the data is read and the folder made
    examples = data.select(data.load(config.data.dir, "train"), config.data.label_mode)
    valid = data.select(data.load(config.data.dir, "valid"), "majority")
    batch_size, epochs = config.train.batch_size, config.train.epochs
    steps_per_epoch = len(examples.images) // batch_size
    if steps_per_epoch == 0 or len(valid.images) == 0:
        raise UserError(
            f"{config.data.dir} gives {len(examples.images)} training and {len(valid.images)} validation pictures: "
            f"too few for train.batch_size={batch_size}"
        )
    parts = build(config, steps_per_epoch)
    config_lib.claim(run, config)

    active = devices.process[0] == 0
    evaluate = evaluator(parts, devices, config.train.eval_batch_size)
    step_fn = _step_function(config, parts)
    merge = jax.jit(metrics_lib.merge)
    with closing(checkpoint.open_manager(run)) as manager, stop_requests() as stop_signal:
        tree = {"state": parts.init(), "totals": metrics_lib.zeros()}
        found = checkpoint.restore(manager, "latest", tree, devices.replicated)
        tree = devices.replicate(tree) if found is None else found.tree
        state, totals = tree["state"], tree["totals"]
        history = found.progress["history"] if found else []
        step = found.step if found else 0
        say(
            f"{config.model.name}: {models.count_parameters(state.params):,} parameters; {len(examples.images):,} "
            f"training pictures ({config.data.label_mode}), {len(valid.images):,} for validation (majority); "
            f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        )
        if found:
            say(f"resuming from step {step} (epoch {step / steps_per_epoch:.2f} of {epochs})")

        batches = data.train_batches(
            examples,
            parts.render,
            batch_size=batch_size,
            seed=config.seed,
            sampled=parts.mode.sampled,
            start_step=step,
            process=devices.process,
        )
        events = EventLog(run, step, active)
        ready = data.prefetch(batches, devices.shard)
        with closing(events), closing(ready):
            if active and not found:
                events.start(config, _sample_grid(examples, parts.render, config.seed))
            while not (ending := _ending(history, epochs, config.train.patience)):
                epoch = len(history) + 1
                clock = _Clock()
                position = step % steps_per_epoch
                progress = EpochProgress(
                    f"epoch {epoch}/{epochs}", steps_per_epoch * batch_size, position * batch_size, active
                )
                with closing(progress):
                    for position in range(position, steps_per_epoch):
                        batch = clock.wait_for(ready)
                        previous = totals
                        state, metrics = step_fn(state, batch)
                        totals = merge(totals, metrics)
                        # One step stays in flight, so the device is busy while the host looks around.
                        jax.block_until_ready(previous)
                        clock.count(batch_size)
                        step += 1
                        progress.advance(batch_size)
                        if progress.due() and int(previous.steps):
                            _check_finite(previous, manager)
                            seen = metrics_lib.summary(previous)
                            left = (epochs - epoch + 1) * steps_per_epoch - position - 1
                            rate = clock.images_per_s()
                            progress.show(
                                seen["count"], seen["loss"], seen["accuracy"], rate, left * batch_size / rate
                            )
                        if stop_signal() and position + 1 < steps_per_epoch:
                            break
                    jax.block_until_ready(state)
                _check_finite(totals, manager)
                if step % steps_per_epoch:  # interrupted inside the epoch
                    checkpoint.save(manager, step, {"state": state, "totals": totals}, {"history": history}, None)
                    ending = stop_signal()
                    break
                counted = evaluate(train_step.eval_variables(state), valid)
                record = {
                    "epoch": epoch,
                    "step": step,
                    "train": _scalars(totals),
                    "valid": _scalars(counted),
                    "learning_rate": float(parts.schedule(np.float32(step - 1))),
                    "grad_norm": float(totals.grad_norm) / steps_per_epoch,
                    "images_per_s": clock.images_per_s(),
                    "data_wait": clock.waiting_share(),
                }
                best = max((past["valid"]["accuracy"] for past in history), default=0.0)
                history = [*history, record]
                totals = devices.replicate(metrics_lib.zeros())
                events.epoch(record, np.asarray(counted.confusion))
                tree = {"state": state, "totals": totals}
                checkpoint.save(manager, step, tree, {"history": history}, record["valid"]["accuracy"])
                say(_line(record, epochs, record["valid"]["accuracy"] > best))
                if stop_signal():
                    ending = stop_signal()
                    break
            if history and ending in ("complete", "stopped early"):
                top = best_record(history)
                events.finish(config, top)
                say(f"{ending}: best validation accuracy {top['valid']['accuracy']:.2%}, epoch {top['epoch']}")
            else:
                manager.wait_until_finished()
                say(f"{ending}: saved at step {step}; the same command goes on from there")
    return ending


def best_record(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The epoch of the best validation accuracy, the earlier of equals: the one whose checkpoint is kept."""
    return max(history, key=lambda record: (record["valid"]["accuracy"], -record["epoch"]))


def _ending(history: list[dict[str, Any]], epochs: int, patience: int) -> str:
    if history and patience and len(history) - best_record(history)["epoch"] >= patience:
        return "stopped early"
    return "complete" if len(history) >= epochs else ""


def _step_function(config: ConfigDict, parts: Parts) -> Callable[..., tuple[TrainState, Metrics]]:
    step = partial(
        train_step.train_step,
        model=parts.model,
        optimizer=parts.optimizer,
        loss=losses.LOSSES[parts.mode.loss],
        key=jax.random.fold_in(jax.random.key(config.seed), 1),
        render=parts.render_device,
        ema_decay=config.optim.ema_decay,
    )
    return jax.jit(step, donate_argnums=0)


def _sample_grid(examples: Examples, render: Render, seed: int) -> np.ndarray:
    """The first training pictures, each as it is and in seven augmented versions: u8[H, W]."""
    count = min(8, len(examples.images))
    images = np.repeat(examples.images[:count], 8, axis=0)
    params = augment.sample(np.random.default_rng(seed), len(images), render.recipe, render.size)
    plain = augment.identity(len(images), render.size)
    for field, unchanged in zip(params, plain, strict=True):
        field[::8] = unchanged[::8]
    return augment.grid(augment.render(images, params, size=render.size, normalize=render.normalize), columns=8)


def _scalars(counted: Metrics) -> dict[str, float]:
    summary = metrics_lib.summary(counted)
    return {name: summary[name] for name in SCALARS}


def _check_finite(totals: Metrics, manager: Any) -> None:
    if (bad := int(totals.bad_step)) != metrics_lib.NEVER:
        manager.wait_until_finished()
        last = manager.latest_step()
        kept = "no checkpoint was written yet" if last is None else f"the checkpoint of step {last} is kept"
        raise UserError(
            f"loss or gradient is not finite at step {bad}; {kept}; lower optim.learning_rate or set optim.clip_norm"
        )


def _line(record: dict[str, Any], epochs: int, better: bool) -> str:
    train, valid = record["train"], record["valid"]
    return (
        f"epoch {record['epoch']}/{epochs}: train loss {train['loss']:.4f}, accuracy {train['accuracy']:.2%}; "
        f"validation loss {valid['loss']:.4f}, accuracy {valid['accuracy']:.2%}, macro F1 {valid['macro_f1']:.2%}; "
        f"{record['images_per_s']:.0f} images/s{' *' if better else ''}"
    )


class _Clock:
    """Times the steps of an epoch; the first, which may compile, is left out."""

    def __init__(self) -> None:
        self._images = 0
        self._waited = 0.0
        self._start = 0.0
        self._end = 0.0

    def wait_for(self, batches: Iterator[Any]) -> Any:
        before = time.perf_counter()
        batch = next(batches)
        if self._start:
            self._waited += time.perf_counter() - before
        return batch

    def count(self, images: int) -> None:
        self._end = time.perf_counter()
        if self._start:
            self._images += images
        else:
            self._start = self._end

    def images_per_s(self) -> float:
        return self._images / max(self._end - self._start, 1e-9)

    def waiting_share(self) -> float:
        return self._waited / max(self._end - self._start, 1e-9)
