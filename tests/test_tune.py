"""The command on the drawn sample: several processes, signals, SIGKILL, and the files of a study."""

import contextlib
import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from itertools import product
from pathlib import Path

import optuna
import pytest
from conftest import ROOT, run_python
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from fer_jax import tune
from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError
from fer_jax.search import (
    storage,
    tuning,  # noqa: F401 - loads optuna's plots now, so that this process is quick to join a study
)
from fer_jax.training import checkpoint, restoring
from fer_jax.training.history import EpochRecord

TWO_SEEDS = """
from fer_jax.search_space import Search
from tests import quick_tune

def get_config():
    return quick_tune.get_config()

def get_search():
    # The first value learns next to nothing; the grid begins with the second.
    return Search({"data.smoothing": [0.9, 0.0]}, seeds=2, grace_epochs=1, startup_trials=1)
"""


def arguments(sample_dir: Path, folder: Path, path: str = "tests/quick_tune.py") -> list[str]:
    places = ["--workdir", str(folder), "--storage", f"sqlite:///{folder.parent}/tune.db"]
    return ["--config", path, *places, f"--config.data.dir={sample_dir}"]


def start(given: list[str], log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fer_jax.tune", *given]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}  # as in this process: they share compiled programs
    with open(log, "w") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, text=True)


def wait_for(text: str, log: Path) -> None:
    deadline = time.monotonic() + 240
    while text not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert text in log.read_text()


def history(run: Path) -> list[EpochRecord]:
    with contextlib.closing(checkpoint.open_manager(run, read_only=True)) as manager:
        return restoring.history(manager)


def rows(folder: Path) -> list[dict[str, str]]:
    return [*csv.DictReader((folder / "trials.csv").read_text().splitlines())]


