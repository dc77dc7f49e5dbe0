"""A training run: epochs, validation, early stopping, checkpoints, logs, and resuming.

The side effects of training are here, in `fer_jax.training.checkpoint` and in `fer_jax.reporting.event_log`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from fer_jax.core import atomic, processes, provenance, run_folder
from fer_jax.core import config as config_lib
from fer_jax.core.devices import Devices, memory_errors
from fer_jax.core.errors import UserError
from fer_jax.core.runtime import stop_requests
from fer_jax.data import training_set
from fer_jax.data.batching import Batch
from fer_jax.data.training_set import Inputs
from fer_jax.inference import initial_weights, sources, teachers
from fer_jax.models import registry
from fer_jax.reporting.event_log import EventLog
from fer_jax.training import agreement, checkpoint, early_stopping, restoring, setup, train_step
from fer_jax.training import history as history_lib
from fer_jax.training import metrics as metrics_lib
from fer_jax.training import progress as progress_lib
from fer_jax.training.checkpoint import Progress
from fer_jax.training.checks import check
from fer_jax.training.epoch import StepFunction, check_finite, train_steps
from fer_jax.training.history import SCALARS, EpochRecord, best_record
from fer_jax.training.metrics import Metrics
from fer_jax.training.progress import Clock, EpochProgress, Shape
from fer_jax.training.setup import Parts
from fer_jax.training.train_step import TrainState

Say = Callable[[str], None]
StopAfter = Callable[[EpochRecord], bool]

HISTORY = "history.csv"  # in the run folder


def _print(line: str) -> None:
    print(line, flush=True)  # a log file should have it at once


def _never(record: EpochRecord) -> bool:
    return False


class Ending(NamedTuple):
    """The end of a run."""

    how: str  # "complete", "stopped early", "pruned", or "interrupted"
    signal: str = ""  # a signal that came: the caller should end too, even if the run is finished

    @property
    def finished(self) -> bool:
        """True if nothing is left to train."""
        return self.how != "interrupted"


class _Run(NamedTuple):
    """Everything that stays the same while a run trains."""

    config: ConfigDict
    folder: Path
    devices: Devices
    parts: Parts
    inputs: Inputs
    manager: ocp.CheckpointManager
    say: Say
    stop_after: StopAfter


class _Position(NamedTuple):
    """The point that a run has reached."""

    state: TrainState
    totals: Metrics  # of the unfinished epoch
    step: int
    history: list[EpochRecord]
    code: list[dict[str, Any]]  # see checkpoint.Progress
    resumed: bool


@memory_errors("lower train.batch_size or train.eval_batch_size, or set model.dtype=bfloat16, in another --workdir")
def train(config: ConfigDict, folder: Path, say: Say = _print, stop_after: StopAfter = _never) -> Ending:
    """Train a config in its run folder, from the latest checkpoint if there is one, until the run is finished.

    It is finished after the last epoch, or after `train.patience` epochs without a better validation accuracy.
    SIGTERM or Ctrl-C saves and returns early.

    Args:
        config: all fields of `schema.default_config()`.
        folder: the run folder.
        say: gets a line for each event.
        stop_after: gets the record of each new epoch; True ends the run there, "pruned".

    Raises:
        DivergenceError: loss or gradient became non-finite.
        OutOfMemoryError: the device has too little memory.
        DiskError: the disk is full.
        UserError: config, data or folder cannot be used.
    """
    check(config)
    resumes = run_folder.has_checkpoint(folder)
    if not resumes:  # a resumed run does without its sources
        sources.check(config)
    devices, inputs, initial = _read(config, folder)
    parts = setup.build(config, inputs.steps_per_epoch)
    if not devices.first:  # one process speaks for all
        say = _drop
    with checkpoint.disk_errors(folder), run_folder.claim(folder, config, devices.first):
        tree = {"state": initial, "totals": metrics_lib.zeros()}
        manager, saved = restoring.resume(folder, tree, devices.replicated, say)
        with closing(manager):
            if resumes and not saved:  # all of its checkpoints were damaged
                sources.check(config)
            run = _Run(config, folder, devices, parts, inputs, manager, say, stop_after)
            position = _resumed(run, saved) if saved else _first_position(run, tree)
            del initial, tree, saved  # the first step frees their memory
            return _train_epochs(run, position)


def _drop(line: str) -> None:
    pass


def _read(config: ConfigDict, folder: Path) -> tuple[Devices, Inputs, TrainState]:
    """The devices, the data, and the state before the first step. Several processes agree on them first."""
    if processes.several():  # the first use of a device waits for the others: only after they have agreed
        inputs = training_set.read(config)
        agreement.check(config, folder, inputs)
    devices = Devices()
    devices.check_batch_size(config.train.batch_size)
    with ThreadPoolExecutor(1) as pool:  # compiling the initial state takes as long as reading the images
        initializing = pool.submit(setup.create_train_state, config)
        if not processes.several():
            inputs = training_set.read(config)
        return devices, inputs, initializing.result()


def _first_position(run: _Run, tree: dict[str, Any]) -> _Position:
    """The start of a new run, or of one whose checkpoints are all damaged."""
    if run.config.train.init_from:
        variables = initial_weights.restore(run.config)
        if not run.config.data.teachers:  # teachers' predictions have all classes
            variables = initial_weights.without_absent_classes(variables, run.inputs.training.target, run.say)
        tree = {**tree, "state": setup.create_train_state(run.config, variables)}
    tree = run.devices.replicate(tree)
    code = [{**provenance.code_version(), "from_step": 0}]
    return _Position(tree["state"], tree["totals"], 0, [], code, resumed=False)


def _resumed(run: _Run, saved: restoring.Restored) -> _Position:
    """The position of a checkpoint; a UserError if its config or its data are others."""
    config, progress = run.config, saved.progress
    if progress.config is not None:
        run_folder.check_same(run.folder, config_lib.with_later_fields(progress.config), config)
    if progress.steps_per_epoch != run.inputs.steps_per_epoch or not _same_data(run.inputs, progress.pictures):
        raise UserError(f"{config.data.dir} has changed since {run.folder} was started; choose another --workdir")
    if run.devices.first and not (run.folder / run_folder.CONFIG).is_file():
        checked = "" if progress.config else "; this older checkpoint cannot tell if it is the same config"
        run.say(f"{run_folder.CONFIG} was missing and is written again{checked}")
        run_folder.write_config(run.folder, config)
    if progress.history and (best := best_record(progress.history).step) not in run.manager.all_steps():
        run.say(f"the best checkpoint so far, step {best}, is missing; the best one from here on takes its place")
    version = provenance.code_version()
    code = [dict(entry) for entry in progress.code]
    if not code or {name: code[-1].get(name) for name in version} != version:
        code.append({**version, "from_step": saved.step})
    return _Position(saved.tree["state"], saved.tree["totals"], saved.step, progress.history, code, resumed=True)


def _same_data(inputs: Inputs, stored: str) -> bool:
    """True if a checkpoint's digest is of these data. The oldest runs have none, older ones that of the pixels."""
    return stored in ("", inputs.digest) or stored == training_set.pixel_digest(inputs.training, inputs.valid)


