"""What a run tells: TensorBoard events in its folder, a progress bar or plain lines on the terminal."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams
from tqdm import tqdm

from fer_jax import config as config_lib
from fer_jax import report

SCALARS = ("loss", "accuracy", "precision", "recall", "f1", "macro_f1")
LINE_EVERY_S = 30.0


class EventLog:
    """The TensorBoard event file of a run; silent where `active` is False (all processes but the first)."""

    def __init__(self, run: Path, start_step: int, active: bool) -> None:
        # purge_step: what an interrupted run had logged beyond its checkpoint disappears from the plots.
        self._writer = SummaryWriter(str(run), purge_step=start_step + 1, write_to_disk=active)

    def start(self, config: ConfigDict, samples: np.ndarray) -> None:
        """The config as a table, and a picture u8[H, W] of augmented training samples."""
        rows = [f"| {name} | {value!r} |" for name, value in config_lib.flatten(config.to_dict()).items()]
        self._writer.add_text("config", "\n".join(["| field | value |", "| --- | --- |", *rows]), 0)
        self._writer.add_image("augmented", samples, 0, dataformats="HW")
        self._writer.flush()

    def epoch(self, record: dict[str, Any], confusion: np.ndarray) -> None:
        """The scalars of one epoch's record and the picture of validation's confusion matrix."""
        step = record["step"]
        for split in ("train", "valid"):
            for name in SCALARS:
                self._writer.add_scalar(f"{split}/{name}", record[split][name], step)
        for name in ("learning_rate", "grad_norm", "images_per_s", "data_wait"):
            self._writer.add_scalar(f"progress/{name}", record[name], step)
        figure = report.confusion_figure(confusion, f"validation, step {step}")
        self._writer.add_image("valid/confusion_matrix", report.pixels(figure), step, dataformats="HWC")
        self._writer.flush()

    def finish(self, config: ConfigDict, best: dict[str, Any]) -> None:
        """The HParams summary: every config field with the best epoch's validation figures."""
        fields = config_lib.flatten(config.to_dict())
        plain = {name: v if isinstance(v, (bool, int, float, str)) else repr(v) for name, v in fields.items()}
        figures = {f"best/{name}": best["valid"][name] for name in SCALARS}
        for summary in hparams(plain, figures):
            self._writer.file_writer.add_summary(summary)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, best["step"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class EpochProgress:
    """How far an epoch is: a bar on a terminal, elsewhere a line every 30 seconds."""

    def __init__(self, title: str, images: int, done: int, active: bool) -> None:
        self._title, self._images = title, images
        self._lines = active and not sys.stderr.isatty()
        self._next_line = time.monotonic() + LINE_EVERY_S
        self._bar = tqdm(
            total=images,
            initial=done,
            desc=title,
            unit="img",
            unit_scale=True,
            leave=False,
            disable=None if active else True,
            dynamic_ncols=True,
        )

    def due(self) -> bool:
        """Whether figures would be shown now; asking for them costs a synchronisation with the device."""
        if self._lines:
            return time.monotonic() > self._next_line
        return not self._bar.disable and time.monotonic() > self._bar.last_print_t + self._bar.mininterval

    def advance(self, images: int) -> None:
        """Count pictures as trained on."""
        self._bar.n += images

    def show(self, done: int, loss: float, accuracy: float, images_per_s: float, seconds_left: float) -> None:
        """Figures of the epoch so far, and the time that the whole run may still take."""
        left = f"{seconds_left / 60:.0f} min" if seconds_left >= 90 else f"{seconds_left:.0f} s"
        text = f"loss {loss:.4f}, accuracy {accuracy:.2%}, run done in {left}"
        if self._lines:
            self._next_line = time.monotonic() + LINE_EVERY_S
            print(f"{self._title}: {done}/{self._images} pictures, {text}, {images_per_s:.0f} images/s", flush=True)
        else:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.refresh()
            self._bar.last_print_t = time.monotonic()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()
