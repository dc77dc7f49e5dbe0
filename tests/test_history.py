"""What a run's records of its epochs say of it."""

import pytest

from fer_jax.training.history import best_record, ending, train_minutes


def history(*accuracies: float) -> list[dict]:
    return [{"epoch": epoch, "valid": {"accuracy": value}} for epoch, value in enumerate(accuracies, start=1)]


@pytest.mark.parametrize(("accuracies", "best"), [((0.5,), 1), ((0.5, 0.7, 0.6), 2), ((0.5, 0.7, 0.7), 2)])
def test_the_best_epoch_is_the_earlier_of_equals(accuracies: tuple[float, ...], best: int) -> None:
    assert best_record(history(*accuracies))["epoch"] == best


@pytest.mark.parametrize(
    ("accuracies", "epochs", "patience", "how"),
    [
        ((), 3, 2, ""),
        ((0.5, 0.6), 3, 0, ""),
        ((0.5, 0.6, 0.7), 3, 0, "complete"),
        ((0.5, 0.6, 0.6), 9, 2, ""),
        ((0.5, 0.6, 0.6, 0.5), 9, 2, "stopped early"),
        ((0.7, 0.6, 0.5), 3, 2, "stopped early"),
        ((0.7, 0.6, 0.5), 9, 0, ""),
    ],
)
def test_a_run_ends_with_its_epochs_or_its_patience(
    accuracies: tuple[float, ...], epochs: int, patience: int, how: str
) -> None:
    assert ending(history(*accuracies), epochs, patience) == how


def test_minutes_are_those_of_all_epochs_at_the_pace_of_the_timed_ones() -> None:
    # 3,000 pictures an epoch: 10 and 30 seconds, and one that was not timed counts as their mean
    records = [{"step": 30 * epoch, "images_per_s": pace} for epoch, pace in ((1, 300.0), (2, 0.0), (3, 100.0))]
    assert train_minutes(records, batch_size=100) == pytest.approx(1.0)
    assert train_minutes(records[1:2], batch_size=100) is None
