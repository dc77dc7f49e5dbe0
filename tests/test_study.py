"""Studies in SQLite files. A trial that is started by `ask`, not by Study.optimize, sends no heartbeat."""

import ast
import gc
import runpy
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import fer_jax
from fer_jax.core import config as config_lib
from fer_jax.core.config import with_values
from fer_jax.core.errors import UserError
from fer_jax.reporting import document
from fer_jax.reporting.document import ImageBlock
from fer_jax.search import storage, study_report
from fer_jax.search import study as study_lib
from fer_jax.search.space import Range, Search

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage", "ignore::optuna.exceptions.ExperimentalWarning")

SPACE = {
    "model.dropout": Range(0.0, 0.4, points=2),
    "optim.learning_rate": Range(1e-3, 1e-1, log=True, points=2),
    "train.batch_size": Range(32, 64, points=2),
    "schedule.boundaries": [(), (2, 4)],
}
SMALL_GRID = {name: SPACE[name] for name in ("model.dropout", "train.batch_size", "schedule.boundaries")}


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/new/study.db"


def open_study(folder: Path, sampler: str = "grid", search: Search | None = None, **values) -> optuna.Study:
    config = with_values(fer_jax.load_config("base"), values)
    return study_lib.open_study(url(folder), "s", sampler, search or Search(SPACE), config)


def optimize(
    study: optuna.Study, trials: int, score: Callable[[dict], float] = lambda values: 0.5, space: dict = SPACE
) -> list[dict]:
    """Run trials whose score is a function of their values; return the values."""
    points: list[dict] = []

    def objective(trial: optuna.Trial) -> float:
        points.append(study_lib.suggest(trial, space))
        return score(points[-1])

    study.optimize(objective, trials)
    return points


def age_heartbeats(folder: Path, seconds: int) -> int:
    """Move all heartbeats into the past; return how many there are."""
    with closing(sqlite3.connect(folder / "new" / "study.db")) as database, database:
        query = "UPDATE trial_heartbeats SET heartbeat = datetime('now', ?)"
        return database.execute(query, (f"-{seconds} seconds",)).rowcount


@pytest.mark.slow
def test_grid_search_tries_every_point_once_even_if_a_trial_crashes(tmp_path: Path) -> None:
    study = open_study(tmp_path, search=Search(SMALL_GRID))
    grid = sorted(product([0.0, 0.4], [32, 64], [(), (2, 4)]))

    def crash(values: dict) -> float:
        study_lib.retry_running(study, 2)
        raise KeyboardInterrupt

    points = optimize(study, 2, space=SMALL_GRID)
    with pytest.raises(KeyboardInterrupt):
        optimize(study, 1, crash, SMALL_GRID)
    points += optimize(open_study(tmp_path, search=Search(SMALL_GRID)), 6, space=SMALL_GRID)  # as another process would
    assert sorted(tuple(values.values()) for values in points) == grid
    assert study_lib.next_step(study, 8) == "end"
    assert study_lib.origin(study.trials[3]) == 2


def test_a_grid_too_large_to_finish_is_sampled(tmp_path: Path) -> None:
    fine = Range(0.0, 0.5, points=1000)
    space = {"model.dropout": fine, "optim.b1": fine, "optim.b2": fine}
    study = open_study(tmp_path, search=Search(space))
    assert study.sampler.size == study_lib.MAX_POINTS  # type: ignore[attr-defined]
    first, second = (study_lib.suggest(study.ask(), space) for _ in range(2))
    assert first != second


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 12), ("random", 3)])  # tpe draws its first ten at random
def test_samplers_stay_in_the_space_and_give_values_of_the_config(tmp_path: Path, sampler: str, trials: int) -> None:
    for values in optimize(open_study(tmp_path, sampler), trials):
        assert 0 <= values["model.dropout"] <= 0.4
        assert 1e-3 <= values["optim.learning_rate"] <= 1e-1
        assert 32 <= values["train.batch_size"] <= 64
        assert values["schedule.boundaries"] in [(), (2, 4)]
        config = with_values(fer_jax.load_config("base"), values)
        assert config.schedule.boundaries == values["schedule.boundaries"]


def test_a_trial_that_always_crashes_is_given_up(tmp_path: Path) -> None:
    study = open_study(tmp_path)

    def crash(trial: optuna.Trial) -> float:
        study_lib.retry_running(study, trial.number)
        raise ZeroDivisionError

    study.optimize(crash, study_lib.MAX_RETRIES + 2, catch=ZeroDivisionError)
    attempts = study_lib.MAX_RETRIES + 1
    assert [study_lib.origin(trial) for trial in study.trials] == [0] * attempts + [attempts] * 2
    assert study_lib.given_up(study) == 1
    assert study_lib.progress(study, 2) == "0 of 2 trials are finished, 1 given up"
    assert [study_lib.next_step(study, trials) for trials in (1, 2)] == ["end", "train"]


