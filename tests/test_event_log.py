"""The TensorBoard events of a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer_jax.reporting import event_log, plots
from fer_jax.training.history import SCALARS, EpochRecord

TAG = "valid/confusion_matrix"


def confusion(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).integers(0, 9, (8, 8))


def record(epoch: int) -> EpochRecord:
    train, valid = (dict.fromkeys(SCALARS, split + epoch / 10) for split in (0, 1))
    return EpochRecord(epoch, 4 * epoch, train, valid, learning_rate=0.1, grad_norm=1.0, images_per_s=9.0)


def read(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run), {"images": 0, "scalars": 0}).Reload()  # 0: all of them; few are the default


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "drawn"), [(10.0, [1, 5]), (15.5, [1, 3, 5])])
def test_confusion_is_drawn_every_half_minute_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, drawn: list[int]
) -> None:
    now = 0.0
    monkeypatch.setattr(event_log.time, "monotonic", lambda: now)
    events = event_log.EventLog(tmp_path, [], active=True)
    for epoch in range(1, 6):
        events.epoch(record(epoch), confusion(epoch))
        now += seconds
    events.close()
    logged = read(tmp_path)
    assert [event.step for event in logged.Images(TAG)] == [4 * epoch for epoch in drawn]
    assert [event.step for event in logged.Scalars("valid/loss")] == [4, 8, 12, 16, 20]  # every epoch


def test_close_draws_the_last_epoch(tmp_path: Path) -> None:
    events = event_log.EventLog(tmp_path, [], active=True)
    for epoch in (1, 2, 3):  # in quick succession, by the real clock
        events.epoch(record(epoch), confusion(epoch))
    events.close()
    images = read(tmp_path).Images(TAG)
    assert [event.step for event in images] == [4, 12]
    for epoch, event in zip((1, 3), images, strict=True):
        path = tmp_path / "image.png"
        path.write_bytes(event.encoded_image_string)
        expected = plots.pixels(plots.confusion(confusion(epoch), f"validation, step {4 * epoch}"))
        np.testing.assert_array_equal(np.asarray(Image.open(path))[..., :3], expected[..., :3])


def test_train_and_valid_share_the_charts_that_come_first(tmp_path: Path) -> None:
    """TensorBoard draws equal tags of several folders in one chart, and sorts groups of tags by their names."""
    events = event_log.EventLog(tmp_path, [], active=True)
    events.epoch(record(1), confusion(1))
    events.close()
    run, train, valid = (read(tmp_path / folder) for folder in (".", "train", "valid"))
    curves = ["Curves/accuracy", "Curves/loss", "Curves/macro_f1"]
    assert sorted(train.Tags()["scalars"]) == sorted(valid.Tags()["scalars"]) == curves
    assert min(run.Tags()["scalars"] + run.Tags()["images"]) > max(curves)
    assert [event.value for split in (train, valid) for event in split.Scalars("Curves/loss")] == pytest.approx(
        [0.1, 1.1]
    )


@pytest.mark.slow
def test_a_resumed_run_replaces_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    for history, epochs in (([], (1, 2, 3)), ([record(1)], (2,))):
        events = event_log.EventLog(tmp_path, history, active=True)
        for epoch in epochs:
            events.epoch(record(epoch), confusion(epoch))
        events.close()
    for folder, tag in ((".", "train/loss"), ("train", "Curves/loss"), ("valid", "Curves/loss")):
        assert [event.step for event in read(tmp_path / folder).Scalars(tag)] == [4, 8]


def test_a_silent_log_writes_nothing(tmp_path: Path) -> None:
    events = event_log.EventLog(tmp_path, [], active=False)
    events.epoch(record(1), confusion(1))
    events.close()
    assert list(tmp_path.iterdir()) == []
