"""A training run: epochs, evaluation, early stopping, logs, checkpoints, and resuming from them.

All side effects of training are here, in `fer_jax.reporting.event_log` and in `fer_jax.training.checkpoint`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from fer_jax import inference
from fer_jax.core import atomic, provenance, run_folder
from fer_jax.core import config as config_lib
from fer_jax.core.devices import Devices, memory_errors
from fer_jax.core.errors import UserError
from fer_jax.core.runtime import stop_requests
from fer_jax.data import augment, batching, folders, training_set
from fer_jax.data.batching import Batch, Examples, Render
from fer_jax.inference import teachers
from fer_jax.models import registry
from fer_jax.reporting.event_log import EventLog
from fer_jax.training import checkpoint, setup, train_step
from fer_jax.training import history as history_lib
from fer_jax.training import metrics as metrics_lib
from fer_jax.training.checkpoint import Progress
from fer_jax.training.checks import check, check_sources
from fer_jax.training.history import SCALARS, EpochRecord, best_record
from fer_jax.training.metrics import Metrics
from fer_jax.training.progress import Clock, EpochProgress
from fer_jax.training.setup import Parts
from fer_jax.training.train_step import TrainState

Say = Callable[[str], None]
StopAfter = Callable[[EpochRecord], bool]

HISTORY = "history.csv"  # in the run folder


def _print(line: str) -> None:
    print(line, flush=True)  # a log file should show it now


def _never(record: EpochRecord) -> bool:
    return False


class DivergenceError(UserError):
    """Loss or gradient became non-finite."""


class Ending(NamedTuple):
    """The end of a run."""

    how: str  # "complete", "stopped early", "pruned", or "interrupted"
    signal: str = ""  # that came, if any: the caller should end too, also where the run was just finished

    @property
    def finished(self) -> bool:
        """True where nothing is left to train."""
        return self.how != "interrupted"


class _Inputs(NamedTuple):
    """The data of a run and what follows from them."""

    training: Examples
    valid: Examples
    digest: str  # of both
    steps_per_epoch: int
    initial: TrainState


class _Position(NamedTuple):
    """How far a run is."""

    state: TrainState
    totals: Metrics  # of the epoch under way
    step: int
    history: list[EpochRecord]
    code: list[dict[str, Any]]  # see checkpoint.Progress
    resumed: bool
    clock: Clock | None = None  # of the epoch trained last


class _Run(NamedTuple):
    """Everything that stays the same while a run trains."""

    config: ConfigDict
    folder: Path
    devices: Devices
    parts: Parts
    inputs: _Inputs
    manager: ocp.CheckpointManager
    say: Say
    stop_after: StopAfter


@memory_errors("lower train.batch_size or train.eval_batch_size, or set model.dtype=bfloat16, in another --workdir")
def train(config: ConfigDict, run: Path, say: Say = _print, stop_after: StopAfter = _never) -> Ending:
    """Train `config` in the run folder, from its latest checkpoint if it has one, until it is done.

    Done is the last epoch, or `train.patience` epochs without a better validation accuracy. SIGTERM or Ctrl-C
    saves and returns early.

    Args:
        config: all fields of `schema.default_config()`.
        run: the run folder.
        say: gets a line for each event.
        stop_after: gets the record of each new epoch; True ends the run there, "pruned".

    Raises:
        DivergenceError: loss or gradient became non-finite.
        OutOfMemoryError: the device has not enough.
        UserError: config, data or folder cannot be used.
    """
    check(config)  # a wrong config shows before the data are read and the folder is made
    devices = Devices()
    devices.check_batch_size(config.train.batch_size)
    if not (run / run_folder.CONFIG).exists():  # a resumed run has what it learned from its sources
        check_sources(config)
    inputs = _read_inputs(config)
    parts = setup.build(config, inputs.steps_per_epoch)
    with (
        run_folder.claim(run, config, devices.first),
        closing(checkpoint.open_manager(run)) as manager,
    ):
        silent = say if devices.first else lambda line: None  # one process speaks for all
        task = _Run(config, run, devices, parts, inputs, manager, silent, stop_after)
        position = _restore(task)
        if how := _ending(task, position.history):
            task.say(_about(task, position.state))
            task.say(_result(how, position.history))
            return Ending(how)
        return _train_epochs(task, position)


def _read_inputs(config: ConfigDict) -> _Inputs:
    """Read the data, while the initial state is computed."""
    with ThreadPoolExecutor(1) as pool:  # it compiles for as long as the images take to be read
        initial = pool.submit(setup.create_train_state, config)
        training = training_set.training(config)
        valid = batching.select(folders.load(config.data.dir, "valid"), "majority")
        digest = training_set.digest(training, valid)
    steps_per_epoch = len(training.images) // config.train.batch_size
    if steps_per_epoch == 0 or len(valid.images) == 0:
        raise UserError(
            f"{config.data.dir} gives {len(training.images)} training and {len(valid.images)} validation images; "
            f"train.batch_size={config.train.batch_size} needs as many of the first, and one of the second"
        )
    return _Inputs(training, valid, digest, steps_per_epoch, initial.result())


def _restore(task: _Run) -> _Position:
    """The position of the latest checkpoint, or the start of a new run."""
    config, inputs, devices = task.config, task.inputs, task.devices
    tree: dict[str, Any] = {"state": inputs.initial, "totals": metrics_lib.zeros()}
    saved = checkpoint.restore(task.manager, "latest", tree, devices.replicated)
    version = provenance.code_version()
    if saved is None:
        if config.train.init_from:
            tree["state"] = setup.create_train_state(config, _initial_variables(config))
        tree = devices.replicate(tree)
        return _Position(tree["state"], tree["totals"], 0, [], [{**version, "from_step": 0}], resumed=False)
    progress = saved.progress
    other_data = progress.pictures not in ("", inputs.digest)  # older runs did not keep it
    if progress.steps_per_epoch != inputs.steps_per_epoch or other_data:
        raise UserError(f"{config.data.dir} has changed since {task.folder} was started; choose another --workdir")
    code = [dict(entry) for entry in progress.code]
    if not code or {name: code[-1].get(name) for name in version} != version:
        code.append({**version, "from_step": saved.step})
    return _Position(saved.tree["state"], saved.tree["totals"], saved.step, progress.history, code, resumed=True)


def _initial_variables(config: ConfigDict) -> Any:
    """The network that `train.init_from` names; UserError unless it is the network of this config."""
    network = inference.restore(config.train.init_from, "best")
    free = ("dropout", "dtype", "stochastic_depth")  # the weights do not depend on these fields
    other, own = (
        {"model": {name: value for name, value in json["model"].items() if name not in free}, "image": json["image"]}
        for json in map(config_lib.as_json, (network.config, config))
    )
    if other != own:
        differences = config_lib.differences(other, own)
        raise UserError(f"train.init_from={config.train.init_from} holds another network ({differences})")
    return network.variables


def _train_epochs(task: _Run, position: _Position) -> Ending:
    """Train epoch by epoch until the run is done or a signal comes, and save after each."""
    config, inputs, devices = task.config, task.inputs, task.devices
    steps_per_epoch = inputs.steps_per_epoch
    training = teachers.with_soft_targets(inputs.training, config.data, task.folder, position.resumed, task.say)
    step_function = setup.step_function(config, task.parts, devices, training)
    evaluate = setup.evaluator(task.parts.network, devices, config.train.eval_batch_size)
    compiled: set[int] = set()
    how = signal = ""
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        events = stack.enter_context(closing(EventLog(task.folder, position.step, devices.first)))
        batches = setup.ready_batches(config, task.parts, devices, training, steps_per_epoch, position.step)
        ready = stack.enter_context(closing(batches))
        task.say(_about(task, position.state))
        if position.resumed:
            epoch = f"{position.step / steps_per_epoch:.2f} of {config.train.epochs}"
            task.say(f"resuming from step {position.step} (epoch {epoch})")
        else:
            events.start(config, _sample_grid(training, task.parts.network.render, config.seed))
        while not how and not signal:
            position, signal = _train_epoch(task, position, ready, step_function, stop, compiled)
            if position.step % steps_per_epoch:  # interrupted inside the epoch
                _save(task, position, accuracy=None)
                break
            counted = evaluate(train_step.eval_variables(position.state), inputs.valid)
            position = _finish_epoch(task, position, counted, events)
            pruned = task.stop_after(position.history[-1])  # it gets every record, also the last
            how = _ending(task, position.history) or ("pruned" if pruned else "")
        task.manager.wait_until_finished()
        if how:
            events.finish(config, best_record(position.history))
            task.say(_result(how, position.history))
        else:
            task.say(f"{signal}: saved at step {position.step}; the same command resumes from there")
    # A signal after the last step counts too.
    return Ending(how or "interrupted", signal or stop())


def _train_epoch(
    task: _Run,
    position: _Position,
    ready: Iterator[Batch],
    step_function: Callable[..., tuple[TrainState, Metrics]],
    stop: Callable[[], str],
    compiled: set[int],
) -> tuple[_Position, str]:
    """The position after the epoch's last step, or after the step at which a signal came, and the signal's name."""
    steps, batch_size = task.inputs.steps_per_epoch, task.config.train.batch_size
    epoch, epochs = len(position.history) + 1, task.config.train.epochs
    clock = Clock(batch_size, position.step % steps, compiled)
    title, left = f"epoch {epoch}/{epochs}", (epochs - epoch + 1) * steps
    with closing(EpochProgress(title, steps, left, batch_size, task.devices.first)) as progress:
        state, totals, signal = _train_steps(position, ready, step_function, stop, clock, progress)
    _check_finite(totals, task.manager)
    return position._replace(state=state, totals=totals, step=int(state.step), clock=clock), signal


def _train_steps(
    position: _Position,
    ready: Iterator[Batch],
    step_function: Callable[..., tuple[TrainState, Metrics]],
    stop: Callable[[], str],
    clock: Clock,
    progress: EpochProgress,
) -> tuple[TrainState, Metrics, str]:
    """The state and the epoch's metrics after its last step, or after the step at which the signal named last came."""
    state, totals = position.state, position.totals
    signal, alone = "", jax.process_count() == 1
    done = position.step % progress.steps
    while done < progress.steps:
        batches = clock.wait_for(ready)
        if compiles := clock.compiles(batches):
            jax.block_until_ready(totals)
            clock.tick(done)
            progress.note("compiling")
        finished, previous = done, totals
        state, totals = step_function(state, totals, batches)
        done += len(batches.mask)
        if compiles:
            finished, previous = done, totals
        # One call stays in flight, so the device is busy while the host works.
        jax.block_until_ready(previous)
        clock.tick(finished, counts=not compiles)
        if progress.due() and int(previous.steps):
            # Several processes must all stop at one step: they do at the epoch's end.
            if alone and int(previous.bad_step) != metrics_lib.NEVER:
                break
            progress.show(finished, metrics_lib.summary(previous), clock.images_per_s())
        if signal := stop():
            break
    jax.block_until_ready(totals)
    clock.tick(done)
    return state, totals, signal


