"""Checkpoints of a run, by orbax: the latest, to resume from, and the best on validation, to use.

Saving is asynchronous (training goes on) and atomic (a checkpoint is complete or absent). A checkpoint holds the
TrainState, the metrics of the unfinished epoch, and a JSON item: `Progress`, with a digest of each array and of itself.
`fer_jax.training.restoring` reads them.
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from fer_jax.core import run_folder
from fer_jax.core.errors import DISK_FAILURES, DiskError, UserError, one_line
from fer_jax.training import packing
from fer_jax.training.history import EpochRecord, as_json
from fer_jax.training.shapes import named_leaves

LOG = "checkpoints.log"  # in the run folder: errors of orbax
LOGGERS = ("absl", "asyncio")  # that orbax and TensorStore write to


class Progress(NamedTuple):
    """The state of a run outside its arrays, saved as JSON with each checkpoint."""

    history: list[EpochRecord]
    steps_per_epoch: int
    pictures: str = ""  # the digest of images and targets; "" in runs that are older than this field
    code: Sequence[Mapping[str, Any]] = ()  # each version of the code that trained: version, commit and from_step
    layouts: list[Any] | None = None  # the layouts of the packed arrays; see `packing.layouts`
    config: Mapping[str, Any] | None = None  # of the run; None in runs that are older than this field


class DamagedError(UserError):
    """The files of a checkpoint are damaged."""

    def __init__(self, folder: Path, reason: BaseException | str) -> None:
        self.folder, self.reason = folder, one_line(reason, 60)
        super().__init__(
            f"checkpoint {folder} cannot be restored: it is damaged ({self.reason}); run the command that trains it "
            f"again, which {self._again()}"
        )

    def _again(self) -> str:
        if len(run_folder.checkpoints(self.folder.parent.parent)) < 2:
            return "starts from the beginning: there is no other checkpoint"
        return "goes back to an undamaged one, or evaluate the other --checkpoint"


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    """The rank of a checkpoint, higher is better: by accuracy, and the earlier of equals, as in early stopping."""
    return metrics["accuracy"], -metrics["step"]


def open_manager(run: Path, read_only: bool = False) -> ocp.CheckpointManager:
    """Return the manager of `<run>/checkpoints`. Close it when done: saves may still be running.

    Raises:
        DamagedError: the metrics of a checkpoint are unreadable.
    """
    folder = (run / run_folder.CHECKPOINTS).absolute()
    _keep_off_terminal()
    for _, saved in sorted(run_folder.checkpoints(run.absolute()).items()):  # orbax reads the metrics of all
        try:
            _rank(json.loads((saved / "metrics" / "metrics").read_text()))
        except (FileNotFoundError, NotADirectoryError):  # without metrics, or just deleted
            pass
        except (ValueError, KeyError, TypeError):
            raise DamagedError(saved, "its metrics are unreadable") from None
    keep = [
        LatestN(1),
        BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False),
    ]
    options = ocp.CheckpointManagerOptions(
        best_fn=_rank,
        preservation_policy=AnyPreservationPolicy(keep),
        create=not read_only,
        read_only=read_only,
        cleanup_tmp_directories=not read_only,
        step_prefix="step",
    )
    return _Manager(folder, options, None if read_only else run / LOG)


class _Manager(ocp.CheckpointManager):
    """Logs errors of orbax to a file until it is closed: a late one must not open a file in a folder that may be gone.

    Other managers may be opened and closed meanwhile, as for teachers; they leave this one's log alone.
    """

    def __init__(self, folder: Path, options: ocp.CheckpointManagerOptions, log: Path | None) -> None:
        with ExitStack() as stack:
            if log:
                stack.enter_context(_logged(log))
            super().__init__(folder, options=options)
            self._log = stack.pop_all()

    def close(self) -> None:
        with self._log:
            super().close()


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write errors that orbax logs in the block to a file: each has a line of our own too."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # the disk may be full
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()


def _keep_off_terminal() -> None:
    """Keep errors of orbax off the terminal, from now on: its threads report some after the manager is closed."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        logger.handlers = [each for each in logger.handlers if isinstance(each, logging.FileHandler)]
        logger.addHandler(logging.NullHandler())
    if sys.unraisablehook is not _log_late_errors:
        _previous_hooks[:] = [sys.unraisablehook]
        sys.unraisablehook = _log_late_errors


_previous_hooks = [sys.__unraisablehook__]


def _log_late_errors(error: Any) -> None:
    """Log what TensorStore and orbax report of their other reads and writes, after one of them has failed."""
    if str(error.exc_value).startswith(("Event loop is closed", "Encountered error while reading array index")):
        logging.getLogger("asyncio").error("%s", one_line(error.exc_value))
    else:
        _previous_hooks[0](error)


def save(manager: ocp.CheckpointManager, step: int, tree: Any, progress: Progress, accuracy: float | None) -> None:
    """Start saving, unless this step is already saved.

    Args:
        manager: of the run.
        step: the number of steps done.
        tree: the arrays.
        progress: the rest.
        accuracy: on validation after this step; None inside an epoch.
    """
    if step in manager.all_steps():
        return
    metrics = None if accuracy is None else {"accuracy": accuracy, "step": step}
    stored = progress._asdict() | {"history": as_json(progress.history), "layouts": packing.layouts(tree)}
    stored["arrays"] = array_digests(tree)
    stored["digest"] = json_digest(stored)
    args = ocp.args.Composite(tree=ocp.args.StandardSave(tree), progress=ocp.args.JsonSave(stored))
    manager.save(step, args=args, metrics=metrics, force=True)


@contextmanager
def disk_errors(run: Path) -> Iterator[None]:
    """Turn any error of the block that a full or failing disk causes into a DiskError, which says what is saved."""
    try:
        yield
    except Exception as error:  # orbax and TensorStore raise errors of many types
        failures = [text for text in map(os.strerror, DISK_FAILURES) if text in f"{error} {error.__context__}"]
        if not failures:
            raise
        steps = run_folder.checkpoints(run)
        saved = f"step {max(steps)} is saved" if steps else "no checkpoint is saved yet"
        remedy = "free some space, then the same command resumes from there"
        raise DiskError(f"cannot write to {run}: {failures[0]}; {saved}; {remedy}") from None


def signature(leaf: Any) -> str:
    """Return the shape of an array, as text."""
    return str(list(leaf.shape))


def array_digests(tree: Any) -> dict[str, str]:
    """Return the shape and the BLAKE2 digest of each array of a tree, by its name."""
    entries = {}
    for name, leaf in named_leaves(tree, ".").items():
        content = np.asarray(leaf).tobytes()
        entries[name] = f"{signature(leaf)} {hashlib.blake2b(content, digest_size=8).hexdigest()}"
    return entries


def json_digest(stored: Mapping[str, Any]) -> str:
    """Return the BLAKE2 digest of the JSON item without its own digest."""
    content = {name: value for name, value in stored.items() if name != "digest"}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
