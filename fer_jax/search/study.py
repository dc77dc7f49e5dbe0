"""An Optuna study in a database that many processes share: opening it, its samplers, and trials that were lost.

Optuna's heartbeat tells which trials run: a process that works on one signs every HEARTBEAT_S seconds, and a trial
that nobody signed for GRACE_S is the trial of a dead process. Its values and its curve then wait in the study as a new
trial, its retry. That has the folder of the first, so training goes on from the checkpoint there.
"""

import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from ml_collections import ConfigDict
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError
from fer_jax.search import space as search_space
from fer_jax.search.space import Search

HEARTBEAT_S, GRACE_S = 10, 60
MOST_RETRIES = 5  # of one trial: it may be what ends its process
MOST_POINTS = 100_000  # of a larger grid so many are drawn
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
FIRST, BEFORE = "failed_trial", "retry_history"  # Optuna's names for what a retry remembers


class Grid(optuna.samplers.RandomSampler):
    """Grid search in an order that is shuffled, but always the same.

    A trial's point follows from the number of trials before it: no two processes get the same one.
    """

    def __init__(self, space: Mapping[str, search_space.Dimension]) -> None:
        super().__init__()
        self._axes = {name: [*map(_stored, search_space.points(dimension))] for name, dimension in space.items()}
        points = math.prod(map(len, self._axes.values()))
        self.size = min(points, MOST_POINTS)
        self._order = random.Random(0).sample(range(points), self.size)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        trials = study.get_trials(deepcopy=False)
        place = sum(origin(other) == other.number < origin(trial) for other in trials)  # retries do not count
        point = self._order[place % self.size]
        for name, axis in self._axes.items():
            point, index = divmod(point, len(axis))
            if name == param_name:
                break
        return axis[index]


def origin(trial: FrozenTrial) -> int:
    """The number of the trial, or of the first that it is a retry of: what people see, and the name of its folder."""
    return trial.system_attrs.get(FIRST, trial.number)


def open_study(url: str, name: str, sampler: str, search: Search, config: ConfigDict) -> optuna.Study:
    """The study of that name in the database, made now if it is not there.

    Args:
        url: of the database, as SQLAlchemy takes it.
        name: of the study.
        sampler: "tpe", "random" or "grid": what proposes the values of each trial.
        search: what is searched, and when trials may be pruned.
        config: the values of all other fields.

    Raises:
        UserError: the storage cannot be opened, or the study was made with another config, search or sampler.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
    warnings.filterwarnings("ignore", "The reported value is ignored")  # of an epoch that a retry trains again
    # The samplers have no seed: processes with one seed would begin with the same values.
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    study = optuna.create_study(
        storage=_open_storage(url),
        sampler=Grid(search.space) if sampler == "grid" else samplers[sampler](),
        # from epoch grace_epochs on a trial is pruned if its best is below the median of the others at that epoch
        pruner=optuna.pruners.MedianPruner(search.startup_trials, search.grace_epochs),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
    )
    made_from = {"config": config_lib.as_json(config), **search_space.as_json(search), "sampler": sampler}
    del made_from["config"]["data"]["dir"]  # machines may have the pictures in different places
    known = study.user_attrs.get("made_from")
    if known is None:
        study.set_user_attr("made_from", made_from)
        return study
    known |= {"config": config_lib.as_json(config_lib.with_later_fields(known["config"]))}
    if known != made_from:
        changes = config_lib.differences(known, made_from)
        raise UserError(f"the study {name!r} in this storage is of another search ({changes}); choose another --study")
    return study


def _open_storage(url: str) -> RDBStorage:
    try:
        address = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise UserError(
            f"--storage {url!r} is no database URL: write for example sqlite:///experiments/tune.db"
        ) from None
    sqlite = address.get_backend_name() == "sqlite"
    if sqlite and address.database:
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)

    def storage() -> RDBStorage:
        return RDBStorage(
            url,
            # in SQLite one process writes at a time; the others wait so many seconds for it
            engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=retry,
        )

    try:
        try:
            return storage()
        except sqlalchemy.exc.SQLAlchemyError:
            time.sleep(1)  # perhaps another process made the tables at the same moment
            return storage()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        reason = storage_error(error) or str(error.__cause__ or error)
        driver = "; for PostgreSQL pip install 'fer_jax[tune]' and write postgresql+psycopg://..."
        shown = address.render_as_string(hide_password=True)
        missing = driver * isinstance(error, ImportError)
        raise UserError(f"--storage {shown} cannot be opened: {reason}{missing}") from None


def storage_error(error: BaseException | None) -> str:
    """What the database said, on one line, if its failure led to this error; else ""."""
    reason = ""
    while error:  # Optuna wraps it
        if isinstance(error, sqlalchemy.exc.SQLAlchemyError):
            reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        error = error.__cause__ or error.__context__
    return reason


def suggest(trial: optuna.Trial, space: Mapping[str, search_space.Dimension]) -> dict[str, Any]:
    """A value for each field of the space: what the study's sampler proposes, or what the trial had before."""
    for name, of in space.items():
        if not isinstance(of, search_space.Range):
            trial.suggest_categorical(name, [*map(_stored, of)])
        elif isinstance(of.low, int):
            trial.suggest_int(name, of.low, int(of.high), log=of.log)
        else:
            trial.suggest_float(name, of.low, of.high, log=of.log)
    return values(trial, space)


