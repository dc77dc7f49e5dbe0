"""The end of a run: after its last epoch, or after `train.patience` epochs without a better validation accuracy."""

from collections.abc import Sequence

from fer_jax.training.history import EpochRecord, best_record


def ending(history: Sequence[EpochRecord], epochs: int, patience: int) -> str:
    """Return "complete" or "stopped early" for `train.epochs` and `train.patience`; "" if epochs are left."""
    if history and patience and len(history) - best_record(history).epoch >= patience:
        return "stopped early"
    return "complete" if len(history) >= epochs else ""
