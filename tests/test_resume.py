import json
import shutil
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fer_jax.core.errors import UserError
from fer_jax.core.runtime import stop_requests
from fer_jax.reporting.event_log import EventLog
from fer_jax.train import Ending, train
from fer_jax.training.checkpoint import Progress
from tests.small_runs import interrupt, quiet, restored, small_config


def without_speed(history):
    return [record._replace(images_per_s=0, data_wait=0) for record in history]


@pytest.mark.parametrize("everything_on", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_interrupted_inside_epochs_and_resumed_equals_uninterrupted(
    config, finished_run: Path, tmp_path: Path, everything_on: bool
) -> None:
    if everything_on:
        config.data.update(label_mode="probability", temperature=0.7, smoothing=0.1, balance=0.5, logit_adjustment=0.5)
        config.augment.update(recipe="strong", erase=0.5, mixup=0.2)
        finished_run = tmp_path / "whole"
        train(config, finished_run, quiet)
    steps = []
    for _ in range(2):
        # A signal between two epochs: the next step notices it, and the run saves inside the new epoch.
        assert train(config, tmp_path / "parts", interrupt(("epoch 1", "resuming"))) == Ending("interrupted", "SIGTERM")
        steps.append(restored(config, tmp_path / "parts").step)
    assert train(config, tmp_path / "parts", quiet) == Ending("complete")
    assert sorted(set(steps)) == steps
    once, parts = (restored(config, run) for run in (finished_run, tmp_path / "parts"))
    assert any(step % (once.step // 3) for step in steps)  # some were inside an epoch
    assert without_speed(once.progress.history) == without_speed(parts.progress.history)
    jax.tree.map(np.testing.assert_array_equal, once.tree, parts.tree)


@pytest.mark.slow
def test_ctrl_c_saves_too(config, tmp_path: Path) -> None:
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        interrupt(by=signal.SIGINT)(line)

    before = signal.getsignal(signal.SIGINT)
    assert train(config, tmp_path, listen) == Ending("interrupted", "SIGINT")
    assert lines[-1].startswith("SIGINT: saved at step ")
    assert restored(config, tmp_path).step >= 8
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_a_signal_after_the_last_step_is_returned(config, tmp_path: Path) -> None:
    config.train.epochs = 1
    assert train(config, tmp_path, interrupt()) == Ending("complete", "SIGTERM")
    assert train(config, tmp_path, interrupt()) == Ending("complete")  # nothing to do, nothing came
    config.train.epochs = 2
    pruned = train(config, tmp_path / "pruned", interrupt(), lambda record: True)
    assert pruned == Ending("pruned", "SIGTERM")


@pytest.mark.slow
def test_a_signal_while_the_last_plot_is_drawn_is_returned(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(log: EventLog) -> None:
        signal.raise_signal(signal.SIGINT)
        original(log)

    original, config.train.epochs = EventLog.close, 1
    monkeypatch.setattr(EventLog, "close", close)
    assert train(config, tmp_path, quiet) == Ending("complete", "SIGINT")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_closed_terminal_saves_too_unless_it_is_ignored() -> None:
    received = []
    before = signal.getsignal(signal.SIGHUP)
    for handler in (signal.SIG_DFL, signal.SIG_IGN):  # the second as nohup does
        signal.signal(signal.SIGHUP, handler)
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGHUP)
        received.append(stop())
        assert signal.getsignal(signal.SIGHUP) == handler
    signal.signal(signal.SIGHUP, before)
    assert received == ["SIGHUP", ""]


def test_a_signal_is_not_lost_if_an_error_ends_the_run() -> None:
    def fail(interrupted: bool) -> None:
        with stop_requests():
            if interrupted:
                signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt):
        fail(interrupted=True)
    with pytest.raises(ZeroDivisionError):
        fail(interrupted=False)


@pytest.mark.slow
def test_several_steps_a_call_are_resumed_inside_an_epoch(config, tmp_path: Path) -> None:
    config.augment.renderer = "device"
    config.train.update(steps_per_call=4, epochs=2)
    train(config, tmp_path / "whole", quiet)
    assert train(config, tmp_path / "parts", interrupt()) == Ending("interrupted", "SIGTERM")
    assert restored(config, tmp_path / "parts").step == 13  # nine steps an epoch: 4, 4, 1, 4
    assert train(config, tmp_path / "parts", quiet) == Ending("complete")
    once, parts = (restored(config, tmp_path / name) for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, once.tree, parts.tree)


def fewer(labels: list[str]) -> list[str]:
    return labels[:600]


def another_vote(labels: list[str]) -> list[str]:
    """The same images and votes, except that an image with ten votes for happiness has ten for sadness."""
    happy = next(row for row, line in enumerate(labels) if line.rstrip().endswith(",0,10,0,0,0,0,0,0,0,0"))
    return [*labels[:happy], labels[happy].replace(",0,10,0,0,0,", ",0,0,0,10,0,"), *labels[happy + 1 :]]


@pytest.fixture(scope="module")
def interrupted(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An interrupted run and its data folder."""
    folder = tmp_path_factory.mktemp("interrupted")
    shutil.copytree(sample_dir, folder / "data")
    assert train(small_config(folder / "data"), folder / "run", interrupt()) == Ending("interrupted", "SIGTERM")
    return folder / "run", folder / "data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "change"), [("FER2013Train", fewer), ("FER2013Train", another_vote), ("FER2013Valid", another_vote)]
)
def test_a_run_is_not_resumed_on_changed_data(interrupted: tuple[Path, Path], folder: str, change) -> None:
    run, data = interrupted
    labels = data / folder / "label.csv"
    text = labels.read_text()
    labels.write_text("".join(change(text.splitlines(keepends=True))))
    try:
        with pytest.raises(UserError, match="has changed since"):
            train(small_config(data), run, quiet)
    finally:
        labels.write_text(text)


@pytest.mark.slow
def test_a_run_without_a_digest_and_code_versions_is_resumed(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older_fields(progress: Progress) -> dict:
        return {name: value for name, value in fields(progress).items() if name not in ("pictures", "code")}

    fields, config.train.epochs = Progress._asdict, 2
    monkeypatch.setattr(Progress, "_asdict", older_fields)
    assert train(config, tmp_path, interrupt()) == Ending("interrupted", "SIGTERM")
    assert train(config, tmp_path, quiet) == Ending("complete")


@pytest.mark.slow
def test_a_config_without_a_checkpoint_is_replaced(config, tmp_path: Path) -> None:
    config.train.epochs = 1
    (tmp_path / "config.json").write_text('{"seed": 7}')
    assert train(config, tmp_path, quiet) == Ending("complete")
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == config.seed


def test_a_folder_of_another_config_is_refused(config, finished_run: Path) -> None:
    config.optim.learning_rate = 0.5
    with pytest.raises(UserError, match=r"optim\.learning_rate: 0\.003 there, 0\.5 now"):
        train(config, finished_run, quiet)
