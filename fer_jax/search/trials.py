"""The trials of a study: each trains a network with the values that it tries."""

import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import jax
import optuna
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState

from fer_jax.core import config as config_lib
from fer_jax.core import run_folder
from fer_jax.core.devices import OutOfMemoryError
from fer_jax.core.errors import DiskError, UserError
from fer_jax.core.termination import TerminatedError, termination
from fer_jax.core.text import counted
from fer_jax.search import storage
from fer_jax.search import study as study_lib
from fer_jax.search.space import Search
from fer_jax.train import Ending, StopAfter, train
from fer_jax.training import checkpoint, restoring
from fer_jax.training.checks import check
from fer_jax.training.epoch import DivergenceError
from fer_jax.training.history import EpochRecord, best_record

POLL_S = 2.0  # while other processes train the last trials, or this one


class _InterruptedError(Exception):
    """A signal ended the training of a trial before it had a score."""


def run(
    study: optuna.Study, search: Search, config: ConfigDict, folder: Path, trials: int, say: Callable[[str], None]
) -> str:
    """Train until `trials` of the study are finished, by this process or by others, or until SIGTERM or Ctrl-C.

    Return the name of the signal, or "".

    Args:
        study: the result of `fer_jax.search.study.open_study`.
        search: the search space.
        config: the values of all other fields.
        folder: the study's folder. A trial's run folder is `<folder>/<number>`, or with several seeds
            `<folder>/<number>/seed<n>`.
        trials: the number of trials that the whole study should have.
        say: gets a line for each event.

    Raises:
        UserError: a trial cannot be trained at all, or the connection to the storage is lost.
    """
    worker = _Worker(study, search, config, folder, trials, say)
    try:
        with termination():  # a trial whose images are still being read is queued for a retry
            worker.work()
    except TerminatedError as error:
        worker.signals.append(signal.Signals(error.number).name)
    except Exception as error:
        if reason := storage.storage_error(error):
            remedy = "the same command resumes from there"
            raise UserError(f"the storage {storage.address(study)} failed: {reason}; {remedy}") from None
        raise
    if not worker.signals:
        return ""
    say(f"{worker.signals[0]}: the same command resumes from there")
    return worker.signals[0]