def _train_epochs(run: _Run, position: _Position) -> Ending:
    """Train until the run is finished or a signal comes, and save after each epoch."""
    config, inputs, devices = run.config, run.inputs, run.devices
    _write_history(run, position.history)
    if how := _ending(run, position.history):
        run.say(_about(run, position.state))
        _complete_events(run, position)
        run.say(progress_lib.result(how, position.history))
        return Ending(how)
    training = teachers.with_soft_targets(inputs.training, config.data, run.folder, position.resumed, run.say)
    step_function = setup.step_function(config, run.parts, devices, training)
    evaluate = setup.evaluator(run.parts.network, devices, config.train.eval_batch_size)
    compiled: set[Shape] = set()
    signal = ""
    batches = partial(setup.ready_batches, config, run.parts, devices, training, inputs.steps_per_epoch)
    with (
        stop_requests() as stop,
        closing(EventLog(run.folder, position.history, devices.first)) as events,
        closing(batches(position.step)) as calls,
    ):
        run.say(_about(run, position.state))
        if position.resumed:
            epoch = f"{position.step / inputs.steps_per_epoch:.2f} of {config.train.epochs}"
            run.say(f"resuming from step {position.step} (epoch {epoch})")
        events.start(config, training.images)
        while not how and not signal:
            clock = Clock(config.train.batch_size, position.step % inputs.steps_per_epoch, compiled)
            position, signal = _train_epoch(run, position, calls, step_function, stop, clock)
            if position.step % inputs.steps_per_epoch:  # interrupted inside the epoch
                _save(run, position, accuracy=None)
                break
            valid = evaluate(train_step.eval_variables(position.state), inputs.valid)
            position = _finish_epoch(run, position, valid, clock, events)
            pruned = run.stop_after(position.history[-1])  # it gets every record, the last one too
            how = _ending(run, position.history) or ("pruned" if pruned else "")
        run.manager.wait_until_finished()
        if how:
            events.finish(config, best_record(position.history))
            run.say(progress_lib.result(how, position.history))
        else:
            run.say(f"{signal}: saved at step {position.step}; the same command resumes from there")
    return Ending(how or "interrupted", signal or stop())  # a signal after the last step counts too


