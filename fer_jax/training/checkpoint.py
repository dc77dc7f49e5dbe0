"""Checkpoints of a run, by orbax: the latest, to resume from, and the best on validation, to use.

Saving is asynchronous (training goes on) and atomic (a checkpoint is complete or absent). A checkpoint holds the
TrainState, the metrics of the unfinished epoch, and a JSON item: `Progress`, with a digest of each array and of itself.
"""

import errno
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from fer_jax.core import run_folder
from fer_jax.core.errors import DiskError, UserError, one_line
from fer_jax.training import packing
from fer_jax.training.history import EpochRecord, as_json, from_json
from fer_jax.training.shapes import mismatch, named_leaves

ANOTHER_VERSION = "if another version of fer_jax saved it, use that one, or train again"
LOG = "checkpoints.log"  # in the run folder: errors of orbax
_DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
DAMAGED = "damaged"  # in the run folder: checkpoints that were moved aside

Say = Callable[[str], None]


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
            "again, which goes back to an undamaged one, or choose the other --checkpoint"
        )


class Restored(NamedTuple):
    """The content of a checkpoint."""

    step: int
    tree: Any
    progress: Progress


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    """The rank of a checkpoint, higher is better: by accuracy, and the earlier of equals, as in early stopping."""
    return metrics["accuracy"], -metrics["step"]


def open_manager(run: Path, read_only: bool = False) -> ocp.CheckpointManager:
    """Return the manager of `<run>/checkpoints`. Close it when done: saves may still be running.

    Raises:
        DamagedError: the metrics of a checkpoint are unreadable.
    """
    folder = (run / run_folder.CHECKPOINTS).absolute()
    _redirect_log(None if read_only else run / LOG)
    for metrics in sorted(folder.glob("step_*/metrics/metrics")):  # orbax reads them all
        try:
            _rank(json.loads(metrics.read_text()))
        except FileNotFoundError:  # another process has just deleted it
            pass
        except (ValueError, KeyError, TypeError):
            raise DamagedError(metrics.parents[1], "its metrics are unreadable") from None
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
    return ocp.CheckpointManager(folder, options=options)


