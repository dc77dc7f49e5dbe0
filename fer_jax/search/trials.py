"""The trials of a study: each trains a network with the values that it tries."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType

import jax
import optuna
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState

from fer_jax.core import config as config_lib
from fer_jax.core import run_folder
from fer_jax.core.devices import OutOfMemoryError
from fer_jax.core.errors import UserError
from fer_jax.core.text import counted
from fer_jax.search import study as study_lib
from fer_jax.search.space import Search
from fer_jax.train import DivergenceError, Ending, train
from fer_jax.training import checkpoint
from fer_jax.training.checks import check
from fer_jax.training.history import EpochRecord, best_record

LOOK_EVERY_S = 2.0  # while others train the last trials, or this one


class _InterruptedError(Exception):
    """A signal ended the training of a trial before it had its figure."""


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM came while no training was under way that could have been saved."""


@contextmanager
def _termination() -> Iterator[None]:
    """Within it SIGTERM is an exception, so that a trial is given back whose pictures are still being read."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(
    study: optuna.Study, search: Search, config: ConfigDict, folder: Path, trials: int, say: Callable[[str], None]
) -> None:
    """Train until `trials` of the study are finished, by this process or by others, or until SIGTERM or Ctrl-C.

    Args:
        study: of `fer_jax.search.study.open_study`.
        search: what is searched.
        config: the values of all other fields.
        folder: of the study; a trial's run folder is `<folder>/<number>`, or `<folder>/<number>/seed<n>` with several.
        trials: how many the study shall have.
        say: is told what happens, a line at a time.

    Raises:
        UserError: a trial cannot be trained at all, or the storage is lost.
    """

    signals: list[str] = []
    taken = False  # whether another process took the trial of this one for lost

    def objective(trial: optuna.Trial) -> float:
        nonlocal taken
        try:
            return _accuracy(study, trial, search, config, folder, say, signals.append)
        except optuna.TrialPruned:
            raise
        except (_InterruptedError, KeyboardInterrupt) as error:
            # the first that is noted is the one that is told of
            signals.append("SIGTERM" if isinstance(error, _TerminatedError) else "SIGINT")
            study_lib.give_back(study, trial.number, lost=False)
            raise
        except BaseException:
            study_lib.give_back(study, trial.number)
            raise
        finally:
            with suppress(optuna.exceptions.StorageInternalError):  # Optuna will meet it too, where it matters
                taken = not study_lib.is_running(study, trial.number)

    def told(study: optuna.Study, trial: FrozenTrial) -> None:
        say(_standing(study, trial, trials))

    def train_one() -> None:
        nonlocal taken
        taken = False
        try:
            # the errors of a trial hold its arrays on the device until they are collected
            study.optimize(objective, n_trials=1, callbacks=[told], gc_after_trial=True)
        except _InterruptedError:
            pass
        except Exception:  # Optuna's, which cannot note what came of a trial that has ended
            if not taken:
                raise
            say("  another process took over this trial because this one stopped responding")

    before = ""
    try:
        with _termination():
            while not signals and (todo := study_lib.share(study, trials)) != "end":
                if todo == "train":
                    train_one()
                else:
                    if before != todo:
                        say("waiting for the last trials, which other processes train")
                    time.sleep(LOOK_EVERY_S)
                before = todo
    except _TerminatedError:
        signals.append("SIGTERM")
    except Exception as error:
        if reason := study_lib.storage_error(error):
            raise UserError(f"the storage is lost: {reason}; the same command resumes from there") from None
        raise
    if signals:
        say(f"{signals[0]}: the same command resumes from there")


def _accuracy(
    study: optuna.Study,
    trial: optuna.Trial,
    search: Search,
    config: ConfigDict,
    folder: Path,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> float:
    """The best validation accuracy of the values that the trial tries, the mean over the search's seeds.

    `note` is told of a signal that came; the process should end then, also where the trial has its figure.
    """
    number = study_lib.origin(study.get_trials(deepcopy=False)[trial.number])
    values = study_lib.suggest(trial, search.space)
    say(f"trial {number}: {study_lib.shown(values)}")
    tried = config_lib.with_values(config, values)
    try:
        check(tried)
    except UserError as error:  # each value can be trained by itself; see fer_jax.search.tuning.check_search
        say(f"  no network has these together: {error}")
        raise optuna.TrialPruned from None
    accuracies: list[float] = []

    def hopeless(record: EpochRecord) -> bool:
        if accuracies:  # the curve of the first seed alone is compared
            return False
        trial.report(record.valid["accuracy"], record.epoch)
        return trial.should_prune()

    last = tried.seed + search.seeds - 1
    for seed in range(tried.seed, last + 1):
        run = folder / str(number) / (f"seed{seed}" if search.seeds > 1 else "")
        seeded = config_lib.with_values(tried, {"seed": seed})
        for record in _history(run, seeded):  # of a trial that was lost: its last epoch may not have been reported
            hopeless(record)
        jax.clear_caches()  # the programs of earlier trials, which would fill the memory
        try:
            ending = _train_when_free(seeded, run, lambda line: say(f"  {line}"), hopeless)
        except (DivergenceError, OutOfMemoryError) as error:
            say(f"  {str(error).split(';')[0]}")
            raise optuna.TrialPruned from None
        except UserError as error:
            raise UserError(f"trial {number} ({study_lib.shown(values)}): {error}") from None
        if ending.signal:
            note(ending.signal)
        if ending.how == "pruned":
            raise optuna.TrialPruned
        if not ending.finished or (ending.signal and seed < last):
            raise _InterruptedError
        accuracies.append(best_record(_history(run, seeded)).valid["accuracy"])
    trial.set_user_attr("accuracies", accuracies)
    return sum(accuracies) / len(accuracies)


def _train_when_free(
    config: ConfigDict, run: Path, say: Callable[[str], None], stop_after: Callable[[EpochRecord], bool]
) -> Ending:
    """`train`; of a trial that was taken for lost while its process only stood still, after that process."""
    while True:
        try:
            return train(config, run, say, stop_after)
        except run_folder.BusyError:
            say(f"another process still trains in {run}; waiting")
            time.sleep(LOOK_EVERY_S)


def _history(run: Path, config: ConfigDict) -> list[EpochRecord]:
    """Of the trial's own run: what an older study has left in its folder `train` will refuse."""
    if not (run / run_folder.CHECKPOINTS).is_dir() or config_lib.as_json(
        run_folder.read_config(run)
    ) != config_lib.as_json(config):
        return []
    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        return checkpoint.history(manager)


def _standing(study: optuna.Study, trial: FrozenTrial, trials: int) -> str:
    """What came of a trial, and how far the study is."""
    best = study_lib.ranking(study)[0]
    epochs = counted(len(trial.intermediate_values), "epoch")
    result = f"{trial.value:.2%}" if trial.state == TrialState.COMPLETE else f"pruned after {epochs}"
    reached = f", best {best.value:.2%} (trial {study_lib.origin(best)})" if best.state == TrialState.COMPLETE else ""
    return f"trial {study_lib.origin(trial)}: {result}; {study_lib.progress(study, trials)}{reached}"