def _finish_epoch(task: _Run, position: _Position, counted: Metrics, events: EventLog) -> _Position:
    """Record a whole epoch: checkpoint, history.csv, TensorBoard, a line; then the position with its totals at zero."""
    clock = position.clock
    assert clock is not None  # an epoch has just been trained
    record = EpochRecord(
        epoch=len(position.history) + 1,
        step=position.step,
        train=_scalars(position.totals),
        valid=_scalars(counted),
        learning_rate=float(task.parts.schedule(np.float32(position.step - 1))),
        grad_norm=float(position.totals.grad_norm) / task.inputs.steps_per_epoch,
        images_per_s=clock.images_per_s(),
        data_wait=clock.waiting_share(),
    )
    totals = task.devices.replicate(metrics_lib.zeros())
    position = position._replace(totals=totals, history=[*position.history, record])
    _save(task, position, accuracy=record.valid["accuracy"])
    if task.devices.first:
        with atomic.replacing(task.folder / HISTORY) as partial:
            partial.write_text(history_lib.as_csv(position.history))
    events.epoch(record, np.asarray(counted.confusion))
    task.say(_line(record, task.config.train.epochs, best_record(position.history) is record))
    return position


def _save(task: _Run, position: _Position, accuracy: float | None) -> None:
    progress = Progress(position.history, task.inputs.steps_per_epoch, task.inputs.digest, position.code)
    tree = {"state": position.state, "totals": position.totals}
    checkpoint.save(task.manager, position.step, tree, progress, accuracy)


