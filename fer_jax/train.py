"""A training run: epochs, evaluation, early stopping, logs, checkpoints, and going on where one left off.

All side effects of training are here, in `fer_jax.logs` and in `fer_jax.checkpoint`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import augment, checkpoint, data, examples, loader, models, train_step
from fer_jax import config as config_lib
from fer_jax import metrics as metrics_lib
from fer_jax.cli import UserError
from fer_jax.devices import Devices, memory_told, stop_requests
from fer_jax.experiment import build, check_sources, evaluator, ready_batches, step_function
from fer_jax.history import best_record, ending
from fer_jax.loader import Batch, Examples, Render
from fer_jax.logs import SCALARS, Clock, EpochProgress, EventLog
from fer_jax.metrics import Metrics
from fer_jax.train_step import TrainState


def _say(line: str) -> None:
    print(line, flush=True)  # a log file should show it now


class DivergenceError(UserError):
    """Loss or gradient became non-finite."""


class Ending(NamedTuple):
    """How a run ended."""

    how: str  # "complete", "stopped early", "pruned", or "interrupted"
    signal: str = ""  # that came, if any: the caller should end too, also where the run was just finished

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.how != "interrupted"


@memory_told("lower train.batch_size or train.eval_batch_size, or set model.dtype=bfloat16, in another --workdir")
def train(
    config: ConfigDict,
    run: Path,
    say: Callable[[str], None] = _say,
    stop_after: Callable[[dict[str, Any]], bool] = lambda record: False,
) -> Ending:
    """Train `config` in the run folder, from its latest checkpoint if it has one, until it is done.

    Done is the last epoch, or `train.patience` epochs without a better validation accuracy. SIGTERM or Ctrl-C
    saves and returns early.

    Args:
        config: all of its fields, as in configs/base.py.
        run: the run folder.
        say: is told what happens, a line at a time.
        stop_after: is told the record of each new epoch; True ends the run there, "pruned".

    Raises:
        DivergenceError: loss or gradient became non-finite.
        OutOfMemoryError: the device has not enough.
        UserError: config, data or folder cannot be used.
    """
    parts = build(config)  # what is wrong with it shows before the data is read and the folder made
    devices = Devices()
    devices.check_batch_size(config.train.batch_size)
    if not (run / "config.json").exists():  # one that goes on has what it learnt from
        check_sources(config)
    if not devices.first:  # one process speaks for all
        say = lambda line: None  # noqa: E731
    with ThreadPoolExecutor(1) as beside:  # it compiles for as long as the pictures take to be read
        initial = beside.submit(parts.init)
        training = examples.training(config)
        valid = loader.select(data.load(config.data.dir, "valid"), "majority")
        pictures = examples.digest(training, valid)
    epochs, batch_size = config.train.epochs, config.train.batch_size
    steps_per_epoch = len(training.images) // batch_size
    if steps_per_epoch == 0 or len(valid.images) == 0:
        raise UserError(
            f"{config.data.dir} gives {len(training.images)} training and {len(valid.images)} validation pictures; "
            f"train.batch_size={batch_size} needs as many of the first, and one of the second"
        )
    parts = build(config, steps_per_epoch)
    evaluate = evaluator(parts, devices, config.train.eval_batch_size)

    lock = config_lib.claim(run, config, devices.first)
    with lock, closing(checkpoint.open_manager(run)) as manager:
        tree: dict[str, Any] = {"state": initial.result(), "totals": metrics_lib.zeros()}
        found = checkpoint.restore(manager, "latest", tree, devices.replicated)
        if found is None and config.train.init_from:
            tree["state"] = parts.init(_variables_of(Path(config.train.init_from), config))
        tree = devices.replicate(tree) if found is None else found.tree
        state, totals = tree["state"], tree["totals"]
        step, history = (found.step, found.progress["history"]) if found else (0, [])
        begun_with = found.progress.get("pictures", pictures) if found else pictures  # older runs did not keep it
        if found and (found.progress["steps_per_epoch"] != steps_per_epoch or begun_with != pictures):
            raise UserError(f"{config.data.dir} has changed since {run} was begun; choose another --workdir")
        labelled = config.data.label_mode + (", without repeats" if config.data.drop_repeats else "")
        about = (
            f"{config.model.name}: {models.count_parameters(state.params):,} parameters; {len(training.images):,} "
            f"training pictures ({labelled}), {len(valid.images):,} for validation (majority); "
            f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        )
        if how := ending(history, epochs, config.train.patience):
            say(about)
            say(_result(how, history))
            return Ending(how)
        training = examples.teach(training, config.data, run / "taught.npz", begun=found is not None, say=say)
        step_fn = step_function(config, parts, devices, training)
        compiled: set[int] = set()
        with (
            stop_requests() as stop,
            closing(EventLog(run, step, devices.first)) as events,
            closing(ready_batches(config, parts, devices, training, steps_per_epoch, step)) as ready,
        ):
            say(about)
            if found:
                say(f"resuming from step {step} (epoch {step / steps_per_epoch:.2f} of {epochs})")
            else:
                events.start(config, _sample_grid(training, parts.render, config.seed))
            signal = ""
            while not how and not signal:
                clock = Clock(batch_size, step % steps_per_epoch, compiled)
                title, left = f"epoch {len(history) + 1}/{epochs}", (epochs - len(history)) * steps_per_epoch
                with closing(EpochProgress(title, steps_per_epoch, left, batch_size, devices.first)) as progress:
                    state, totals, signal = _train_epoch(state, totals, step, ready, step_fn, stop, clock, progress)
                step = int(state.step)
                _check_finite(totals, manager)
                saved = {"history": history, "steps_per_epoch": steps_per_epoch, "pictures": pictures}
                if step % steps_per_epoch:  # interrupted inside the epoch
                    checkpoint.save(manager, step, {"state": state, "totals": totals}, saved, None)
                    break
                counted = evaluate(train_step.eval_variables(state), valid)
                record = {
                    "epoch": len(history) + 1,
                    "step": step,
                    "train": _scalars(totals),
                    "valid": _scalars(counted),
                    "learning_rate": float(parts.schedule(np.float32(step - 1))),
                    "grad_norm": float(totals.grad_norm) / steps_per_epoch,
                    "images_per_s": clock.images_per_s(),
                    "data_wait": clock.waiting_share(),
                }
                history = [*history, record]
                totals = devices.replicate(metrics_lib.zeros())
                tree = {"state": state, "totals": totals}
                saved["history"] = history
                checkpoint.save(manager, step, tree, saved, record["valid"]["accuracy"])
                events.epoch(record, np.asarray(counted.confusion))
                say(_line(record, epochs, best_record(history) is record))
                pruned = stop_after(record)  # it wants every record, also the last
                how = ending(history, epochs, config.train.patience) or ("pruned" if pruned else "")
            manager.wait_until_finished()
            if how:
                events.finish(config, best_record(history))
                say(_result(how, history))
            else:
                say(f"{signal}: saved at step {step}; the same command goes on from there")
        signal = signal or stop()  # one that came after the last step too
    return Ending(how or "interrupted", signal)


def _variables_of(run: Path, config: ConfigDict) -> Any:
    """The network of a run folder, to go on from; UserError unless it is the network of this config."""
    from fer_jax import inference  # few runs need it, and it would make every start slower

    network = inference.restore(run, "best")
    there, here = (config_lib.as_json(of) for of in (network.config, config))
    free = ("dropout", "dtype", "stochastic_depth")  # what the weights need not know of
    there, here = (
        {"model": {name: value for name, value in of["model"].items() if name not in free}, "image": of["image"]}
        for of in (there, here)
    )
    if there != here:
        raise UserError(f"train.init_from={run} holds another network ({config_lib.changes(there, here)})")
    return network.variables


def _train_epoch(
    state: TrainState,
    totals: Metrics,
    step: int,
    ready: Iterator[Batch],
    step_fn: Callable[..., tuple[TrainState, Metrics]],
    stop: Callable[[], str],
    clock: Clock,
    progress: EpochProgress,
) -> tuple[TrainState, Metrics, str]:
    """The state and the epoch's metrics after its last step, or after the one where the signal named last came."""
    signal, alone = "", jax.process_count() == 1
    position = step % progress.steps
    while position < progress.steps:
        batches = clock.wait_for(ready)
        if compiles := clock.compiles(batches):
            jax.block_until_ready(totals)
            clock.tick(position)
        done, previous = position, totals
        state, totals = step_fn(state, totals, batches)
        position += len(batches.mask)
        if compiles:
            done, previous = position, totals
        # One call stays in flight, so the device is busy while the host looks around.
        jax.block_until_ready(previous)
        clock.tick(done, counts=not compiles)
        if progress.due() and int(previous.steps):
            # Several processes must all stop at one step: they do at the epoch's end.
            if alone and int(previous.bad_step) != metrics_lib.NEVER:
                break
            progress.show(done, metrics_lib.summary(previous), clock.images_per_s())
        if signal := stop():
            break
    jax.block_until_ready(totals)
    clock.tick(position)
    return state, totals, signal


