"""The TensorBoard events of a run.

TensorBoard draws curves of different folders in one chart if they have the same tag. So the curves that people look at
first are also written to the subfolders `train` and `valid`.

Each folder has one event file. A start writes it again from the history of the checkpoint: each step of a tag is in it
once, whenever an earlier process was killed. Images, texts and the times of scalars are taken from the old file.
"""

import math
import platform
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from fer_jax.core import atomic
from fer_jax.core import config as config_lib
from fer_jax.data import augment
from fer_jax.data.selection import Images
from fer_jax.training.history import SCALARS, EpochRecord

IMAGE_EVERY_S = 30.0  # drawing one takes most of a second; a GPU trains three epochs in that time
SPLITS = ("train", "valid")
CURVES = ("loss", "accuracy", "macro_f1")  # with a chart for both splits
PROGRESS = ("learning_rate", "grad_norm", "images_per_s", "data_wait")

PLOT = "valid/confusion_matrix"
Scalars = Callable[[EpochRecord], Summary]  # of an epoch


class EventLog:
    """The TensorBoard event files of a run; silent if `active` is False (all processes except the first)."""

    def __init__(self, run: Path, history: Sequence[EpochRecord], active: bool) -> None:
        """Write the event files again, with the epochs of the history; a process may have been killed before it did."""
        self._last_drawn_s = -math.inf
        self._undrawn: tuple[np.ndarray, int] | None = None
        self._files: dict[str, _EventFile] = {}  # by the subfolder
        if active:
            contents: dict[str, Scalars] = {"": _scalars} | {split: partial(_curves, split=split) for split in SPLITS}
            self._files = {name: _EventFile(run / name, history, scalars) for name, scalars in contents.items()}

    def start(self, config: ConfigDict, images: Images) -> None:
        """Log the config as a table, and augmented versions of the first training images, u8[N, H, W]."""
        if not self._files:
            return
        file = self._files[""]
        if ("config/text_summary", 0) not in file.kept:
            rows = [f"| {name} | {value!r} |" for name, value in config_lib.flatten(config.to_dict()).items()]
            file.write(0, summary.text("config", "\n".join(["| field | value |", "| --- | --- |", *rows])))
        if ("augmented", 0) not in file.kept:
            file.write(0, summary.image("augmented", _augmented(images, config), dataformats="HW"))

    def epoch(self, record: EpochRecord, confusion: np.ndarray) -> None:
        """Log the scalars of one epoch, and every 30 seconds a plot of validation's confusion matrix."""
        for file in self._files.values():
            file.epoch(record)
        self._undrawn = confusion, record.step
        if time.monotonic() > self._last_drawn_s + IMAGE_EVERY_S:
            self._draw_last()

    def is_drawn(self, step: int) -> bool:
        """True if the plot of this step's confusion matrix was in the event file of an earlier process."""
        return bool(self._files) and (PLOT, step) in self._files[""].kept

    def draw(self, confusion: np.ndarray, step: int) -> None:
        """Log a plot of validation's confusion matrix."""
        if not self._files:
            return
        from fer_jax.reporting import plots  # loads matplotlib: not before the first epoch has ended

        pixels = plots.pixels(plots.confusion(confusion, f"validation, step {step}"))
        self._files[""].write(step, summary.image(PLOT, pixels, dataformats="HWC"))

    def _draw_last(self) -> None:
        if self._undrawn:
            self.draw(*self._undrawn)
            self._undrawn, self._last_drawn_s = None, time.monotonic()

    def finish(self, config: ConfigDict, best: EpochRecord) -> None:
        """Log the HParams summary: every config field with the best epoch's validation metrics."""
        if not self._files:
            return
        fields = config_lib.flatten(config.to_dict())
        plain = {name: v if isinstance(v, (bool, int, float, str)) else repr(v) for name, v in fields.items()}
        metrics = {f"best/{name}": best.valid[name] for name in SCALARS}
        self._files[""].write(0, *summary.hparams(plain, metrics))
        self._files[""].write(best.step, *(summary.scalar(name, value) for name, value in metrics.items()))

    def close(self) -> None:
        """Write what is left, the last epoch's confusion matrix."""
        self._draw_last()


