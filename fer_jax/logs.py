"""What a run tells: TensorBoard events in its folder, a progress bar or plain lines on the terminal."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams
from tqdm import tqdm

from fer_jax import config as config_lib
from fer_jax.loader import Batch

SCALARS = ("loss", "accuracy", "precision", "recall", "f1", "macro_f1")
LINE_EVERY_S = 30.0
PICTURE_EVERY_S = 30.0  # drawing one takes most of a second, in which a GPU trains three epochs


class EventLog:
    """The TensorBoard event file of a run; silent where `active` is False (all processes but the first)."""

    def __init__(self, run: Path, start_step: int, active: bool) -> None:
        # purge_step: what an interrupted run had logged beyond its checkpoint disappears from the plots.
        self._writer = SummaryWriter(str(run), purge_step=start_step + 1, write_to_disk=active)
        self._drawn = -math.inf  # when
        self._undrawn: tuple[np.ndarray, int] | None = None

    def start(self, config: ConfigDict, samples: np.ndarray) -> None:
        """The config as a table, and a picture u8[H, W] of augmented training samples."""
        rows = [f"| {name} | {value!r} |" for name, value in config_lib.flatten(config.to_dict()).items()]
        self._writer.add_text("config", "\n".join(["| field | value |", "| --- | --- |", *rows]), 0)
        self._writer.add_image("augmented", samples, 0, dataformats="HW")
        self._writer.flush()

    def epoch(self, record: dict[str, Any], confusion: np.ndarray) -> None:
        """The scalars of one epoch's record; of validation's confusion matrix a picture every 30 seconds."""
        step = record["step"]
        for split in ("train", "valid"):
            for name in SCALARS:
                self._writer.add_scalar(f"{split}/{name}", record[split][name], step)
        for name in ("learning_rate", "grad_norm", "images_per_s", "data_wait"):
            self._writer.add_scalar(f"progress/{name}", record[name], step)
        self._undrawn = confusion, step
        if time.monotonic() > self._drawn + PICTURE_EVERY_S:
            self._draw()
        self._writer.flush()

    def _draw(self) -> None:
        if not self._undrawn:
            return
        from fer_jax import figures  # matplotlib takes a second to import, and the first step need not wait for it

        confusion, step = self._undrawn
        figure = figures.confusion(confusion, f"validation, step {step}")
        self._writer.add_image("valid/confusion_matrix", figures.pixels(figure), step, dataformats="HWC")
        self._undrawn, self._drawn = None, time.monotonic()

    def finish(self, config: ConfigDict, best: Mapping[str, Any]) -> None:
        """The HParams summary: every config field with the best epoch's validation figures."""
        fields = config_lib.flatten(config.to_dict())
        plain = {name: v if isinstance(v, (bool, int, float, str)) else repr(v) for name, v in fields.items()}
        reached = {f"best/{name}": best["valid"][name] for name in SCALARS}
        for summary in hparams(plain, reached):
            self._writer.file_writer.add_summary(summary)
        for name, value in reached.items():
            self._writer.add_scalar(name, value, best["step"])

    def close(self) -> None:
        """Write what is left, the last epoch's picture too."""
        self._draw()
        self._writer.close()


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
