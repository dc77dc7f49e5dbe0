"""The TensorBoard events of a run."""

import math
import time
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from fer_jax.core import config as config_lib
from fer_jax.training.history import SCALARS, EpochRecord

IMAGE_EVERY_S = 30.0  # drawing one takes most of a second, in which a GPU trains three epochs


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

    def epoch(self, record: EpochRecord, confusion: np.ndarray) -> None:
        """The scalars of one epoch's record; of validation's confusion matrix a picture every 30 seconds."""
        step = record.step
        for split in ("train", "valid"):
            for name in SCALARS:
                self._writer.add_scalar(f"{split}/{name}", getattr(record, split)[name], step)
        for name in ("learning_rate", "grad_norm", "images_per_s", "data_wait"):
            self._writer.add_scalar(f"progress/{name}", getattr(record, name), step)
        self._undrawn = confusion, step
        if time.monotonic() > self._drawn + IMAGE_EVERY_S:
            self._draw()
        self._writer.flush()

    def _draw(self) -> None:
        if not self._undrawn:
            return
        from fer_jax.reporting import plots

        confusion, step = self._undrawn
        figure = plots.confusion(confusion, f"validation, step {step}")
        self._writer.add_image("valid/confusion_matrix", plots.pixels(figure), step, dataformats="HWC")
        self._undrawn, self._drawn = None, time.monotonic()

    def finish(self, config: ConfigDict, best: EpochRecord) -> None:
        """The HParams summary: every config field with the best epoch's validation figures."""
        fields = config_lib.flatten(config.to_dict())
        plain = {name: v if isinstance(v, (bool, int, float, str)) else repr(v) for name, v in fields.items()}
        reached = {f"best/{name}": best.valid[name] for name in SCALARS}
        for summary in hparams(plain, reached):
            self._writer.file_writer.add_summary(summary)
        for name, value in reached.items():
            self._writer.add_scalar(name, value, best.step)

    def close(self) -> None:
        """Write what is left, the last epoch's picture too."""
        self._draw()
        self._writer.close()