class _EventFile:
    """The event file of a folder. What `write` gets is in the file when it returns."""

    def __init__(self, folder: Path, history: Sequence[EpochRecord], scalars: Scalars) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        old = sorted(folder.glob("events.out.tfevents.*"))
        steps = {record.step for record in history}
        events = [event for path in old for event in _read(path)] if history else []
        times = {event.step: event.wall_time for event in events if event.step in steps}
        kept = {(tag, event.step): event for event in events if event.step in {0, *steps} for tag in _media(event)}
        self._scalars = scalars
        self._path = folder / f"events.out.tfevents.{time.time():017.6f}.{platform.node()}"
        self.kept = kept.keys()  # tag and step of the images and texts
        with atomic.replacing(self._path) as path, open(path, "wb") as file:
            file.write(_as_record(Event(wall_time=time.time(), file_version="brain.Event:2")))
            # A TensorBoard that is running drops what it has read from the old file.
            file.write(_as_record(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))))
            for event in sorted(kept.values(), key=lambda event: event.step):
                file.write(_as_record(event))
            for record in history:
                file.write(_as_event(record.step, scalars(record), times.get(record.step)))
        for path in [*old, *folder.glob(".events.out.tfevents.*")]:  # a process may have been killed in these lines
            path.unlink(missing_ok=True)

    def epoch(self, record: EpochRecord) -> None:
        self.write(record.step, self._scalars(record))

    def write(self, step: int, *summaries: Summary) -> None:
        with open(self._path, "ab") as file:
            file.write(b"".join(_as_event(step, values) for values in summaries))


def _scalars(record: EpochRecord) -> Summary:
    splits = {f"{split}/{name}": getattr(record, split).get(name) for split in SPLITS for name in SCALARS}
    return _summary({**splits, **{f"progress/{name}": getattr(record, name) for name in PROGRESS}})


def _curves(record: EpochRecord, split: str) -> Summary:
    # TensorBoard sorts capitals first
    return _summary({f"Curves/{name}": getattr(record, split).get(name) for name in CURVES})


def _summary(values: Mapping[str, float | None]) -> Summary:
    """The scalars, except those that the history of an older version lacks."""
    scalars = [summary.scalar(name, value) for name, value in values.items() if value is not None]
    return Summary(value=[scalar.value[0] for scalar in scalars])


def _media(event: Event) -> list[str]:
    """The tags of images and texts of the event; HParams and scalars are written again."""
    return [
        value.tag
        for value in event.summary.value
        if value.HasField("image") or (value.HasField("tensor") and not value.tag.startswith("_hparams_"))
    ]


def _as_event(step: int, values: Summary, wall_time: float | None = None) -> bytes:
    return _as_record(Event(wall_time=wall_time or time.time(), step=step, summary=values))


def _as_record(event: Event) -> bytes:
    """The event in the format of TensorFlow's record files: length, its checksum, content, its checksum."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
    return length + checksums[0] + content + checksums[1]


def _read(path: Path) -> Iterator[Event]:
    """Yield the events of a file up to the first damaged one, which a killed process may leave at its end."""
    content, start = path.read_bytes(), 0
    while start + 16 <= len(content):
        length = int.from_bytes(content[start : start + 8], "little")
        if int.from_bytes(content[start + 8 : start + 12], "little") != masked_crc32c(content[start : start + 8]):
            return
        end = start + 12 + length
        if end + 4 > len(content):
            return
        try:
            yield Event.FromString(content[start + 12 : end])
        except Exception:  # protobuf's DecodeError
            return
        start = end + 4


def _augmented(images: Images, config: ConfigDict) -> np.ndarray:
    """A grid u8[H, W] of the first eight images: each unchanged, and in seven versions of the first epochs."""
    size, normalize, fields = config.image.size, config.image.normalize, config.augment
    count = min(8, len(images))
    repeated = np.repeat(images[:count], 8, axis=0)
    rng = np.random.default_rng((config.seed, 0, 0, 4))  # a separate stream: see ORDER in fer_jax.data.batching
    params = augment.sample(rng, len(repeated), fields.recipe, size, fields.erase)
    draw = partial(augment.render, size=size, normalize=normalize)
    grid = draw(repeated, params)
    grid[::8] = draw(repeated[::8], augment.identity(count, size))
    return augment.grid(grid, columns=8)
