"""The steps of an epoch: the loop around the compiled step, which stops at a signal or a value that is not finite."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import jax
import orbax.checkpoint as ocp

from fer_jax.core.errors import UserError
from fer_jax.data.batching import Batch
from fer_jax.training import metrics as metrics_lib
from fer_jax.training.metrics import Metrics
from fer_jax.training.progress import Clock, EpochProgress
from fer_jax.training.train_step import TrainState

StepFunction = Callable[[TrainState, Metrics, Batch], tuple[TrainState, Metrics]]


class DivergenceError(UserError):
    """Loss or gradient became non-finite."""


def train_steps(
    state: TrainState,
    totals: Metrics,
    done: int,
    calls: Iterator[Batch],
    step_function: StepFunction,
    stop: Callable[[], str],
    clock: Clock,
    progress: EpochProgress,
) -> tuple[TrainState, Metrics, str]:
    """Train until the end of an epoch, or until a signal comes.

    Args:
        state: after the steps done.
        totals: metrics of these steps.
        done: steps of this epoch done already.
        calls: the batches of each call of the step function, from here on.
        step_function: see `setup.step_function`.
        stop: returns the name of a signal received, or "".
        clock: measures steps and waiting.
        progress: shows them.

    Returns:
        The state and the epoch's metrics after its last step, or after the step at which a signal came, and its name.
        A single process stops early where loss or gradient is not finite; `check_finite` raises the error.
    """
    signal, alone = "", jax.process_count() == 1
    while done < progress.steps:
        batches = clock.wait_for(calls)
        if compiles := clock.compiles(batches):
            jax.block_until_ready(totals)
            clock.tick(done)
        with progress.note("compiling") if compiles else nullcontext():
            finished, previous = done, totals
            state, totals = step_function(state, totals, batches)
            done += len(batches.mask)
            if compiles:
                finished, previous = done, totals
            # One call stays in flight, so the device is busy while the host works.
            jax.block_until_ready(previous)
        clock.tick(finished, counts=not compiles)
        if progress.due() and int(previous.steps):
            # Several processes must stop at the same step: they do so at the end of the epoch.
            if alone and int(previous.bad_step) != metrics_lib.NEVER:
                break
            progress.show(finished, metrics_lib.summary(previous), clock.images_per_s())
        if signal := stop():
            break
    jax.block_until_ready(totals)
    clock.tick(done)
    return state, totals, signal


def check_finite(totals: Metrics, manager: ocp.CheckpointManager) -> None:
    """Raise a DivergenceError, after running saves are complete, if the loss or gradient of a step was not finite."""
    if (bad := int(totals.bad_step)) != metrics_lib.NEVER:
        manager.wait_until_finished()
        latest = manager.latest_step()
        kept = "no checkpoint was written yet" if latest is None else f"the checkpoint of step {latest} is kept"
        raise DivergenceError(
            f"loss or gradient is not finite at step {bad}; {kept}; lower "
            "optim.learning_rate or set optim.clip_norm, in another --workdir"
        )
