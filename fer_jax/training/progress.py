"""The progress of a run on the terminal, and the time that its steps take."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from fer_jax.data.batching import Batch
from fer_jax.training.history import EpochRecord, best_record

LINE_EVERY_S = 30.0
NOTE_AFTER_S = 5.0

Shape = tuple[int, Any]  # of a call: its length, and the fields that its batches have


def about(config: ConfigDict, parameters: int, training_images: int, valid_images: int) -> str:
    """The first line of a run."""
    labels = config.data.label_mode + (", without duplicates" if config.data.drop_repeats else "")
    return (
        f"{config.model.name}: {parameters:,} parameters; {training_images:,} training images ({labels}), "
        f"{valid_images:,} for validation (majority); {jax.device_count()} {jax.devices()[0].platform} device(s)"
    )


def epoch_line(record: EpochRecord, epochs: int, best: bool) -> str:
    """The line of a finished epoch; the best one so far is starred."""
    train, valid = record.train, record.valid
    return (
        f"epoch {record.epoch}/{epochs}: train loss {train['loss']:.4f}, accuracy {train['accuracy']:.2%}; "
        f"validation loss {valid['loss']:.4f}, accuracy {valid['accuracy']:.2%}, macro F1 {valid['macro_f1']:.2%}; "
        f"{record.images_per_s:.0f} images/s{' *' if best else ''}"
    )


def result(how: str, history: Sequence[EpochRecord]) -> str:
    """The last line of a finished run; `how` it ended comes first."""
    best = best_record(history)
    if how == "stopped early":
        how += f" (train.patience={len(history) - best.epoch})"
    return f"{how}: best validation accuracy {best.valid['accuracy']:.2%}, epoch {best.epoch}"


class EpochProgress:
    """The progress of an epoch: a bar on a terminal, elsewhere a line every 30 seconds."""

    def __init__(self, title: str, steps: int, steps_left: int, batch_size: int, active: bool) -> None:
        """Start the display.

        Args:
            title: of the epoch.
            steps: of the epoch.
            steps_left: of the run, at the start of the epoch.
            batch_size: images per step.
            active: False for silence.
        """
        self.steps = steps
        self._title, self._steps_left, self._batch_size, self._active = title, steps_left, batch_size, active
        self._bar = tqdm(
            total=steps * batch_size,
            desc=title,
            unit="img",
            leave=False,
            disable=None if active else True,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}",
        )
        self._interval = LINE_EVERY_S if self._bar.disable else 0.5
        self._next = time.monotonic() + self._interval

    @contextmanager
    def note(self, text: str) -> Iterator[None]:
        """Show `text` during the block: on the bar at once, elsewhere as a line if the block takes long."""
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=True)
        timer = threading.Timer(NOTE_AFTER_S, print, [f"{self._title}: {text}"], {"flush": True})
        timer.daemon = True  # an exit does not wait for it
        if self._active and self._bar.disable:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def due(self) -> bool:
        """True if metrics should be shown now; reading them costs a synchronisation with the device."""
        return self._active and time.monotonic() > self._next

    def show(self, step: int, summary: dict[str, Any], images_per_s: float) -> None:
        """Show the epoch's metrics up to this step, and the longest time that the run may still take."""
        self._next = time.monotonic() + self._interval
        metrics = f"loss {summary['loss']:.3f}, accuracy {summary['accuracy']:.1%}"
        if images_per_s:
            seconds = (self._steps_left - step) * self._batch_size / images_per_s
            time_left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
            metrics += f", {images_per_s:.0f} images/s, {time_left} left"
        images = step * self._batch_size
        if self._bar.disable:
            print(f"{self._title}: {images}/{self.steps * self._batch_size} images, {metrics}", flush=True)
        else:
            self._bar.n = images
            self._bar.set_postfix_str(metrics, refresh=True)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        self._bar.close()


class Clock:
    """The time of an epoch's steps, except calls that compile: the first of each length and augmentation in a run."""

    def __init__(self, batch_size: int, step: int, compiled: set[Shape]) -> None:
        """Start the clock.

        Args:
            batch_size: images per step.
            step: the number of the epoch's steps that are already done.
            compiled: the shapes of the run's calls so far; the clock adds to it.
        """
        self._batch_size, self._compiled = batch_size, compiled
        self._start_step = self._step = step
        self._last_wait = self._total_wait = 0.0  # for data, in seconds
        self._start = self._end = time.perf_counter()

    def wait_for(self, calls: Iterator[Batch]) -> Batch:
        """Return the batches of the next call, and count the time until they are ready as waiting."""
        before = time.perf_counter()
        batches = next(calls)
        self._last_wait = time.perf_counter() - before
        self._total_wait += self._last_wait
        return batches

    def compiles(self, batches: Batch) -> bool:
        """True if the call of these batches is the run's first of its shape."""
        shape = len(batches.mask), jax.tree.structure(batches)
        if shape in self._compiled:
            return False
        self._compiled.add(shape)
        return True

    def tick(self, step: int, counts: bool = True) -> None:
        """Record that the epoch is done up to this step; `counts=False` leaves out the steps since the last tick."""
        now = time.perf_counter()
        if not counts:  # the wait for their batches does not count either
            self._start += now - self._end + self._last_wait
            self._total_wait -= self._last_wait
            self._start_step += step - self._step
        self._step, self._end = step, now

    def images_per_s(self) -> float:
        """The speed in this epoch, over all processes; 0 before a call that counts."""
        return (self._step - self._start_step) * self._batch_size / max(self._end - self._start, 1e-9)

    def waiting_fraction(self) -> float:
        """The fraction of the time spent waiting for data, 0..1."""
        return self._total_wait / max(self._end - self._start, 1e-9)
