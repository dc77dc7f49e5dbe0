"""An Optuna study in a database that several processes share: opening it, its samplers, and retries of stale trials.

Optuna's heartbeat shows which trials are running: the process that trains a trial sends a heartbeat every HEARTBEAT_S
seconds. A trial without a heartbeat for GRACE_S is stale: its process has died. Its values and its curve then wait in
the study as a new trial, the retry. A retry has the folder of the first attempt and resumes from the checkpoint there.
"""

import math
import random
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState

from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError
from fer_jax.search import space as search_space
from fer_jax.search.space import Search
from fer_jax.search.storage import open_storage

MAX_RETRIES = 5  # of one trial: it may be the trial that makes its process crash
MAX_POINTS = 100_000  # a larger grid is sampled
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
FIRST_ATTEMPT, RETRY_HISTORY = "failed_trial", "retry_history"  # Optuna's names of a retry's attributes


class Grid(optuna.samplers.RandomSampler):
    """Grid search in a shuffled order that is always the same.

    A trial's point follows from the number of earlier trials, so no two processes get the same point.
    """

    def __init__(self, space: Mapping[str, search_space.Dimension]) -> None:
        super().__init__()
        self._axes = {name: [*map(_stored, search_space.points(dimension))] for name, dimension in space.items()}
        points = math.prod(map(len, self._axes.values()))
        self.size = min(points, MAX_POINTS)
        self._order = random.Random(0).sample(range(points), self.size)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        trials = study.get_trials(deepcopy=False)
        place = sum(
            origin(other) == other.number < origin(trial) for other in trials
        )  # a retry has the place of its first trial
        point = self._order[place % self.size]
        for name, axis in self._axes.items():
            point, index = divmod(point, len(axis))
            if name == param_name:
                break
        return axis[index]


def origin(trial: FrozenTrial) -> int:
    """The number of the trial's first attempt. Users see this number, and the trial's folder is named by it."""
    return trial.system_attrs.get(FIRST_ATTEMPT, trial.number)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep optuna's notes off the terminal in the block."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
            warnings.filterwarnings("ignore", "The reported value is ignored")  # a retry reports its last epoch again
            yield
    finally:
        optuna.logging.set_verbosity(level)


def open_study(url: str, name: str, sampler: str, search: Search, config: ConfigDict) -> optuna.Study:
    """Open the study of that name in the database, or create it.

    Args:
        url: the database, as SQLAlchemy takes it.
        name: the study's name.
        sampler: "tpe", "random" or "grid"; it proposes the values of each trial.
        search: the search space, and when trials may be pruned.
        config: the values of all other fields.

    Raises:
        UserError: the storage cannot be opened, or the study belongs to another config, search or sampler.
    """
    # The samplers have no seed: processes with one seed would begin with the same values.
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    study = optuna.create_study(
        storage=open_storage(url, retry),
        sampler=Grid(search.space) if sampler == "grid" else samplers[sampler](),
        # From epoch grace_epochs on a trial is pruned if its best is below the median of the others at that epoch.
        pruner=optuna.pruners.MedianPruner(search.startup_trials, search.grace_epochs),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
    )
    identity = {"config": config_lib.as_json(config), **search_space.as_json(search), "sampler": sampler}
    del identity["config"]["data"]["dir"]  # machines may have the images in different places
    stored = study.user_attrs.get("made_from")
    if stored is None:
        study.set_user_attr("made_from", identity)
        return study
    stored |= {"config": config_lib.as_json(config_lib.with_later_fields(stored["config"]))}
    if stored != identity:
        changes = config_lib.differences(stored, identity)
        raise UserError(f"the study {name!r} in this storage is of another search ({changes}); choose another --study")
    return study


def suggest(trial: optuna.Trial, space: Mapping[str, search_space.Dimension]) -> dict[str, Any]:
    """A value for each field of the space: the sampler's proposal, or for a retry the values of the first attempt."""
    for name, dimension in space.items():
        if not isinstance(dimension, search_space.Range):
            trial.suggest_categorical(name, [*map(_stored, dimension)])
        elif isinstance(dimension.low, int):
            trial.suggest_int(name, dimension.low, int(dimension.high), log=dimension.log)
        else:
            trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return values(trial, space)


