"""The results of trials that are interrupted, crash, or are declared stale. A function stands in for the training."""

import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import fer_jax
from fer_jax.core.errors import UserError
from fer_jax.search import study as study_lib
from fer_jax.search import trials
from fer_jax.search.space import Range, Search
from fer_jax.train import Ending
from fer_jax.training.epoch import DivergenceError
from fer_jax.training.history import EpochRecord

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage", "ignore::optuna.exceptions.ExperimentalWarning")

SPACE = {"optim.learning_rate": Range(1e-3, 1e-1, log=True, points=3)}
RECORD = EpochRecord(epoch=1, step=9, train={}, valid={"accuracy": 0.25}, learning_rate=0.1)


def open_study(folder: Path, space: dict = SPACE) -> optuna.Study:
    return study_lib.open_study(f"sqlite:///{folder}/study.db", "s", "grid", Search(space), fer_jax.load_config("base"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that trains trials by `train(number of the call, stop_after)` and returns the lines and the study."""

    def run(train: Callable, count: int, seeds: int = 1, space: dict = SPACE) -> tuple[list[str], optuna.Study]:
        calls: list[Path] = []

        def train_call(config, folder: Path, say, stop_after) -> Ending:
            calls.append(folder)
            return train(len(calls), stop_after)

        monkeypatch.setattr(trials, "train", train_call)
        monkeypatch.setattr(trials, "_history", lambda folder, config: [RECORD] if folder in calls else [])
        lines: list[str] = []
        study = open_study(tmp_path, space)
        trials.run(study, Search(space, seeds=seeds), fer_jax.load_config("base"), tmp_path, count, lines.append)
        return lines, study

    return run


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


@pytest.mark.slow
@pytest.mark.parametrize("reports_again", [True, False])
def test_a_process_whose_trial_was_declared_stale_continues_with_the_next(
    run, tmp_path: Path, reports_again: bool
) -> None:
    def train(call: int, stop_after) -> Ending:
        if call == 1:  # as another process does while this one does not respond
            other = open_study(tmp_path)
            other._storage.set_trial_state_values(other.trials[0]._trial_id, TrialState.FAIL)
            study_lib.retry(other, other.trials[0])
        if call > 1 or reports_again:
            stop_after(RECORD)
        return Ending("complete")

    lines, study = run(train, 2)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study_lib.origin(study.trials[1]) == 0
    assert lines.count("  another process took over this trial because this one stopped responding") == 1


@pytest.mark.slow
def test_a_signal_at_the_end_of_a_trial_keeps_its_score_and_ends_the_process(run) -> None:
    lines, study = run(lambda call, stop_after: Ending("complete", "SIGTERM"), 3)
    assert states(study) == ["COMPLETE"]
    assert study.trials[0].value == 0.25
    assert lines[-1] == "SIGTERM: the same command resumes from there"


@pytest.mark.slow
def test_a_signal_when_a_trial_is_pruned_ends_the_process(run) -> None:
    lines, study = run(lambda call, stop_after: Ending("pruned", "SIGINT"), 3)
    assert states(study) == ["PRUNED"]
    assert lines[-1] == "SIGINT: the same command resumes from there"


@pytest.mark.slow
def test_a_trial_that_a_signal_ends_between_two_seeds_is_retried(run) -> None:
    lines, study = run(lambda call, stop_after: Ending("complete", "SIGTERM"), 3, seeds=2)
    assert states(study) == ["FAIL", "WAITING"]
    assert lines[-1] == "SIGTERM: the same command resumes from there"
    _, study = run(lambda call, stop_after: Ending("complete"), 1, seeds=2)
    assert states(study) == ["FAIL", "COMPLETE"]


@pytest.mark.slow
def test_an_interrupted_trial_is_retried(run) -> None:
    lines, study = run(lambda call, stop_after: Ending("interrupted", "SIGTERM"), 3)
    assert states(study) == ["FAIL", "WAITING"]
    assert study_lib.origin(study.trials[1]) == 0
    assert study.trials[1].system_attrs[study_lib.RETRY_HISTORY] == []  # an interruption is no crash
    assert lines[-1] == "SIGTERM: the same command resumes from there"


@pytest.mark.slow
@pytest.mark.parametrize(("error", "crashes"), [(KeyboardInterrupt, []), (MemoryError, [0])])
def test_a_trial_that_an_error_ends_is_retried(
    run, tmp_path: Path, error: type[BaseException], crashes: list[int]
) -> None:
    def train(call: int, stop_after) -> Ending:
        raise error

    with pytest.raises(error):
        run(train, 3)
    study = open_study(tmp_path)
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[1].system_attrs[study_lib.RETRY_HISTORY] == crashes


@pytest.mark.slow
def test_values_that_cannot_be_combined_are_pruned_and_the_search_continues(run) -> None:
    space = {"model.depth": [0, 1], "model.squeeze_excite": [False, True]}
    lines, study = run(lambda call, stop_after: Ending("complete"), 4, space=space)
    untrained = [trial.params for trial in study.trials if trial.state == TrialState.PRUNED]
    assert untrained == [{"model.depth": 0, "model.squeeze_excite": True}]
    assert states(study).count("COMPLETE") == 3
    (reason,) = [line for line in lines if "these values cannot be combined" in line]
    assert "model.depth=0 leaves no residual block" in reason


@pytest.mark.slow
def test_a_trial_that_a_signal_ends_before_its_first_step_is_retried_and_did_not_crash(run) -> None:
    def train(call: int, stop_after) -> Ending:
        signal.raise_signal(signal.SIGTERM)  # while the images are read
        raise AssertionError("training continued")

    handler = signal.getsignal(signal.SIGTERM)
    lines, study = run(train, 3)
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[1].system_attrs[study_lib.RETRY_HISTORY] == []
    assert lines[-1] == "SIGTERM: the same command resumes from there"
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
def test_the_memory_of_a_failed_trial_is_freed_before_the_next(run) -> None:
    class State:
        """In place of arrays on a device."""

    states_of_trials: list[weakref.ref] = []

    def train(call: int, stop_after) -> Ending:
        assert [reference() for reference in states_of_trials] == [None] * (call - 1)
        state = State()
        states_of_trials.append(weakref.ref(state))
        raise DivergenceError("not finite")

    _, study = run(train, 3)
    assert states(study) == ["PRUNED"] * 3


@pytest.mark.slow
def test_a_trial_does_not_report_the_curve_of_another_run_in_its_folder(
    config, finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "0")
    study = open_study(tmp_path)
    config.train.epochs = 2
    with pytest.raises(UserError, match=r"trial 0 .*holds a run of another config"):
        trials.run(study, Search(SPACE), config, tmp_path, 1, lambda line: None)
    assert [trial.intermediate_values for trial in study.trials] == [{}, {}]
    assert states(study) == ["FAIL", "WAITING"]
