"""The progress of an epoch on the terminal, and the time that its steps take."""

import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from fer_jax.data.batching import Batch

LINE_EVERY_S = 30.0


class EpochProgress:
    """How far an epoch is: a bar on a terminal, elsewhere a line every 30 seconds."""

    def __init__(self, title: str, steps: int, steps_left: int, batch_size: int, active: bool) -> None:
        """`steps` of the epoch, `steps_left` of the run at its start; silent where `active` is False."""
        self.steps = steps
        self._title, self._steps_left, self._batch_size = title, steps_left, batch_size
        self._bar = tqdm(
            total=steps * batch_size,
            desc=title,
            unit="img",
            leave=False,
            disable=None if active else True,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}% {bar} {n_fmt}/{total_fmt} {postfix}",
        )
        self._active = active
        self._every = LINE_EVERY_S if self._bar.disable else 0.5
        self._next = time.monotonic() + self._every

    def note(self, text: str) -> None:
        """Show a word instead of metrics, for example while XLA compiles."""
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=True)

    def due(self) -> bool:
        """Whether figures should be shown now; asking for them costs a synchronisation with the device."""
        return self._active and time.monotonic() > self._next

    def show(self, position: int, summary: dict[str, Any], images_per_s: float) -> None:
        """The epoch's figures up to a step of it, and the time that the run may still take at most."""
        self._next = time.monotonic() + self._every
        figures = f"loss {summary['loss']:.3f}, accuracy {summary['accuracy']:.1%}, {images_per_s:.0f} images/s"
        if images_per_s:
            seconds = (self._steps_left - position) * self._batch_size / images_per_s
            figures += f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
        done = position * self._batch_size
        if self._bar.disable:
            print(f"{self._title}: {done}/{self.steps * self._batch_size} pictures, {figures}", flush=True)
        else:
            self._bar.n = done
            self._bar.set_postfix_str(figures, refresh=True)

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()


class Clock:
    """Times the steps of an epoch from now on, but for the calls that compile: the first of each length in a run."""

    def __init__(self, batch_size: int, position: int, compiled: set[int]) -> None:
        """`position` is the number of the epoch's steps that are done already; the run adds lengths to `compiled`."""
        self._batch_size, self._compiled = batch_size, compiled
        self._begun = self._done = position
        self._wait = self._waited = 0.0  # for the last call, and for all
        self._start = self._end = time.perf_counter()

    def wait_for(self, calls: Iterator[Batch]) -> Batch:
        """The next call's batches; the time that they take to come counts as waiting."""
        before = time.perf_counter()
        batches = next(calls)
        self._wait = time.perf_counter() - before
        self._waited += self._wait
        return batches

    def compiles(self, batches: Batch) -> bool:
        """Whether the call of these batches is the run's first of its length."""
        if (length := len(batches.mask)) in self._compiled:
            return False
        self._compiled.add(length)
        return True

    def tick(self, position: int, counts: bool = True) -> None:
        """The epoch's steps up to `position` are done; those since the last tick are left out unless they count."""
        now = time.perf_counter()
        if not counts:  # nor does the wait for it
            self._start += now - self._end + self._wait
            self._waited -= self._wait
            self._begun += position - self._done
        self._done, self._end = position, now

    def images_per_s(self) -> float:
        """Of this epoch, over all processes; 0 before a call that counts."""
        return (self._done - self._begun) * self._batch_size / max(self._end - self._start, 1e-9)

    def waiting_share(self) -> float:
        """The share of the time that went by waiting for data, 0..1."""
        return self._waited / max(self._end - self._start, 1e-9)