def _result(how: str, history: list[dict[str, Any]]) -> str:
    best = best_record(history)
    return f"{how}: best validation accuracy {best['valid']['accuracy']:.2%}, epoch {best['epoch']}"


def _sample_grid(examples: Examples, render: Render, seed: int) -> np.ndarray:
    """The first training pictures, each as it is and in seven augmented versions: u8[H, W]."""
    count = min(8, len(examples.images))
    images = np.repeat(examples.images[:count], 8, axis=0)
    rng = np.random.default_rng((seed, 0, 0, 4))
    params = augment.sample(rng, len(images), render.recipe, render.size, render.erase)
    draw = partial(augment.render, size=render.size, normalize=render.normalize)
    pictures = draw(images, params)
    pictures[::8] = draw(images[::8], augment.identity(count, render.size))
    return augment.grid(pictures, columns=8)


def _scalars(counted: Metrics) -> dict[str, float]:
    summary = metrics_lib.summary(counted)
    return {name: summary[name] for name in SCALARS}


def _check_finite(totals: Metrics, manager: Any) -> None:
    if (bad := int(totals.bad_step)) != metrics_lib.NEVER:
        manager.wait_until_finished()
        last = manager.latest_step()
        kept = "no checkpoint was written yet" if last is None else f"the checkpoint of step {last} is kept"
        raise DivergenceError(
            f"loss or gradient is not finite at step {bad}; {kept}; lower "
            "optim.learning_rate or set optim.clip_norm, in another --workdir"
        )


def _line(record: dict[str, Any], epochs: int, better: bool) -> str:
    train, valid = record["train"], record["valid"]
    return (
        f"epoch {record['epoch']}/{epochs}: train loss {train['loss']:.4f}, accuracy {train['accuracy']:.2%}; "
        f"validation loss {valid['loss']:.4f}, accuracy {valid['accuracy']:.2%}, macro F1 {valid['macro_f1']:.2%}; "
        f"{record['images_per_s']:.0f} images/s{' *' if better else ''}"
    )
