"""The progress of an epoch on the terminal, and the speed that is measured."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from fer_jax.data.batching import Batch
from fer_jax.training import metrics as metrics_lib
from fer_jax.training import progress as progress_lib
from fer_jax.training.epoch import train_steps
from fer_jax.training.progress import Clock, EpochProgress


@pytest.mark.parametrize(("steps", "first"), [((4, 4, 1), 1000 / 3), ((9,), 0.0), ((1,) * 9, 1000 / 3)])
def test_speed_and_waiting_are_those_of_whole_calls(
    monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...], first: float
) -> None:
    """Batches of 10 arrive after 10 ms, a step takes 20 ms on the device, and a new length compiles for a second."""
    now = 0.0
    monkeypatch.setattr(progress_lib.time, "perf_counter", lambda: now)

    def ready() -> Iterator[Batch]:
        nonlocal now
        for count in steps * 3:
            now += 0.01 * count
            yield Batch(None, None, np.ones((count, 10)), None)

    def step_function(state, totals, batches):
        nonlocal now
        now += 0.02 * len(batches.mask) + (0.0 if len(batches.mask) in called else 1.0)
        called.add(len(batches.mask))
        return state + len(batches.mask), totals

    called: set[int] = set()
    compiled: set[int] = set()
    calls, state, speeds = ready(), 0, []
    for _ in range(3):
        clock = Clock(10, 0, compiled)
        progress = EpochProgress("epoch", 9, 27, 10, active=False)
        state, _, _ = train_steps(state, metrics_lib.zeros(), 0, calls, step_function, lambda: "", clock, progress)
        speeds.append((clock.images_per_s(), clock.waiting_fraction()))
    assert state == 27
    np.testing.assert_allclose(speeds[1:], [(1000 / 3, 1 / 3)] * 2)
    assert speeds[0][0] == pytest.approx(first)


@pytest.mark.parametrize(
    ("after_s", "active", "printed"), [(0.0, True, "epoch 1/3: compiling\n"), (60.0, True, ""), (0.0, False, "")]
)
def test_a_long_compilation_gets_a_line_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after_s: float, active: bool, printed: str
) -> None:
    monkeypatch.setattr(progress_lib, "NOTE_AFTER_S", after_s)
    progress = EpochProgress("epoch 1/3", 9, 27, 10, active)
    output = ""
    with progress.note("compiling"):
        deadline = time.monotonic() + 10
        while len(output) < len(printed) and time.monotonic() < deadline:
            output += capsys.readouterr().out
    progress.close()
    assert output + capsys.readouterr().out == printed


def test_the_bar_of_a_terminal_shows_the_note_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = EpochProgress("epoch 1/3", 9, 27, 10, active=True)
    notes = []
    monkeypatch.setattr(progress._bar, "disable", False)
    monkeypatch.setattr(progress._bar, "set_postfix_str", lambda text, refresh: notes.append(text), raising=False)
    with progress.note("compiling"):
        assert notes == ["compiling"]


def test_metrics_and_the_time_left_are_a_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = EpochProgress("epoch 1/3", 9, 27, 10, active=True)
    progress.show(3, {"loss": 1.5, "accuracy": 0.25}, images_per_s=2.0)
    assert capsys.readouterr().out == "epoch 1/3: 30/90 images, loss 1.500, accuracy 25.0%, 2 images/s, 2 min left\n"
    progress.show(6, {"loss": 1.0, "accuracy": 0.5}, images_per_s=30.0)
    assert capsys.readouterr().out.endswith("30 images/s, 7 s left\n")