class _Worker:
    """One process of a study."""

    def __init__(
        self,
        study: optuna.Study,
        search: Search,
        config: ConfigDict,
        folder: Path,
        trials: int,
        say: Callable[[str], None],
    ) -> None:
        self.study, self.search, self.config = study, search, config
        self.folder, self.trials, self.say = folder, trials, say
        self.signals: list[str] = []  # names; the first is reported, and the process should end
        self.superseded = False  # another process took over this process's trial

    def work(self) -> None:
        """Train trials until the study is finished or a signal has come."""
        previous = ""
        while not self.signals and (step := study_lib.next_step(self.study, self.trials)) != "end":
            if step == "train":
                self._train_trial()
            else:
                if step != previous:
                    self.say("waiting for the last trials, which other processes train")
                time.sleep(POLL_S)
            previous = step

    def _train_trial(self) -> None:
        self.superseded = False
        try:
            # The errors of a trial hold its arrays on the device until they are collected.
            self.study.optimize(self._objective, n_trials=1, callbacks=[self._report], gc_after_trial=True)
        except _InterruptedError:
            pass
        except Exception:  # of Optuna, which cannot store the result of a trial that has ended
            if not self.superseded:
                raise
            self.say("  another process took over this trial because this one stopped responding")

    def _objective(self, trial: optuna.Trial) -> float:
        """The trial's score; a trial that ends without one is queued for a retry."""
        try:
            return self._score(trial)
        except optuna.TrialPruned:
            raise
        except (_InterruptedError, KeyboardInterrupt) as error:
            number = error.number if isinstance(error, TerminatedError) else signal.SIGINT
            self.signals.append(signal.Signals(number).name)
            study_lib.retry_running(self.study, trial.number, crashed=False)
            raise
        except BaseException:
            study_lib.retry_running(self.study, trial.number)
            raise
        finally:
            with suppress(optuna.exceptions.StorageInternalError):  # Optuna raises it again, where it matters
                self.superseded = not study_lib.is_running(self.study, trial.number)

    def _score(self, trial: optuna.Trial) -> float:
        """The best validation accuracy with the values of the trial, the mean over the search's seeds."""
        number = study_lib.origin(self.study.get_trials(deepcopy=False)[trial.number])
        values = study_lib.suggest(trial, self.search.space)
        self.say(f"trial {number}: {study_lib.format_values(values)}")
        config = config_lib.with_values(self.config, values)
        try:
            check(config)
        except UserError as error:  # each value can be trained by itself; see fer_jax.search.tuning.check_search
            self.say(f"  these values cannot be combined: {error}")
            raise optuna.TrialPruned from None
        seeds = range(config.seed, config.seed + self.search.seeds)
        scores: list[float] = []
        for seed in seeds:
            run = self.folder / str(number) / (f"seed{seed}" if self.search.seeds > 1 else "")
            seeded = config_lib.with_values(config, {"seed": seed})
            # The curve of the first seed alone decides about pruning.
            hopeless = _pruner(trial) if seed == config.seed else _keep
            try:
                ending = self._train(seeded, run, hopeless)
            except DiskError:
                raise
            except UserError as error:
                raise UserError(f"trial {number} ({study_lib.format_values(values)}): {error}") from None
            if ending.signal:
                self.signals.append(ending.signal)  # the process ends, also where the trial has its score
            if ending.how == "pruned":
                raise optuna.TrialPruned
            if not ending.finished or (ending.signal and seed < seeds[-1]):
                raise _InterruptedError
            scores.append(best_record(_history(run, seeded)).valid["accuracy"])
        trial.set_user_attr("accuracies", scores)
        return sum(scores) / len(scores)

    def _train(self, config: ConfigDict, run: Path, hopeless: StopAfter) -> Ending:
        """Train a run; raise TrialPruned where it diverges or needs too much memory."""
        for record in _history(run, config):  # of an earlier attempt, which may not have reported its last epoch
            hopeless(record)
        jax.clear_caches()  # the programs of earlier trials, which would fill the memory
        try:
            return _train_when_free(config, run, lambda line: self.say(f"  {line}"), hopeless)
        except (DivergenceError, OutOfMemoryError) as error:
            self.say(f"  {str(error).split(';')[0]}")
            raise optuna.TrialPruned from None

    def _report(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Print the trial's result and the study's progress."""
        best = study_lib.ranking(study)[0]
        epochs = counted(len(trial.intermediate_values), "epoch")
        result = f"{trial.value:.2%}" if trial.state == TrialState.COMPLETE else f"pruned after {epochs}"
        line = f"trial {study_lib.origin(trial)}: {result}; {study_lib.progress(study, self.trials)}"
        if best.state == TrialState.COMPLETE:
            line += f", best {best.value:.2%} (trial {study_lib.origin(best)})"
        self.say(line)


def _pruner(trial: optuna.Trial) -> StopAfter:
    """Report each epoch to the study; True where the trial should be pruned."""

    def hopeless(record: EpochRecord) -> bool:
        trial.report(record.valid["accuracy"], record.epoch)
        return trial.should_prune()

    return hopeless


def _keep(record: EpochRecord) -> bool:
    return False


def _train_when_free(config: ConfigDict, run: Path, say: Callable[[str], None], stop_after: StopAfter) -> Ending:
    """`train`, after the process of an earlier attempt has left the run folder, which only seemed to be dead."""
    while True:
        try:
            return train(config, run, say, stop_after)
        except run_folder.BusyError:
            say(f"another process still trains in {run}; waiting")
            time.sleep(POLL_S)


def _history(run: Path, config: ConfigDict) -> list[EpochRecord]:
    """The epochs of the run, [] if the folder is new or holds a run of another config, which `train` refuses."""
    if not ((run / run_folder.CHECKPOINTS).is_dir() and (run / run_folder.CONFIG).is_file()):
        return []
    if config_lib.as_json(run_folder.read_config(run)) != config_lib.as_json(config):
        return []
    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        return restoring.history(manager)
