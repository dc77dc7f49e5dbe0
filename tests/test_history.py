"""The history of a run: its records, its best epoch, its end."""

import csv
import io
import json

import pytest
from safetensors import safe_open

from fer_jax.core import shipped
from fer_jax.training.early_stopping import ending
from fer_jax.training.history import (
    SCALARS,
    EpochRecord,
    as_csv,
    as_json,
    best_record,
    from_json,
    train_minutes,
)


def record(epoch: int, accuracy: float = 0.5, images_per_s: float = 0.0) -> EpochRecord:
    scalars = dict.fromkeys(SCALARS, 0.25) | {"accuracy": accuracy}
    return EpochRecord(epoch, 30 * epoch, scalars, scalars, learning_rate=0.1, images_per_s=images_per_s)


def history(*accuracies: float) -> list[EpochRecord]:
    return [record(epoch, accuracy) for epoch, accuracy in enumerate(accuracies, start=1)]


@pytest.mark.parametrize(("accuracies", "best"), [((0.5,), 1), ((0.5, 0.7, 0.6), 2), ((0.5, 0.7, 0.7), 2)])
def test_the_best_epoch_is_the_earlier_of_equals(accuracies: tuple[float, ...], best: int) -> None:
    assert best_record(history(*accuracies)).epoch == best


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
    # 3,000 images an epoch: 10 s, then an untimed epoch that counts as the mean, then 30 s
    records = [record(epoch, images_per_s=pace) for epoch, pace in ((1, 300.0), (2, 0.0), (3, 100.0))]
    assert train_minutes(records, batch_size=100) == pytest.approx(1.0)
    assert train_minutes(records[1:2], batch_size=100) is None


def test_records_come_back_from_json() -> None:
    records = history(0.5, 0.7)
    assert from_json(json.loads(json.dumps(as_json(records)))) == records


def test_the_records_of_a_shipped_network_are_read() -> None:
    with safe_open(shipped.networks()["base"] / "weights.safetensors", "np") as file:
        stored = json.loads(file.metadata()["training"])["history"]
    records = from_json(stored)
    assert [record.epoch for record in records] == list(range(1, len(stored) + 1))
    assert as_json(records) == stored


def test_an_older_record_without_later_fields_gets_their_defaults() -> None:
    stored = as_json(history(0.5))[0]
    older = {name: stored[name] for name in ("epoch", "step", "train", "valid", "learning_rate")}
    assert from_json([{**older, "field_of_a_later_version": 1}]) == history(0.5)


def test_the_csv_has_a_row_for_each_epoch_and_a_column_for_each_scalar() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(history(0.5, 0.7)))))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["valid_accuracy"]) for row in rows] == [0.5, 0.7]
    single = {"epoch", "step", "learning_rate", "grad_norm", "images_per_s", "data_wait"}
    assert set(rows[0]) == single | {f"{split}_{name}" for split in ("train", "valid") for name in SCALARS}