def values(trial: optuna.Trial | FrozenTrial, space: Mapping[str, search_space.Dimension]) -> dict[str, Any]:
    """The values of the trial, in the types of the config."""
    stored = {name: trial.params[name] for name in space}
    choices = {name: axis for name, axis in space.items() if not isinstance(axis, search_space.Range)}
    return stored | {name: axis[[*map(_stored, axis)].index(stored[name])] for name, axis in choices.items()}


def _stored(choice: Any) -> str | int | float:
    """The choice as a database can hold it: text or a number, but no tuple."""
    return choice if isinstance(choice, str | int | float) else repr(choice)


def retry(study: optuna.Study, trial: FrozenTrial, crashed: bool = True) -> None:
    """Queue another attempt of a trial that ended without a score, with its values and its curve.

    Args:
        study: the trial's study.
        trial: the trial.
        crashed: True if the process ended without a signal. The trial may be the cause, so it is given up after
            MAX_RETRIES. Interruptions by a signal do not count.
    """
    history = [*trial.system_attrs.get(RETRY_HISTORY, []), *([trial.number] if crashed else [])]
    if crashed and len(history) > MAX_RETRIES:
        return
    attempt = optuna.create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs={**trial.system_attrs, FIRST_ATTEMPT: origin(trial), RETRY_HISTORY: history},
        intermediate_values=trial.intermediate_values,
    )
    study.add_trial(attempt)


def retry_running(study: optuna.Study, number: int, crashed: bool = True) -> None:
    """`retry` a trial of this process that is about to end without a score."""
    if is_running(study, number):  # else another process has queued the retry
        retry(study, study.trials[number], crashed)


def is_running(study: optuna.Study, number: int) -> bool:
    """True for a trial that has no score and was not declared stale."""
    return study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING


def next_step(study: optuna.Study, trials: int) -> str:
    """The next step of this process in a study of `trials` trials.

    Returns:
        "train" while trials are left to start, "wait" while other processes train the last ones, then "end".
        Trials that were given up count as finished, or a grid with a point that crashes would never end.
    """
    _add_missing_heartbeats(study)
    optuna.storages.fail_stale_trials(study)
    count = Counter(trial.state for trial in study.get_trials(deepcopy=False))
    finished = sum(count[state] for state in FINISHED) + given_up(study)
    if finished >= trials:
        return "end"
    return "train" if finished + count[TrialState.RUNNING] < trials else "wait"


def given_up(study: optuna.Study) -> int:
    """The number of trials that have crashed in all of their attempts."""
    trials = study.get_trials(deepcopy=False)
    exhausted = {origin(trial) for trial in trials if len(trial.system_attrs.get(RETRY_HISTORY, [])) >= MAX_RETRIES}
    return len(exhausted - {origin(trial) for trial in trials if trial.state != TrialState.FAIL})


def progress(study: optuna.Study, trials: int) -> str:
    """The study's progress as text."""
    abandoned = given_up(study)
    return f"{len(ranking(study))} of {trials} trials are finished" + f", {abandoned} given up" * bool(abandoned)


def _add_missing_heartbeats(study: optuna.Study) -> None:
    """Record a heartbeat for running trials that have none.

    Optuna does not notice a process that died before its first heartbeat. One heartbeat is recorded for it here; a
    live process goes on with its own.
    """
    storage = study._storage
    query = (
        "SELECT trial_id FROM trials JOIN studies USING (study_id) WHERE study_name = :name AND state = 'RUNNING' "
        "AND trial_id NOT IN (SELECT trial_id FROM trial_heartbeats)"
    )
    with storage._backend.engine.connect() as database:  # type: ignore[attr-defined]
        trial_ids = database.execute(sqlalchemy.text(query), {"name": study.study_name}).scalars().all()
    for trial_id in trial_ids:
        storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]


def score(trial: FrozenTrial) -> float | None:
    """A finished trial's score, 0..1; for a pruned trial its best so far, if any."""
    return trial.value if trial.state == TrialState.COMPLETE else max(trial.intermediate_values.values(), default=None)


def ranking(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials, best first; pruned trials come after complete ones."""
    return sorted(
        study.get_trials(deepcopy=False, states=FINISHED),
        key=lambda trial: (trial.state == TrialState.PRUNED, -(score(trial) or 0), trial.number),
    )


def format_values(values: Mapping[str, Any]) -> str:
    """Values on one line, numbers to four digits."""
    return ", ".join(f"{name}={format_value(value)}" for name, value in values.items())


def format_value(value: Any) -> str:
    """A value as tables show it, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