def _complete_events(run: _Run, position: _Position) -> None:
    """Write the events of a finished run that its process could not write because it was killed."""
    with closing(EventLog(run.folder, position.history, run.devices.first)) as events:
        events.start(run.config, run.inputs.training.images)
        if not events.is_drawn(position.step) and jax.process_count() == 1:
            evaluate = setup.evaluator(run.parts.network, run.devices, run.config.train.eval_batch_size)
            valid = evaluate(train_step.eval_variables(position.state), run.inputs.valid)
            events.draw(np.asarray(valid.confusion), position.step)
        events.finish(run.config, best_record(position.history))


def _train_epoch(
    run: _Run,
    position: _Position,
    calls: Iterator[Batch],
    step_function: StepFunction,
    stop: Callable[[], str],
    clock: Clock,
) -> tuple[_Position, str]:
    """The position after the epoch's last step, or after the step at which a signal came, and the signal's name."""
    options, steps = run.config.train, run.inputs.steps_per_epoch
    title = f"epoch {len(position.history) + 1}/{options.epochs}"
    steps_left = (options.epochs - len(position.history)) * steps
    with closing(EpochProgress(title, steps, steps_left, options.batch_size, run.devices.first)) as progress:
        done = position.step % steps
        state, totals, signal = train_steps(
            position.state, position.totals, done, calls, step_function, stop, clock, progress
        )
    check_finite(totals, run.manager)
    return position._replace(state=state, totals=totals, step=int(state.step)), signal


def _finish_epoch(run: _Run, position: _Position, valid: Metrics, clock: Clock, events: EventLog) -> _Position:
    """Record a whole epoch: checkpoint, history.csv, TensorBoard, a line. The new position has totals of zero."""
    record = EpochRecord(
        epoch=len(position.history) + 1,
        step=position.step,
        train=_scalars(position.totals),
        valid=_scalars(valid),
        learning_rate=float(run.parts.schedule(np.float32(position.step - 1))),
        grad_norm=float(position.totals.grad_norm) / run.inputs.steps_per_epoch,
        images_per_s=clock.images_per_s(),
        data_wait=clock.waiting_fraction(),
    )
    totals = run.devices.replicate(metrics_lib.zeros())
    position = position._replace(totals=totals, history=[*position.history, record])
    _save(run, position, accuracy=record.valid["accuracy"])
    _write_history(run, position.history)
    events.epoch(record, np.asarray(valid.confusion))
    run.say(progress_lib.epoch_line(record, run.config.train.epochs, best_record(position.history) is record))
    return position


def _save(run: _Run, position: _Position, accuracy: float | None) -> None:
    progress = Progress(
        history=position.history,
        steps_per_epoch=run.inputs.steps_per_epoch,
        pictures=run.inputs.digest,
        code=position.code,
        config=config_lib.as_json(run.config),
    )
    tree = {"state": position.state, "totals": position.totals}
    checkpoint.save(run.manager, position.step, tree, progress, accuracy)


def _write_history(run: _Run, history: list[EpochRecord]) -> None:
    """Write history.csv; a line if it cannot be written, as on Windows while a spreadsheet has it open."""
    if not run.devices.first:
        return
    try:
        with atomic.replacing(run.folder / HISTORY) as path:
            path.write_text(history_lib.as_csv(history), newline="")
    except OSError as error:
        run.say(f"{run.folder / HISTORY} cannot be written: {error.strerror}; the next epoch tries again")


def _ending(run: _Run, history: list[EpochRecord]) -> str:
    return early_stopping.ending(history, run.config.train.epochs, run.config.train.patience)


def _about(run: _Run, state: TrainState) -> str:
    parameters = registry.count_parameters(state.params)
    return progress_lib.about(run.config, parameters, len(run.inputs.training.images), len(run.inputs.valid.images))


def _scalars(metrics: Metrics) -> dict[str, float]:
    summary = metrics_lib.summary(metrics)
    return {name: summary[name] for name in SCALARS}
