"""Optuna's own engine on SQLite files; where a trial is begun by hand, not by Study.optimize, nobody signs for it."""

from itertools import product
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from configs import base
from fer_jax.core.cli import UserError
from fer_jax.core.config import with_values
from fer_jax.reporting.document import ImageBlock
from fer_jax.search import study as study_lib
from fer_jax.search import study_report
from fer_jax.search.space import Range, Search

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")

SPACE = {
    "model.dropout": Range(0.0, 0.4, points=2),
    "optim.learning_rate": Range(1e-3, 1e-1, log=True, points=2),
    "train.batch_size": Range(32, 64, points=2),
    "schedule.boundaries": [(), (2, 4)],
}


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/new/study.db"


def opened(folder: Path, sampler: str = "grid", search: Search = Search(SPACE), **values) -> optuna.Study:  # noqa: B008
    config = with_values(base.get_config(), values)
    return study_lib.open_study(url(folder), "s", sampler, search, config)


def finish(study: optuna.Study, trials: int, figure=lambda values: 0.5) -> list[dict]:
    tried: list[dict] = []

    def objective(trial: optuna.Trial) -> float:
        tried.append(study_lib.suggest(trial, SPACE))
        return figure(tried[-1])

    study.optimize(objective, trials, catch=ZeroDivisionError)
    return tried


def in_order(tried: list[dict]) -> list[tuple]:
    return sorted(tuple(values.values()) for values in tried)


def test_grid_search_tries_the_product_of_all_points_once_also_where_trials_fail(tmp_path: Path) -> None:
    study = opened(tmp_path)
    whole = sorted(product([0.0, 0.4], [1e-3, 1e-1], [32, 64], [(), (2, 4)]))
    tried = finish(study, 4)
    with pytest.raises(KeyboardInterrupt):
        finish(study, 1, lambda values: interrupt(study, 4))
    tried += finish(opened(tmp_path), 12)  # another process, as it were
    assert in_order(tried) == whole
    assert study_lib.share(study, 16) == "end"
    assert study_lib.origin(study.trials[5]) == 4


def interrupt(study: optuna.Study, number: int) -> float:
    study_lib.give_back(study, number)
    raise KeyboardInterrupt


def test_a_grid_too_large_to_finish_is_drawn_from(tmp_path: Path) -> None:
    fine = Range(0.0, 0.5, points=1000)
    space = {"model.dropout": fine, "optim.b1": fine, "optim.b2": fine}
    study = opened(tmp_path, search=Search(space))
    assert study.sampler.size == study_lib.MOST_POINTS  # type: ignore[attr-defined]
    first, second = (study_lib.suggest(study.ask(), space) for _ in range(2))
    assert first != second


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 12), ("random", 3)])  # tpe draws its first ten at random
def test_samplers_stay_in_the_space_and_the_values_are_the_configs(tmp_path: Path, sampler: str, trials: int) -> None:
    for values in finish(opened(tmp_path, sampler), trials):
        assert 0 <= values["model.dropout"] <= 0.4
        assert 1e-3 <= values["optim.learning_rate"] <= 1e-1
        assert 32 <= values["train.batch_size"] <= 64
        assert values["schedule.boundaries"] in [(), (2, 4)]
        config = with_values(base.get_config(), values)
        assert config.schedule.boundaries == values["schedule.boundaries"]


def test_a_trial_that_always_fails_is_given_up(tmp_path: Path) -> None:
    study = opened(tmp_path)

    def fail(trial: optuna.Trial) -> float:
        study_lib.give_back(study, trial.number)
        raise ZeroDivisionError

    study.optimize(fail, study_lib.MOST_RETRIES + 2, catch=ZeroDivisionError)
    tries = study_lib.MOST_RETRIES + 1
    assert [study_lib.origin(trial) for trial in study.trials] == [0] * tries + [tries] * 2
    assert study_lib.given_up(study) == 1
    assert study_lib.progress(study, 2) == "0 of 2 trials are finished, 1 given up"
    assert [study_lib.share(study, trials) for trials in (1, 2)] == ["end", "train"]


def test_a_grid_with_a_point_that_always_fails_comes_to_its_end(tmp_path: Path) -> None:
    study, tried = opened(tmp_path), []

    def objective(trial: optuna.Trial) -> float:
        tried.append(tuple(study_lib.suggest(trial, SPACE).values()))
        if tried[-1] == (0.4, 1e-3, 64, ()):
            study_lib.give_back(study, trial.number)
            raise ZeroDivisionError
        return 0.5

    while study_lib.share(study, 16) == "train":
        study.optimize(objective, 1, catch=ZeroDivisionError)
    assert set(tried) == set(product([0.0, 0.4], [1e-3, 1e-1], [32, 64], [(), (2, 4)]))
    assert len(tried) == 15 + study_lib.MOST_RETRIES + 1
    assert study_lib.progress(study, 16) == "15 of 16 trials are finished, 1 given up"


