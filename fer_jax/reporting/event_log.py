"""The TensorBoard events of a run.

TensorBoard draws curves of different folders in one chart if they have the same tag. So the curves that people look at
first are also written to the subfolders `train` and `valid`.
"""

import math
import time
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from fer_jax.core import config as config_lib
from fer_jax.data import augment
from fer_jax.data.batching import Render
from fer_jax.training.history import SCALARS, EpochRecord

IMAGE_EVERY_S = 30.0  # drawing one takes most of a second; a GPU trains three epochs in that time
SPLITS = ("train", "valid")
CURVES = ("loss", "accuracy", "macro_f1")  # with a chart for both splits


class EventLog:
    """The TensorBoard event files of a run; silent if `active` is False (all processes except the first)."""

    def __init__(self, run: Path, start_step: int, active: bool) -> None:
        def writer(folder: Path) -> SummaryWriter:
            # purge_step: events that an interrupted run logged after its checkpoint disappear from the plots.
            return SummaryWriter(str(folder), purge_step=start_step + 1, write_to_disk=active)

        self._writer = writer(run)
        self._curves = {split: writer(run / split) for split in SPLITS}
        self._last_drawn_s = -math.inf
        self._undrawn: tuple[np.ndarray, int] | None = None

    def start(self, config: ConfigDict, images: np.ndarray, render: Render) -> None:
        """Log the config as a table, and augmented versions of the first training images, u8[N, H, W]."""
        rows = [f"| {name} | {value!r} |" for name, value in config_lib.flatten(config.to_dict()).items()]
        self._writer.add_text("config", "\n".join(["| field | value |", "| --- | --- |", *rows]), 0)
        self._writer.add_image("augmented", _augmented(images, render, config.seed), 0, dataformats="HW")
        self._writer.flush()

    def epoch(self, record: EpochRecord, confusion: np.ndarray) -> None:
        """Log the scalars of one epoch, and every 30 seconds a plot of validation's confusion matrix."""
        step = record.step
        for split in SPLITS:
            scalars = getattr(record, split)
            for name in SCALARS:
                self._writer.add_scalar(f"{split}/{name}", scalars[name], step)
            for name in CURVES:
                self._curves[split].add_scalar(
                    f"Curves/{name}", scalars[name], step
                )  # TensorBoard sorts capitals first
        for name in ("learning_rate", "grad_norm", "images_per_s", "data_wait"):
            self._writer.add_scalar(f"progress/{name}", getattr(record, name), step)
        self._undrawn = confusion, step
        if time.monotonic() > self._last_drawn_s + IMAGE_EVERY_S:
            self._draw()
        for writer in (self._writer, *self._curves.values()):
            writer.flush()

    def _draw(self) -> None:
        if not self._undrawn:
            return
        from fer_jax.reporting import plots  # loads matplotlib: not before the first epoch has ended

        confusion, step = self._undrawn
        figure = plots.confusion(confusion, f"validation, step {step}")
        self._writer.add_image("valid/confusion_matrix", plots.pixels(figure), step, dataformats="HWC")
        self._undrawn, self._last_drawn_s = None, time.monotonic()

    def finish(self, config: ConfigDict, best: EpochRecord) -> None:
        """Log the HParams summary: every config field with the best epoch's validation metrics."""
        fields = config_lib.flatten(config.to_dict())
        plain = {name: v if isinstance(v, (bool, int, float, str)) else repr(v) for name, v in fields.items()}
        metrics = {f"best/{name}": best.valid[name] for name in SCALARS}
        for summary in hparams(plain, metrics):
            self._writer.file_writer.add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, best.step)

    def close(self) -> None:
        """Write what is left, the last epoch's confusion matrix too."""
        self._draw()
        for writer in (self._writer, *self._curves.values()):
            writer.close()


def _augmented(images: np.ndarray, render: Render, seed: int) -> np.ndarray:
    """A grid u8[H, W] of the first eight images: each unchanged, and in seven augmented versions."""
    count = min(8, len(images))
    repeated = np.repeat(images[:count], 8, axis=0)
    rng = np.random.default_rng((seed, 0, 0, 4))  # a separate stream: see ORDER in fer_jax.data.batching
    params = augment.sample(rng, len(repeated), render.recipe, render.size, render.erase)
    draw = partial(augment.render, size=render.size, normalize=render.normalize)
    grid = draw(repeated, params)
    grid[::8] = draw(repeated[::8], augment.identity(count, render.size))
    return augment.grid(grid, columns=8)
