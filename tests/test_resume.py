import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from fer_jax.core.errors import UserError
from fer_jax.core.runtime import stop_requests
from fer_jax.data import training_set
from fer_jax.reporting.event_log import EventLog
from fer_jax.train import Ending, train
from tests.small_runs import interrupt, quiet, restored, small_config


def without_speed(history):
    return [record._replace(images_per_s=0, data_wait=0) for record in history]


def recorded(lines: list[str], listen: Callable[[str], None]) -> Callable[[str], None]:
    """A listener that also keeps the lines."""
    return lambda line: (lines.append(line), listen(line))[1]


def test_interrupted_inside_epochs_and_resumed_equals_uninterrupted(config, finished_run: Path, tmp_path: Path) -> None:
    run, steps, handler = tmp_path / "run", [], signal.getsignal(signal.SIGINT)
    # A signal between two epochs: the next step notices it, and the run saves inside the new epoch. Ctrl-C does so too.
    for begin, by, name in (("epoch 1", signal.SIGTERM, "SIGTERM"), ("resuming", signal.SIGINT, "SIGINT")):
        lines: list[str] = []
        assert train(config, run, recorded(lines, interrupt(begin, by))) == Ending("interrupted", name)
        steps.append(restored(config, run).step)
        assert lines[-1].startswith(f"{name}: saved at step {steps[-1]}; ")
    assert signal.getsignal(signal.SIGINT) is handler
    assert train(config, run, quiet) == Ending("complete")
    assert sorted(set(steps)) == steps
    assert_equal(config, finished_run, run, steps)


def assert_equal(config: ConfigDict, whole: Path, resumed: Path, steps: list[int]) -> None:
    """Compare an uninterrupted run with one that was interrupted after these steps, some of them inside an epoch."""
    once, parts = (restored(config, run) for run in (whole, resumed))
    assert any(step % once.progress.steps_per_epoch for step in steps)
    assert without_speed(once.progress.history) == without_speed(parts.progress.history)
    jax.tree.map(np.testing.assert_array_equal, once.tree, parts.tree)


@pytest.mark.slow
def test_with_everything_on_resumed_equals_uninterrupted_too(config, tmp_path: Path) -> None:
    config.data.update(label_mode="probability", temperature=0.7, smoothing=0.1, balance=0.5, logit_adjustment=0.5)
    config.augment.update(recipe="strong", erase=0.5, mixup=0.2, final_recipe="flip", final_epochs=1)
    config.train.epochs = 2
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(config, whole, quiet)
    assert train(config, run, interrupt()) == Ending("interrupted", "SIGTERM")
    steps = [restored(config, run).step]
    assert train(config, run, quiet) == Ending("complete")
    assert_equal(config, whole, run, steps)


@pytest.mark.slow
def test_a_signal_after_the_last_step_is_returned(config, tmp_path: Path) -> None:
    config.train.epochs = 1
    assert train(config, tmp_path, interrupt()) == Ending("complete", "SIGTERM")
    assert train(config, tmp_path, interrupt()) == Ending("complete")  # nothing to do, nothing came


@pytest.mark.slow
def test_a_signal_while_the_last_plot_of_a_pruned_run_is_drawn_is_returned(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(log: EventLog) -> None:
        signal.raise_signal(signal.SIGINT)
        original(log)

    original = EventLog.close
    monkeypatch.setattr(EventLog, "close", close)
    assert train(config, tmp_path, quiet, lambda record: True) == Ending("pruned", "SIGINT")


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
def test_several_steps_a_call_rendered_on_the_device_equal_host_rendering_and_are_resumed_inside_an_epoch(
    config, finished_run: Path, tmp_path: Path
) -> None:
    config.augment.renderer = "device"
    config.train.update(steps_per_call=3, epochs=1)  # nine steps an epoch; tests of batching have other remainders
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(config, whole, quiet)
    host, device = (restored(config, each).progress.history[0] for each in (finished_run, whole))
    assert np.isclose(host.train["loss"], device.train["loss"], rtol=1e-3)
    assert train(config, run, interrupt("resnet_tiny")) == Ending("interrupted", "SIGTERM")
    assert restored(config, run).step == 3
    assert train(config, run, quiet) == Ending("complete")
    assert_equal(config, whole, run, [3])


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
    ending = train(small_config(folder / "data"), folder / "run", interrupt("resnet_tiny"))
    assert ending == Ending("interrupted", "SIGTERM")
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


def test_a_run_without_a_digest_and_code_versions_is_resumed(config, finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    for path in (run / "checkpoints").glob("step_*/progress/metadata"):
        stored = json.loads(path.read_text())
        for name in ("pictures", "code", "arrays", "digest"):  # as older versions wrote it
            del stored[name]
        path.write_text(json.dumps(stored))
    assert train(config, run, quiet) == Ending("complete")


def test_a_run_with_a_digest_of_pixels_is_resumed_on_the_same_data(config, finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    inputs = training_set.read(config)
    pixels = training_set.pixel_digest(inputs.training, inputs.valid)  # as older versions stored it
    for digest in (pixels[::-1], pixels):
        for path in (run / "checkpoints").glob("step_*/progress/metadata"):
            stored = json.loads(path.read_text()) | {"pictures": digest}
            stored.pop("digest", None)  # of this file, without which it is not checked
            path.write_text(json.dumps(stored))
        if digest != pixels:
            with pytest.raises(UserError, match="has changed since"):
                train(config, run, quiet)
    assert train(config, run, quiet) == Ending("complete")


def test_a_config_without_a_checkpoint_is_replaced(config, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt  # the first line of a run that starts; nothing is compiled yet

    (tmp_path / "config.json").write_text('{"seed": 7}')
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, stop)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == config.seed


def test_a_folder_of_another_config_is_refused(config, finished_run: Path) -> None:
    config.optim.learning_rate = 0.5
    with pytest.raises(UserError, match=r"optim\.learning_rate: 0\.003 there, 0\.5 now"):
        train(config, finished_run, quiet)