def test_a_trial_is_interrupted_as_often_as_it_happens_and_may_still_be_lost(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for _ in range(study_lib.MOST_RETRIES + 3):
        study_lib.give_back(study, study.ask().number, lost=False)
    for _ in range(study_lib.MOST_RETRIES):
        study_lib.give_back(study, study.ask().number)
    assert {study_lib.origin(trial) for trial in study.trials} == {0}
    study_lib.give_back(study, study.ask().number)  # once too often
    number = study.ask().number
    assert study_lib.origin(study.trials[number]) == number


def test_processes_wait_for_the_last_trials_of_others(tmp_path: Path) -> None:
    study = opened(tmp_path)
    first = study.ask()
    assert [study_lib.share(study, trials) for trials in (1, 2)] == ["wait", "train"]
    study.tell(first, 0.5)
    assert [study_lib.share(study, trials) for trials in (1, 2)] == ["end", "train"]
    study_lib.give_back(study, first.number)  # it has its figure
    assert len(study.trials) == 1


def test_ranking_puts_the_best_first_and_the_pruned_last_by_the_best_of_their_curves(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for figure in (0.3, 0.9, 0.5):
        study.tell(study.ask(), figure)
    for curve in ((), (0.4, 0.3), (0.95, 0.2)):
        trial = study.ask()
        for epoch, reached in enumerate(curve, 1):
            trial.report(reached, epoch)
        study.tell(trial, state=TrialState.PRUNED)
    assert [trial.number for trial in study_lib.ranking(study)] == [1, 2, 0, 5, 4, 3]
    assert [study_lib.accuracy(trial) for trial in study_lib.ranking(study)] == [0.9, 0.5, 0.3, 0.95, 0.4, None]


def test_a_study_of_another_search_or_config_or_sampler_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path, search=Search(SPACE, grace_epochs=7), **{"data.dir": "elsewhere"})  # these may differ
    for changed, message in [
        ({"search": Search(SPACE | {"model.dropout": Range(0.0, 0.3)})}, r"model\.dropout\.high: 0\.4 there, 0\.3 now"),
        ({"search": Search(SPACE, seeds=2)}, "seeds: 1 there, 2 now"),
        ({"train.epochs": 3}, r"config\.train\.epochs: \d+ there, 3 now"),
        ({"sampler": "tpe"}, "sampler: 'grid' there, 'tpe' now"),
    ]:
        with pytest.raises(UserError, match=f"{message}.*choose another --study") as error:
            opened(tmp_path, **changed)
        assert "\n" not in str(error.value)


def test_a_study_that_is_older_than_some_fields_goes_on(tmp_path: Path) -> None:
    study = opened(tmp_path)
    older = study.user_attrs["made_from"]
    del older["config"]["model"]["depth"], older["config"]["data"]["teachers"]
    study.set_user_attr("made_from", older)
    opened(tmp_path)
    with pytest.raises(UserError, match=r"config\.model\.depth: 1 there, 2 now"):
        opened(tmp_path, **{"model.depth": 2})


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
def test_storages_that_cannot_be_opened_get_one_line(tmp_path: Path, url: str, message: str) -> None:
    (tmp_path / "text.db").write_text("plain text, longer than the header of a database would be" * 10)
    with pytest.raises(UserError, match=message) as error:
        study_lib.open_study(url.format(folder=tmp_path), "s", "tpe", Search(SPACE), base.get_config())
    assert "\n" not in str(error.value)


def test_a_trial_of_a_dead_process_is_given_back_with_its_curve(tmp_path: Path) -> None:
    study = opened(tmp_path)
    trial = study.ask()
    values = study_lib.suggest(trial, SPACE)
    trial.report(0.25, 1)
    study._storage.record_heartbeat(trial._trial_id)
    for seconds, todo in ((study_lib.GRACE_S - 30, "wait"), (study_lib.GRACE_S + 1, "train")):
        with sqlalchemy.create_engine(url(tmp_path)).begin() as database:  # as if the last sign were so long ago
            ago = f"UPDATE trial_heartbeats SET heartbeat = datetime('now', '-{seconds} seconds')"
            database.execute(sqlalchemy.text(ago))
        assert study_lib.share(study, 1) == todo
    again = study.ask()
    assert study_lib.origin(study.trials[again.number]) == trial.number != again.number
    assert study_lib.suggest(again, SPACE) == values
    assert study.trials[again.number].intermediate_values == {1: 0.25}


def test_a_trial_whose_process_died_before_its_first_sign_is_given_back(tmp_path: Path) -> None:
    study = opened(tmp_path)
    values = study_lib.suggest(trial := study.ask(), SPACE)  # and nobody signs for it
    assert study_lib.share(study, 1) == "wait"
    with sqlalchemy.create_engine(url(tmp_path)).begin() as database:
        ago = f"UPDATE trial_heartbeats SET heartbeat = datetime('now', '-{study_lib.GRACE_S + 1} seconds')"
        assert database.execute(sqlalchemy.text(ago)).rowcount == 1
    assert study_lib.share(study, 1) == "train"
    again = study.ask()
    assert study_lib.origin(study.trials[again.number]) == trial.number
    assert study_lib.suggest(again, SPACE) == values


def test_trials_of_the_same_values_leave_out_which_field_matters(tmp_path: Path) -> None:
    study = opened(tmp_path)
    first = study.ask()
    study_lib.suggest(first, SPACE)
    study.tell(first, 0.5)
    study.enqueue_trial(first.params)
    again = study.ask()
    study_lib.suggest(again, SPACE)
    study.tell(again, 0.6)  # chance alone
    blocks = study_report.pictures(study, study_lib.ranking(study), Search(SPACE))
    assert [block.name for block in blocks if isinstance(block, ImageBlock)] == ["parallel"]
