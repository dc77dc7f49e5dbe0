"""What a run remembers of its past epochs: a record of each, kept with its checkpoints.

A record has `epoch` (from 1), `step` (after it), `train` and `valid` (the scalars of `fer_jax.logs.SCALARS`),
`learning_rate`, `grad_norm`, `images_per_s` (0 where nothing was timed) and `data_wait` (a share, 0..1).
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def best_record(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The epoch of the best validation accuracy, the earlier of equals: the one whose checkpoint is kept."""
    return max(history, key=lambda record: (record["valid"]["accuracy"], -record["epoch"]))


def ending(history: Sequence[Mapping[str, Any]], epochs: int, patience: int) -> str:
    """How a run with that `train.epochs` and `train.patience` has ended; "" where there is something left to train."""
    if history and patience and len(history) - best_record(history)["epoch"] >= patience:
        return "stopped early"
    return "complete" if len(history) >= epochs else ""


def train_minutes(history: Sequence[Mapping[str, Any]], batch_size: int) -> float | None:
    """Minutes that the epochs of a run took, steps and data alone; None where none of them was timed.

    The first epoch is not where all of its calls compiled: it counts as much as the others.
    """
    pictures = batch_size * history[-1]["step"] / len(history)
    seconds = [pictures / record["images_per_s"] for record in history if record["images_per_s"]]
    return statistics.fmean(seconds) * len(history) / 60 if seconds else None
