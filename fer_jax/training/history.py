"""The epochs of a run: a record of each, kept with its checkpoints and written to its history.csv."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SCALARS = ("loss", "accuracy", "precision", "recall", "f1", "macro_f1")  # of each split; see metrics.summary


class EpochRecord(NamedTuple):
    """The metrics of one epoch."""

    epoch: int  # from 1
    step: int  # after the epoch
    train: Mapping[str, float]  # SCALARS, as seen in training
    valid: Mapping[str, float]  # SCALARS
    learning_rate: float  # of the last step
    grad_norm: float = 0.0  # mean over the steps
    images_per_s: float = 0.0  # 0 where nothing was timed
    data_wait: float = 0.0  # fraction of the time spent waiting for data, 0..1


def from_json(records: Sequence[Mapping[str, Any]]) -> list[EpochRecord]:
    """The records that `as_json` made, in this or an older version."""
    return [EpochRecord(**{name: record[name] for name in EpochRecord._fields if name in record}) for record in records]


def as_json(history: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """The records as plain dicts."""
    return [record._asdict() for record in history]


def as_csv(history: Sequence[EpochRecord]) -> str:
    """One row an epoch; the scalars of the splits are columns such as train_loss and valid_accuracy."""
    file = io.StringIO()
    single = [name for name in EpochRecord._fields if name not in ("train", "valid")]
    splits = [(split, name) for split in ("train", "valid") for name in SCALARS]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*single, *(f"{split}_{name}" for split, name in splits)])
    for record in history:
        values = [getattr(record, split).get(name, "") for split, name in splits]
        writer.writerow([*(getattr(record, name) for name in single), *values])
    return file.getvalue()


def best_record(history: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch of the best validation accuracy, the earlier of equals: the one whose checkpoint is kept."""
    return max(history, key=lambda record: (record.valid["accuracy"], -record.epoch))


def ending(history: Sequence[EpochRecord], epochs: int, patience: int) -> str:
    """The way in which a run with that `train.epochs` and `train.patience` has ended; "" where epochs are left."""
    if history and patience and len(history) - best_record(history).epoch >= patience:
        return "stopped early"
    return "complete" if len(history) >= epochs else ""


def train_minutes(history: Sequence[EpochRecord], batch_size: int) -> float | None:
    """Minutes that the epochs of a run took, steps and data alone; None where none of them was timed.

    The first epoch has no time where all of its calls compiled: it counts as much as the others.
    """
    images = batch_size * history[-1].step / len(history)
    seconds = [images / record.images_per_s for record in history if record.images_per_s]
    return statistics.fmean(seconds) * len(history) / 60 if seconds else None