def _redirect_log(path: Path | None) -> None:
    """Write errors that orbax logs to a file instead of the terminal, or nowhere: each has a line of our own too."""
    handler = logging.NullHandler() if path is None else logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # the disk may be full
    for name in ("absl", "asyncio"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        for previous in logger.handlers:
            previous.close()
        logger.handlers = [handler]
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
    stored["arrays"] = _digests(tree)
    stored["digest"] = _json_digest(stored)
    args = ocp.args.Composite(tree=ocp.args.StandardSave(tree), progress=ocp.args.JsonSave(stored))
    manager.save(step, args=args, metrics=metrics, force=True)


def resume(run: Path, like: Any, sharding: Sharding, say: Say) -> tuple[ocp.CheckpointManager, Restored | None]:
    """Return the manager of a run to train, and its newest undamaged checkpoint, None if there is none.

    Newer ones that are damaged are moved to `<run>/damaged`; `say` gets a line for each. The other arguments are those
    of `restore`.

    Raises:
        UserError: the checkpoint does not fit `like`, or cannot be read for another reason.
    """
    while True:
        try:
            manager = open_manager(run)
            try:
                return manager, restore(manager, "latest", like, sharding)
            except BaseException:
                manager.close()
                raise
        except DamagedError as error:
            aside = _move_aside(run, error.folder)
            step = error.folder.name
            say(f"checkpoint {step} is damaged ({error.reason}): moved to {aside}; the one before it is tried")


def _move_aside(run: Path, folder: Path) -> Path:
    number, aside = 1, run / DAMAGED / folder.name
    while aside.exists():  # the same step may be damaged a second time
        number, aside = number + 1, aside.with_name(f"{folder.name}_{number + 1}")
    several = jax.process_count() > 1
    if several:
        multihost_utils.sync_global_devices("all have seen the damage")
    if jax.process_index() == 0:
        aside.parent.mkdir(exist_ok=True)
        os.replace(folder, aside)
    if several:
        multihost_utils.sync_global_devices("it is moved aside")
    return aside


@contextmanager
def disk_errors(run: Path) -> Iterator[None]:
    """Turn any error of the block that a full or failing disk causes into a DiskError, which says what is saved."""
    try:
        yield
    except Exception as error:  # orbax and TensorStore raise errors of many types
        failures = [text for text in map(os.strerror, _DISK_FAILURES) if text in f"{error} {error.__context__}"]
        if not failures:
            raise
        steps = [
            int(path.name[5:]) for path in (run / run_folder.CHECKPOINTS).glob("step_*") if path.name[5:].isdigit()
        ]
        saved = f"step {max(steps)} is saved" if steps else "no checkpoint is saved yet"
        remedy = "free some space, then the same command resumes from there"
        raise DiskError(f"cannot write to {run}: {failures[0]}; {saved}; {remedy}") from None


def restore(manager: ocp.CheckpointManager, which: str, like: Any, sharding: Sharding) -> Restored | None:
    """Return the "latest" or "best" checkpoint, or None if there is none yet.

    Args:
        manager: of the run.
        which: "latest" or "best".
        like: a tree of the same shapes (jax.eval_shape gives one).
        sharding: of the restored arrays; their devices may differ from those that saved them.

    Raises:
        DamagedError: its files are damaged.
        UserError: the checkpoint does not fit `like`.
    """
    while True:
        step = manager.latest_step() if which == "latest" else manager.best_step()
        if step is None:
            return None
        folder = Path(manager.directory) / f"step_{step}"
        try:
            return _restore(manager, step, folder, like, sharding)
        except (UserError, jax.errors.JaxRuntimeError):  # the second: no memory left
            raise
        except Exception as error:  # orbax and TensorStore raise errors of many types for damaged files
            if not folder.exists():  # the process that trains has replaced it meanwhile
                manager.reload()
            elif isinstance(error, PermissionError) or "PERMISSION_DENIED" in str(error):
                raise UserError(f"checkpoint {folder} cannot be restored: {one_line(error)}") from None
            else:
                raise DamagedError(folder, error) from None


def _restore(manager: ocp.CheckpointManager, step: int, folder: Path, like: Any, sharding: Sharding) -> Restored:
    stored = _stored(manager, step)
    digests = stored.get("arrays")  # older checkpoints have none
    expected = {name: _signature(leaf) for name, leaf in named_leaves(like, ".").items()}
    problem = _misfit(folder, expected)
    if (
        problem
        and digests is not None
        and {name: digest.rpartition(" ")[0] for name, digest in digests.items()} == expected
    ):
        raise ValueError("its metadata have changed")
    if problem:
        raise UserError(f"checkpoint {folder} cannot be restored: {problem}; {ANOTHER_VERSION}")
    progress = _progress(folder, stored)
    if progress.layouts != packing.layouts(like):
        problem = "its biases, scales or statistics have other names"
        raise UserError(f"checkpoint {folder} cannot be restored: {problem}; {ANOTHER_VERSION}")
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    tree = manager.restore(step, args=ocp.args.Composite(tree=ocp.args.StandardRestore(abstract)))["tree"]
    if digests is not None and (
        changed := [name for name, digest in _digests(tree).items() if digests[name] != digest]
    ):
        raise ValueError(f"the array {changed[0]} has changed")
    return Restored(step, tree, progress)


def _misfit(folder: Path, expected: Mapping[str, str]) -> str:
    """The first array that does not fit; orbax would stop in the middle of its reads."""
    with closing(ocp.StandardCheckpointHandler()) as handler:
        # orbax turns named tuples into dicts, tuples into lists; with this separator their leaves have the same names
        stored = named_leaves(handler.metadata(folder / "tree"), ".")
    return mismatch({name: _signature(leaf) for name, leaf in stored.items()}, expected)


def _signature(leaf: Any) -> str:
    return str(list(leaf.shape))


def _digests(tree: Any) -> dict[str, str]:
    """The shape and the BLAKE2 digest of each array by its name."""
    digests = {}
    for name, leaf in named_leaves(tree, ".").items():
        content = np.asarray(leaf).tobytes()
        digests[name] = f"{_signature(leaf)} {hashlib.blake2b(content, digest_size=8).hexdigest()}"
    return digests


def _json_digest(stored: Mapping[str, Any]) -> str:
    content = {name: value for name, value in stored.items() if name != "digest"}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def history(manager: ocp.CheckpointManager) -> list[EpochRecord]:
    """Return the records of all epochs up to the latest checkpoint that can be read; [] if none can.

    A run that is still training may just have replaced the latest. The best one can be used without it.
    """
    for step in sorted(manager.all_steps(), reverse=True):
        with suppress(OSError, KeyError, ValueError, UserError):
            return _progress(Path(manager.directory) / f"step_{step}", _stored(manager, step)).history
    return []


def _stored(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The JSON item of a checkpoint; ValueError if it is damaged."""
    stored = manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]
    if stored.get("digest", (digest := _json_digest(stored))) != digest:
        raise ValueError("its history has changed")
    return stored


def _progress(folder: Path, stored: Mapping[str, Any]) -> Progress:
    fields = {name: value for name, value in stored.items() if name in Progress._fields}
    try:
        return Progress(**{**fields, "history": from_json(stored["history"])})
    except TypeError as error:  # it lacks a field
        raise UserError(f"checkpoint {folder} cannot be restored: {one_line(error)}; {ANOTHER_VERSION}") from None