def _ending(task: _Run, history: list[EpochRecord]) -> str:
    return history_lib.ending(history, task.config.train.epochs, task.config.train.patience)


def _about(task: _Run, state: TrainState) -> str:
    config, inputs = task.config, task.inputs
    labels = config.data.label_mode + (", without duplicates" if config.data.drop_repeats else "")
    return (
        f"{config.model.name}: {registry.count_parameters(state.params):,} parameters; {len(inputs.training.images):,} "
        f"training images ({labels}), {len(inputs.valid.images):,} for validation (majority); "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
    )


def _result(how: str, history: list[EpochRecord]) -> str:
    best = best_record(history)
    return f"{how}: best validation accuracy {best.valid['accuracy']:.2%}, epoch {best.epoch}"


def _line(record: EpochRecord, epochs: int, better: bool) -> str:
    train, valid = record.train, record.valid
    return (
        f"epoch {record.epoch}/{epochs}: train loss {train['loss']:.4f}, accuracy {train['accuracy']:.2%}; "
        f"validation loss {valid['loss']:.4f}, accuracy {valid['accuracy']:.2%}, macro F1 {valid['macro_f1']:.2%}; "
        f"{record.images_per_s:.0f} images/s{' *' if better else ''}"
    )


def _sample_grid(examples: Examples, render: Render, seed: int) -> np.ndarray:
    """The first training images, each as it is and in seven augmented versions: u8[H, W]."""
    count = min(8, len(examples.images))
    images = np.repeat(examples.images[:count], 8, axis=0)
    rng = np.random.default_rng((seed, 0, 0, 4))
    params = augment.sample(rng, len(images), render.recipe, render.size, render.erase)
    draw = partial(augment.render, size=render.size, normalize=render.normalize)
    rendered = draw(images, params)
    rendered[::8] = draw(images[::8], augment.identity(count, render.size))
    return augment.grid(rendered, columns=8)


def _scalars(counted: Metrics) -> dict[str, float]:
    summary = metrics_lib.summary(counted)
    return {name: summary[name] for name in SCALARS}


def _check_finite(totals: Metrics, manager: ocp.CheckpointManager) -> None:
    if (bad := int(totals.bad_step)) != metrics_lib.NEVER:
        manager.wait_until_finished()
        last = manager.latest_step()
        kept = "no checkpoint was written yet" if last is None else f"the checkpoint of step {last} is kept"
        raise DivergenceError(
            f"loss or gradient is not finite at step {bad}; {kept}; lower "
            "optim.learning_rate or set optim.clip_norm, in another --workdir"
        )