def values(trial: optuna.Trial | FrozenTrial, space: Mapping[str, search_space.Dimension]) -> dict[str, Any]:
    """The values that a trial tries, as the config takes them."""
    found = {name: trial.params[name] for name in space}
    choices = {name: of for name, of in space.items() if not isinstance(of, search_space.Range)}
    return found | {name: of[[*map(_stored, of)].index(found[name])] for name, of in choices.items()}


def _stored(choice: Any) -> str | int | float:
    """A database holds texts and numbers, but no tuples."""
    return choice if isinstance(choice, str | int | float) else repr(choice)


def retry(study: optuna.Study, trial: FrozenTrial, lost: bool = True) -> None:
    """Let a trial that ended without a figure wait in the study, with its values and its curve, for another try.

    Args:
        study: its study.
        trial: the trial.
        lost: it may be what ended its process, so after MOST_RETRIES it is given up; else it was interrupted.
    """
    before = [*trial.system_attrs.get(BEFORE, []), *([trial.number] if lost else [])]
    if lost and len(before) > MOST_RETRIES:
        return
    again = optuna.create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs={**trial.system_attrs, FIRST: origin(trial), BEFORE: before},
        intermediate_values=trial.intermediate_values,
    )
    study.add_trial(again)


def give_back(study: optuna.Study, number: int, lost: bool = True) -> None:
    """`retry` of a trial of this process that is about to end without a figure."""
    if is_running(study, number):  # else this process was taken for dead, and somebody has done so
        retry(study, study.trials[number], lost)


def is_running(study: optuna.Study, number: int) -> bool:
    """Whether the trial has neither a figure nor been taken for lost."""
    return study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING


def share(study: optuna.Study, trials: int) -> str:
    """What a process does next so that `trials` get their figures: "train", "wait" for those of others, or "end".

    Trials that were given up count too: a grid with a point that ends its process would never be finished.
    """
    _sign_for_the_unsigned(study)
    optuna.storages.fail_stale_trials(study)
    count = Counter(trial.state for trial in study.get_trials(deepcopy=False))
    finished = sum(count[state] for state in FINISHED) + given_up(study)
    if finished >= trials:
        return "end"
    return "train" if finished + count[TrialState.RUNNING] < trials else "wait"


def given_up(study: optuna.Study) -> int:
    """How many trials were lost so often that nobody tries them any more."""
    trials = study.get_trials(deepcopy=False)
    often = {origin(trial) for trial in trials if len(trial.system_attrs.get(BEFORE, [])) >= MOST_RETRIES}
    return len(often - {origin(trial) for trial in trials if trial.state != TrialState.FAIL})


def progress(study: optuna.Study, trials: int) -> str:
    """How far the study is, for people."""
    lost = given_up(study)
    return f"{len(ranking(study))} of {trials} trials are finished" + f", {lost} given up" * bool(lost)


def _sign_for_the_unsigned(study: optuna.Study) -> None:
    """A process that died before it first signed for its trial leaves one that Optuna would never take for lost."""
    storage = study._storage
    unsigned = (
        "SELECT trial_id FROM trials JOIN studies USING (study_id) WHERE study_name = :name AND state = 'RUNNING' "
        "AND trial_id NOT IN (SELECT trial_id FROM trial_heartbeats)"
    )
    with storage._backend.engine.connect() as database:  # type: ignore[attr-defined]
        found = database.execute(sqlalchemy.text(unsigned), {"name": study.study_name}).scalars().all()
    for trial in found:  # if its process lives after all it goes on signing
        storage.record_heartbeat(trial)  # type: ignore[attr-defined]


def accuracy(trial: FrozenTrial) -> float | None:
    """A finished trial's figure, 0..1; of one that was pruned the best that it had reached, if anything."""
    return trial.value if trial.state == TrialState.COMPLETE else max(trial.intermediate_values.values(), default=None)


def ranking(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials from the best on, those with a figure before those that were pruned."""
    return sorted(
        study.get_trials(deepcopy=False, states=FINISHED),
        key=lambda trial: (trial.state == TrialState.PRUNED, -(accuracy(trial) or 0), trial.number),
    )


def shown(values: Mapping[str, Any]) -> str:
    """Values on one line, numbers to four digits."""
    return ", ".join(f"{name}={short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """A value as tables show it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
