"""What the event log keeps of a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer_jax import logs
from fer_jax.reporting import plots

TAG = "valid/confusion_matrix"


def counted(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).integers(0, 9, (8, 8))


def record(epoch: int) -> dict:
    scalars = dict.fromkeys(logs.SCALARS, 0.5)
    progress = {"learning_rate": 0.1, "grad_norm": 1.0, "images_per_s": 9.0, "data_wait": 0.0}
    return {"epoch": epoch, "step": 4 * epoch, "train": scalars, "valid": scalars, **progress}


def read(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run), {"images": 0, "scalars": 0}).Reload()  # all of them, where few are the default


@pytest.mark.parametrize(
    ("seconds", "drawn"), [(0.5, [1, 5]), (10.0, [1, 5]), (11.0, [1, 4, 5]), (31.0, [1, 2, 3, 4, 5])]
)
def test_confusion_is_drawn_every_half_minute_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, drawn: list[int]
) -> None:
    now = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    events = logs.EventLog(tmp_path, 0, active=True)
    for epoch in range(1, 6):
        events.epoch(record(epoch), counted(epoch))
        now += seconds
    events.close()
    found = read(tmp_path)
    assert [event.step for event in found.Images(TAG)] == [4 * epoch for epoch in drawn]
    assert [event.step for event in found.Scalars("valid/loss")] == [4, 8, 12, 16, 20]  # those come every epoch


def test_close_writes_the_last_epochs_picture(tmp_path: Path) -> None:
    events = logs.EventLog(tmp_path, 0, active=True)
    for epoch in (1, 2, 3):  # in quick succession, by the real clock
        events.epoch(record(epoch), counted(epoch))
    events.close()
    pictures = read(tmp_path).Images(TAG)
    assert [event.step for event in pictures] == [4, 12]
    for epoch, event in zip((1, 3), pictures, strict=True):
        path = tmp_path / "picture.png"
        path.write_bytes(event.encoded_image_string)
        expected = plots.pixels(plots.confusion(counted(epoch), f"validation, step {4 * epoch}"))
        np.testing.assert_array_equal(np.asarray(Image.open(path))[..., :3], expected[..., :3])


def test_a_silent_log_writes_nothing(tmp_path: Path) -> None:
    events = logs.EventLog(tmp_path, 0, active=False)
    events.epoch(record(1), counted(1))
    events.close()
    assert list(tmp_path.iterdir()) == []
