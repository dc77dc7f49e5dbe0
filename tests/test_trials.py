"""What becomes of a trial whose run is interrupted, or that another process took for lost; the runs are made up."""

import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from configs import base
from fer_jax.core.cli import UserError
from fer_jax.search import study as study_lib
from fer_jax.search import trials
from fer_jax.search.space import Range, Search
from fer_jax.train import DivergenceError, Ending

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")

SPACE = {"optim.learning_rate": Range(1e-3, 1e-1, log=True, points=3)}
RECORD = {"epoch": 1, "valid": {"accuracy": 0.25}}


def opened(folder: Path, space: dict = SPACE) -> optuna.Study:
    return study_lib.open_study(f"sqlite:///{folder}/study.db", "s", "grid", Search(space), base.get_config())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trains trials by `train(number of the call, stop_after)`; returns what was said and the study."""

    def run(train: Callable, wanted: int, seeds: int = 1, space: dict = SPACE) -> tuple[list[str], optuna.Study]:
        calls: list[Path] = []

        def made_up(config, folder: Path, say, stop_after) -> Ending:
            calls.append(folder)
            return train(len(calls), stop_after)

        monkeypatch.setattr(trials, "train", made_up)
        monkeypatch.setattr(trials, "_history", lambda folder, config: [RECORD] if folder in calls else [])
        lines: list[str] = []
        study = opened(tmp_path, space)
        trials.run(study, Search(space, seeds=seeds), base.get_config(), tmp_path, wanted, lines.append)
        return lines, study

    return run


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize("reports_again", [True, False])
def test_a_process_whose_trial_was_taken_for_lost_goes_on_with_the_next(
    run, tmp_path: Path, reports_again: bool
) -> None:
    def train(call: int, stop_after) -> Ending:
        if call == 1:  # this process stands still, and another one does this meanwhile
            other = opened(tmp_path)
            other._storage.set_trial_state_values(other.trials[0]._trial_id, TrialState.FAIL)
            study_lib.retry(other, other.trials[0])
        if call > 1 or reports_again:
            stop_after(RECORD)
        return Ending("complete")

    lines, study = run(train, 2)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study_lib.origin(study.trials[1]) == 0
    assert [line for line in lines if "taken for lost" in line] == [
        "  it was taken for lost: whoever did so goes on with it"
    ]


def test_a_signal_at_the_end_of_a_trial_keeps_its_figure_and_ends_the_process(run) -> None:
    lines, study = run(lambda call, stop_after: Ending("complete", "SIGTERM"), 3)
    assert states(study) == ["COMPLETE"]
    assert study.trials[0].value == 0.25
    assert lines[-1] == "SIGTERM: the same command goes on from there"


def test_a_signal_when_a_trial_is_pruned_ends_the_process(run) -> None:
    lines, study = run(lambda call, stop_after: Ending("pruned", "SIGINT"), 3)
    assert states(study) == ["PRUNED"]
    assert lines[-1] == "SIGINT: the same command goes on from there"


def test_a_signal_between_two_seeds_gives_the_trial_back(run) -> None:
    lines, study = run(lambda call, stop_after: Ending("complete", "SIGTERM"), 3, seeds=2)
    assert states(study) == ["FAIL", "WAITING"]
    assert lines[-1] == "SIGTERM: the same command goes on from there"
    _, study = run(lambda call, stop_after: Ending("complete"), 1, seeds=2)
    assert states(study) == ["FAIL", "COMPLETE"]


def test_an_interrupted_trial_is_given_back(run) -> None:
    lines, study = run(lambda call, stop_after: Ending("interrupted", "SIGTERM"), 3)
    assert states(study) == ["FAIL", "WAITING"]
    assert study_lib.origin(study.trials[1]) == 0
    assert study.trials[1].system_attrs[study_lib.BEFORE] == []  # it was not what ended the process
    assert lines[-1] == "SIGTERM: the same command goes on from there"


@pytest.mark.parametrize(("error", "lost"), [(KeyboardInterrupt, []), (MemoryError, [0])])
def test_a_trial_that_an_error_ends_is_given_back(run, tmp_path: Path, error: type[BaseException], lost: list) -> None:
    def train(call: int, stop_after) -> Ending:
        raise error

    with pytest.raises(error):
        run(train, 3)
    study = opened(tmp_path)
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[1].system_attrs[study_lib.BEFORE] == lost


def test_values_that_no_network_has_together_are_pruned_and_the_search_goes_on(run) -> None:
    space = {"model.depth": [0, 1], "model.squeeze_excite": [False, True]}
    lines, study = run(lambda call, stop_after: Ending("complete"), 4, space=space)
    untrained = [trial.params for trial in study.trials if trial.state == TrialState.PRUNED]
    assert untrained == [{"model.depth": 0, "model.squeeze_excite": True}]
    assert states(study).count("COMPLETE") == 3
    (said,) = [line for line in lines if "no network has these together" in line]
    assert "model.depth=0 leaves no residual block" in said


def test_a_signal_before_the_first_step_gives_the_trial_back_and_it_does_not_count_as_lost(run) -> None:
    def train(call: int, stop_after) -> Ending:
        signal.raise_signal(signal.SIGTERM)  # while the pictures are read
        raise AssertionError("it went on")

    before = signal.getsignal(signal.SIGTERM)
    lines, study = run(train, 3)
    assert states(study) == ["FAIL", "WAITING"]
    assert study.trials[1].system_attrs[study_lib.BEFORE] == []
    assert lines[-1] == "SIGTERM: the same command goes on from there"
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_failed_trial_held_is_freed_before_the_next(run) -> None:
    class State:
        """Arrays on a device, as it were."""

    held: list[weakref.ref] = []

    def train(call: int, stop_after) -> Ending:
        assert [each() for each in held] == [None] * (call - 1)
        state = State()
        held.append(weakref.ref(state))
        raise DivergenceError("not finite")

    _, study = run(train, 3)
    assert states(study) == ["PRUNED"] * 3


def test_the_curve_of_another_run_in_the_folder_is_not_the_trials(config, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "0")
    study = opened(tmp_path)
    config.train.epochs = 2
    with pytest.raises(UserError, match=r"trial 0 .*holds a run of another config"):
        trials.run(study, Search(SPACE), config, tmp_path, 1, lambda line: None)
    assert [trial.intermediate_values for trial in study.trials] == [{}, {}]
    assert states(study) == ["FAIL", "WAITING"]