@pytest.mark.slow
def test_a_grid_with_a_point_that_always_crashes_ends(tmp_path: Path) -> None:
    study, points = open_study(tmp_path, search=Search(SMALL_GRID)), []

    def objective(trial: optuna.Trial) -> float:
        points.append(tuple(study_lib.suggest(trial, SMALL_GRID).values()))
        if points[-1] == (0.4, 64, ()):
            study_lib.retry_running(study, trial.number)
            raise ZeroDivisionError
        return 0.5

    while study_lib.next_step(study, 8) == "train":
        study.optimize(objective, 1, catch=ZeroDivisionError)
    assert set(points) == set(product([0.0, 0.4], [32, 64], [(), (2, 4)]))
    assert len(points) == 7 + study_lib.MAX_RETRIES + 1
    assert study_lib.progress(study, 8) == "7 of 8 trials are finished, 1 given up"


def test_interruptions_of_a_trial_do_not_count_as_crashes(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for _ in range(study_lib.MAX_RETRIES + 3):
        study_lib.retry_running(study, study.ask().number, crashed=False)
    for _ in range(study_lib.MAX_RETRIES):
        study_lib.retry_running(study, study.ask().number)
    assert {study_lib.origin(trial) for trial in study.trials} == {0}
    study_lib.retry_running(study, study.ask().number)  # one crash too many
    number = study.ask().number
    assert study_lib.origin(study.trials[number]) == number


def test_a_process_waits_for_the_last_trials_of_other_processes(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    first = study.ask()
    assert [study_lib.next_step(study, trials) for trials in (1, 2)] == ["wait", "train"]
    study.tell(first, 0.5)
    assert [study_lib.next_step(study, trials) for trials in (1, 2)] == ["end", "train"]
    study_lib.retry_running(study, first.number)  # it has its score
    assert len(study.trials) == 1


def test_the_ranking_has_the_best_first_and_pruned_trials_last_by_the_best_of_their_curves(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for score in (0.3, 0.9, 0.5):
        study.tell(study.ask(), score)
    for curve in ((), (0.4, 0.3), (0.95, 0.2)):
        trial = study.ask()
        for epoch, accuracy in enumerate(curve, 1):
            trial.report(accuracy, epoch)
        study.tell(trial, state=TrialState.PRUNED)
    assert [trial.number for trial in study_lib.ranking(study)] == [1, 2, 0, 5, 4, 3]
    assert [study_lib.score(trial) for trial in study_lib.ranking(study)] == [0.9, 0.5, 0.3, 0.95, 0.4, None]


@pytest.mark.slow
def test_a_study_of_another_search_or_config_or_sampler_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path)
    open_study(tmp_path, search=Search(SPACE, grace_epochs=7), **{"data.dir": "elsewhere"})  # these may differ
    for changed, message in [
        ({"search": Search(SPACE | {"model.dropout": Range(0.0, 0.3)})}, r"model\.dropout\.high: 0\.4 there, 0\.3 now"),
        ({"search": Search(SPACE, seeds=2)}, "seeds: 1 there, 2 now"),
        ({"train.epochs": 3}, r"config\.train\.epochs: \d+ there, 3 now"),
        ({"sampler": "tpe"}, "sampler: 'grid' there, 'tpe' now"),
    ]:
        with pytest.raises(UserError, match=f"{message}.*choose another --study") as error:
            open_study(tmp_path, **changed)
        assert "\n" not in str(error.value)


def test_a_study_older_than_some_fields_resumes(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    older = study.user_attrs["made_from"]
    del older["config"]["model"]["depth"], older["config"]["data"]["teachers"]
    study.set_user_attr("made_from", older)
    open_study(tmp_path)
    with pytest.raises(UserError, match=r"config\.model\.depth: 1 there, 2 now"):
        open_study(tmp_path, **{"model.depth": 2})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("tune.db", "'tune.db' is no database URL"),
        ("mysql+oursql://fer:secret@server/tuning", r"mysql\+oursql://fer:\*\*\*@server/tuning cannot be opened"),
        ("mysql+mysqldb://server/tuning", r"No module named 'MySQLdb'; for PostgreSQL pip install"),
        ("sqlite:///{folder}", "unable to open database file"),
        ("sqlite:///{folder}/text.db", "not a database"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path: Path, url: str, message: str) -> None:
    (tmp_path / "text.db").write_text("plain text, longer than the header of a database would be" * 10)
    with pytest.raises(UserError, match=message) as error:
        study_lib.open_study(url.format(folder=tmp_path), "s", "tpe", Search(SPACE), fer_jax.load_config("base"))
    assert "\n" not in str(error.value)


def test_a_stale_trial_is_retried_with_its_curve(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    trial = study.ask()
    values = study_lib.suggest(trial, SPACE)
    trial.report(0.25, 1)
    study._storage.record_heartbeat(trial._trial_id)
    for seconds, step in ((storage.GRACE_S - 30, "wait"), (storage.GRACE_S + 1, "train")):
        age_heartbeats(tmp_path, seconds)
        assert study_lib.next_step(study, 1) == step
    attempt = study.ask()
    assert study_lib.origin(study.trials[attempt.number]) == trial.number != attempt.number
    assert study_lib.suggest(attempt, SPACE) == values
    assert study.trials[attempt.number].intermediate_values == {1: 0.25}


def test_a_trial_whose_process_died_before_its_first_heartbeat_is_retried(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    values = study_lib.suggest(trial := study.ask(), SPACE)
    assert study_lib.next_step(study, 1) == "wait"
    assert age_heartbeats(tmp_path, storage.GRACE_S + 1) == 1
    assert study_lib.next_step(study, 1) == "train"
    attempt = study.ask()
    assert study_lib.origin(study.trials[attempt.number]) == trial.number
    assert study_lib.suggest(attempt, SPACE) == values


@pytest.mark.slow
def test_a_study_leaves_no_open_database(tmp_path: Path) -> None:
    config = fer_jax.load_config("base")
    (tmp_path / "text.db").write_text("plain text, longer than the header of a database would be" * 10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)  # Python 3.13 warns of a connection that was not closed
        study = open_study(tmp_path)
        optimize(study, 2)
        study_lib.next_step(study, 4)
        storage.close(study)
        del study
        with pytest.raises(UserError, match="not a database"):
            study_lib.open_study(f"sqlite:///{tmp_path}/text.db", "s", "tpe", Search(SPACE), config)
        gc.collect()
    assert [warning for warning in caught if warning.category is ResourceWarning] == []


def test_trials_of_the_same_values_have_no_plot_of_importance(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    first = study.ask()
    study_lib.suggest(first, SPACE)
    study.tell(first, 0.5)
    study.enqueue_trial(first.params)
    second = study.ask()
    study_lib.suggest(second, SPACE)
    study.tell(second, 0.6)  # chance alone
    blocks = study_report.plot_blocks(study, study_lib.ranking(study), Search(SPACE))
    assert [block.name for block in blocks if isinstance(block, ImageBlock)] == ["parallel"]


def test_tuned_py_loads_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study(tmp_path)
    config = with_values(fer_jax.load_config("base"), {"data.drop_repeats": True, "seed": 3})
    points = optimize(study, 3, lambda values: values["model.dropout"] + values["optim.learning_rate"])
    lines: list[str] = []
    study_report.write(tmp_path / "study", study, Search(SPACE), config, lines.append)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    best = max(points, key=lambda values: values["model.dropout"] + values["optim.learning_rate"])
    path = tmp_path / "study" / "tuned.py"
    tuned = config_lib.load(str(path))
    assert tuned.to_dict() == with_values(config, best).to_dict()
    command = f"python -m fer_jax.main --config {path} --config.data.drop_repeats=False"
    assert f"train the best trial's config: {command}" in lines
    assert command in (ast.get_docstring(ast.parse(path.read_text())) or "")
    assert runpy.run_path(str(path))["get_config"]().to_dict() == tuned.to_dict()


def test_the_best_trials_fit_a_terminal_whatever_the_number_of_fields(tmp_path: Path) -> None:
    fields = [name for name, value in config_lib.flatten(fer_jax.load_config("base").to_dict()).items() if value == 0.0]
    space = {name: Range(0.0, 0.9) for name in fields[:12] if name != "seed"}
    study = open_study(tmp_path, "random", Search(space))

    def objective(trial: optuna.Trial) -> float:
        study_lib.suggest(trial, space)
        return trial.number / 10

    study.optimize(objective, 9)
    lines = study_report.terminal_text(study_lib.ranking(study), Search(space), "s").splitlines()
    assert max(map(len, lines)) <= document.TERMINAL
    assert [line.split()[0] for line in lines[1:]] == ["trial", "accuracy", "epochs", *space]
    assert lines[1].split()[1:6] == ["8", "7", "6", "5", "4"]  # the best first