@pytest.fixture(scope="module")
def grid_study(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a grid search by two processes at once, and their outputs."""
    folder = tmp_path_factory.mktemp("tuning") / "study"
    return folder, search_together(folder, arguments(sample_dir, folder))


def search_together(folder: Path, given: list[str]) -> list[str]:
    """The outputs of two processes, a new one and this one, which comes while the other trains its first trial."""
    log, output = folder.parent / "other.log", io.StringIO()
    other = start([*given, "--sampler", "grid"], log)
    wait_for("trial 0", log)
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(output):
        assert tune.main([*given, "--sampler", "grid"]) == 0
    assert other.wait(timeout=600) == 0, log.read_text()
    return [log.read_text(), output.getvalue()]


@pytest.mark.slow
def test_two_processes_train_each_point_of_the_grid_once(grid_study: tuple[Path, list[str]]) -> None:
    _check_grid(*grid_study)


@pytest.mark.slow
def test_two_processes_share_a_study_in_postgresql(sample_dir: Path, tmp_path: Path) -> None:
    url, name = os.environ.get("TUNE_POSTGRESQL", ""), f"test-{uuid.uuid4()}"
    if not url.startswith("postgresql"):
        pytest.skip("TUNE_POSTGRESQL is not the URL of a PostgreSQL database, postgresql+psycopg://...")
    given = [*arguments(sample_dir, tmp_path / "study"), "--study", name]
    given[given.index("--storage") + 1] = url
    try:
        _check_grid(tmp_path / "study", search_together(tmp_path / "study", given))
    finally:
        optuna.delete_study(study_name=name, storage=url)


def _check_grid(folder: Path, outputs: list[str]) -> None:
    trained = [re.findall(r"^trial (\d+): optim", text, re.MULTILINE) for text in outputs]
    assert all(trained)  # both trained some
    assert sorted(trained[0] + trained[1]) == [*"0123"]
    points = sorted((float(row["optim.learning_rate"]), row["augment.recipe"]) for row in rows(folder))
    assert points == sorted(product([0.003, 1e30], ["none", "emotion_cnn"]))


@pytest.mark.slow
def test_scores_are_the_best_epochs_of_the_runs_and_a_diverged_trial_counts_as_pruned(
    grid_study: tuple[Path, list[str]],
) -> None:
    folder, _ = grid_study
    for row in rows(folder):
        if row["optim.learning_rate"] == "1e+30":
            assert (row["state"], row["accuracy"], row["epochs"]) == ("pruned", "", "0")
            continue
        trained = history(folder / row["trial"])
        assert (row["state"], int(row["epochs"])) == ("complete", len(trained)) == ("complete", 2)
        assert float(row["accuracy"]) == pytest.approx(max(record.valid["accuracy"] for record in trained))


@pytest.mark.slow
def test_tuned_py_is_the_config_of_the_best_trial(
    grid_study: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outputs = grid_study
    monkeypatch.chdir(folder.parent)
    best = rows(folder)[0]
    assert float(best["accuracy"]) == max(float(row["accuracy"] or 0) for row in rows(folder))
    assert best["optim.learning_rate"] == "0.003"
    tuned = config_lib.load(str(folder / "tuned.py"))
    assert config_lib.as_json(tuned) == json.loads((folder / best["trial"] / "config.json").read_text())
    text = (folder / "tuned.py").read_text()
    assert f"number {best['trial']}: {float(best['accuracy']):.2%}" in text
    assert f"python -m fer_jax.main --config {folder}/tuned.py" in text
    assert f"python -m fer_jax.main --config {folder}/tuned.py" in outputs[0]
    score = f"{float(best['accuracy']):.2%}"
    table = rf"trial +{best['trial']} .*\naccuracy +{score} .*\nepochs +2 .*\noptim.learning_rate +0.003 "
    assert re.search(table, outputs[0])


@pytest.mark.slow
def test_the_report_has_all_trials_and_both_plots(grid_study: tuple[Path, list[str]]) -> None:
    folder, _ = grid_study
    assert (folder / "report.html").read_text().count("<img") == 2
    pruned = [row for row in rows(folder) if row["state"] == "pruned"]
    assert (folder / "report.md").read_text().count("| pruned after ") == len(pruned)


@pytest.mark.slow
def test_the_hparams_tab_of_tensorboard_lists_every_trial_with_a_score(grid_study: tuple[Path, list[str]]) -> None:
    folder, _ = grid_study
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder))
    runs.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(folder))))
    request = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=api_pb2.Status.values())
    listed = {}
    for group in Handler(RequestContext(), context, "", request).run().session_groups:
        [best] = [metric.value for metric in group.metric_values if metric.name.tag == "best/accuracy"]
        values = group.hparams["optim.learning_rate"].number_value, group.hparams["augment.recipe"].string_value
        listed[values] = pytest.approx(best)
    assert listed == {
        (float(row["optim.learning_rate"]), row["augment.recipe"]): float(row["accuracy"])
        for row in rows(folder)
        if row["accuracy"]
    }


@pytest.mark.slow
def test_a_finished_study_is_reported_again_and_not_trained(
    sample_dir: Path,
    grid_study: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, outputs = grid_study
    call(monkeypatch, *arguments(sample_dir, folder), "--sampler", "grid")
    output = capsys.readouterr().out
    assert "grid search, 4 of 4 trials are finished" in output
    assert "epoch 1" not in output
    assert output.split("\n\n", 1)[1] == outputs[0].split("\n\n", 1)[1]


class Interrupting(io.StringIO):
    """An output that raises SIGTERM at the first line about an epoch."""

    def write(self, text: str) -> int:
        written = super().write(text)
        if "epoch 1/2" in text:
            signal.raise_signal(signal.SIGTERM)
        return written


@pytest.mark.slow
def test_a_stopped_and_killed_trial_resumes_from_its_checkpoint_and_a_hopeless_trial_is_pruned(
    sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two_seeds.py").write_text(TWO_SEEDS)
    folder = tmp_path / "study"
    given = [*arguments(sample_dir, folder, str(tmp_path / "two_seeds.py")), "--sampler", "grid"]
    with contextlib.redirect_stdout(Interrupting()) as stopped:
        assert call(monkeypatch, *given) == 128 + signal.SIGTERM
    assert "SIGTERM: the same command resumes from there" in stopped.getvalue()
    log = tmp_path / "killed"
    process = start(given, log)
    wait_for("epoch 1/2", log)
    process.kill()
    assert process.wait(timeout=240) == -signal.SIGKILL
    # As if GRACE_S had passed since the last heartbeat of the killed process.
    with contextlib.closing(sqlite3.connect(tmp_path / "tune.db")) as database, database:
        query = "UPDATE trial_heartbeats SET heartbeat = datetime('now', ?)"
        database.execute(query, (f"-{storage.GRACE_S + 1} seconds",))
    call(monkeypatch, *given)
    for output in (log.read_text(), capsys.readouterr().out):
        assert "resuming from step" in output

    complete, pruned = rows(folder)
    assert [complete[name] for name in ("trial", "state", "epochs")] == ["0", "complete", "2"]
    best = [max(record.valid["accuracy"] for record in history(folder / "0" / seed)) for seed in ("seed1", "seed2")]
    assert [float(score) for score in complete["by_seed"].split()] == pytest.approx(best)
    assert float(complete["accuracy"]) == pytest.approx(sum(best) / 2)
    assert json.loads((folder / "0" / "seed2" / "config.json").read_text())["seed"] == 2

    assert pruned["state"] == "pruned"
    assert [path.name for path in (folder / pruned["trial"]).iterdir()] == ["seed1"]
    assert len(history(folder / pruned["trial"] / "seed1")) == int(pruned["epochs"]) == 1


def call(monkeypatch: pytest.MonkeyPatch, *given: str) -> int:
    monkeypatch.chdir(ROOT)
    return tune.main(given)


def test_without_optuna_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['optuna'] = None; from fer_jax import tune; tune.cli.run(tune.main)"
    result = run_python("-c", code, "--config", "tune")
    assert result.returncode == 1
    assert result.stderr.startswith("error: optuna is not installed: pip install 'fer_jax[tune]'")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"augment.recipe": ["none", "cutmux"]}, r"augment\.recipe='cutmux' is unknown"),
        ({"data.teachers": [(), ("nowhere",)]}, "no run in nowhere"),
        ({"train.init_from": ["", "nowhere"]}, "no run in nowhere"),
    ],
)
def test_a_choice_that_cannot_be_trained_is_an_error_before_the_first_trial(
    space: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(TWO_SEEDS.replace('{"data.smoothing": [0.9, 0.0]}', repr(space)))
    with pytest.raises(UserError, match=message):
        call(monkeypatch, "--config", str(path), "--storage", f"sqlite:///{tmp_path}/tune.db")
    assert not (tmp_path / "tune.db").exists()


def test_the_shipped_search_needs_nothing_but_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(tmp_path / "none", tmp_path / "study", "tune")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"no train data in .*/none/FER2013Train"):
        call(monkeypatch, *given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1"),
        (["--study", "a/b"], "--study names a folder"),
        (["--sampler", "evolution"], "invalid choice"),
    ],
)
def test_an_error_in_an_option_is_explained(
    given: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "--config", "configs/tune.py", *given)
    assert message in capsys.readouterr().err
