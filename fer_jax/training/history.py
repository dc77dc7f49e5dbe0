"""The history of a run: one record an epoch, stored in its checkpoints and in its history.csv."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SCALARS = ("loss", "accuracy", "precision", "recall", "f1", "macro_f1")  # for each split; see metrics.summary


class EpochRecord(NamedTuple):
    """The metrics of one epoch."""

    epoch: int  # from 1
    step: int  # after the epoch
    train: Mapping[str, float]  # SCALARS, over the augmented batches, with dropout
    valid: Mapping[str, float]  # SCALARS
    learning_rate: float  # of the last step
    grad_norm: float = 0.0  # mean over the steps
    images_per_s: float = 0.0  # 0 if nothing was timed
    data_wait: float = 0.0  # the fraction of the time spent waiting for data, 0..1


def from_json(records: Sequence[Mapping[str, Any]]) -> list[EpochRecord]:
    """Return the records of `as_json`, of this or an older version."""
    return [EpochRecord(**{name: record[name] for name in EpochRecord._fields if name in record}) for record in records]


def as_json(history: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """Return the records as plain dicts."""
    return [record._asdict() for record in history]


def as_csv(history: Sequence[EpochRecord]) -> str:
    """Return one row an epoch; the scalars of the splits are columns such as train_loss and valid_accuracy."""
    file = io.StringIO()
    plain = [name for name in EpochRecord._fields if name not in ("train", "valid")]
    scalars = [(split, name) for split in ("train", "valid") for name in SCALARS]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*plain, *(f"{split}_{name}" for split, name in scalars)])
    for record in history:
        values = [getattr(record, split).get(name, "") for split, name in scalars]
        writer.writerow([*(getattr(record, name) for name in plain), *values])
    return file.getvalue()


def best_record(history: Sequence[EpochRecord]) -> EpochRecord:
    """Return the epoch with the best validation accuracy, the earlier of equals. Its checkpoint is kept."""
    return max(history, key=lambda record: (record.valid["accuracy"], -record.epoch))


def train_minutes(history: Sequence[EpochRecord], batch_size: int) -> float | None:
    """Return the minutes of all epochs, steps and data alone; None if no epoch was timed.

    An epoch without a time (the first, if all of its calls compiled) counts as the mean of the others.
    """
    images = batch_size * history[-1].step / len(history)
    seconds = [images / record.images_per_s for record in history if record.images_per_s]
    return statistics.fmean(seconds) * len(history) / 60 if seconds else None
