"""Checkpoints of a run, by orbax: the latest, to resume from, and the best on validation, to use.

Saving is asynchronous (training goes on) and atomic (a checkpoint is complete or absent). A checkpoint holds the
TrainState, the metrics of the unfinished epoch, and a JSON item: `Progress`.
"""

import logging as std_logging
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Sharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from fer_jax.core import run_folder
from fer_jax.core.errors import UserError, one_line
from fer_jax.training import packing
from fer_jax.training.history import EpochRecord, as_json, from_json
from fer_jax.training.shapes import mismatch, named_leaves

ANOTHER_VERSION = "if another version of fer_jax saved it, use that one, or train again"


class Progress(NamedTuple):
    """The state of a run outside its arrays, saved as JSON with each checkpoint."""

    history: list[EpochRecord]
    steps_per_epoch: int
    pictures: str = ""  # the digest of images and targets; "" in runs that are older than this field
    code: Sequence[Mapping[str, Any]] = ()  # each version of the code that trained: version, commit and from_step
    layouts: list[Any] | None = None  # the layouts of the packed arrays; see `packing.layouts`


class Restored(NamedTuple):
    """The content of a checkpoint."""

    step: int
    tree: Any
    progress: Progress


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    """The rank of a checkpoint, higher is better: by accuracy, and the earlier of equals, as in early stopping."""
    return metrics["accuracy"], -metrics["step"]


def open_manager(run: Path, read_only: bool = False) -> ocp.CheckpointManager:
    """Return the manager of `<run>/checkpoints`. Close it when done: saves may still be running."""
    logging.set_verbosity(logging.ERROR)
    std_logging.getLogger("absl").setLevel(std_logging.ERROR)
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
    return ocp.CheckpointManager((run / run_folder.CHECKPOINTS).absolute(), options=options)


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
    args = ocp.args.Composite(tree=ocp.args.StandardSave(tree), progress=ocp.args.JsonSave(stored))
    manager.save(step, args=args, metrics=metrics, force=True)


def restore(manager: ocp.CheckpointManager, which: str, like: Any, sharding: Sharding) -> Restored | None:
    """Return the "latest" or "best" checkpoint, or None if there is none yet.

    Args:
        manager: of the run.
        which: "latest" or "best".
        like: a tree of the same shapes (jax.eval_shape gives one).
        sharding: of the restored arrays; their devices may differ from those that saved them.

    Raises:
        UserError: the checkpoint does not fit `like` or is damaged.
    """
    step = manager.latest_step() if which == "latest" else manager.best_step()
    if step is None:
        return None
    folder = Path(manager.directory) / f"step_{step}"
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    try:
        _check_arrays(folder, like)
        progress = _progress(manager, step)
        if progress.layouts != packing.layouts(like):
            raise ValueError(f"its biases, scales or statistics have other names; {ANOTHER_VERSION}")
        restored = manager.restore(step, args=ocp.args.Composite(tree=ocp.args.StandardRestore(abstract)))
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"checkpoint {folder} cannot be restored: {one_line(error)}") from None
    return Restored(step, restored["tree"], progress)


def _check_arrays(folder: Path, like: Any) -> None:
    """Raise a ValueError that names the first array that does not fit; orbax would stop in the middle of its reads."""
    with closing(ocp.StandardCheckpointHandler()) as handler:
        # orbax turns named tuples into dicts, tuples into lists; with this separator their leaves have the same names
        stored, expected = (
            {name: str(list(leaf.shape)) for name, leaf in named_leaves(tree, ".").items()}
            for tree in (handler.metadata(folder / "tree"), like)
        )
    if problem := mismatch(stored, expected):
        raise ValueError(f"{problem}; {ANOTHER_VERSION}")


def history(manager: ocp.CheckpointManager) -> list[EpochRecord]:
    """Return the records of all epochs up to the latest checkpoint that can be read; [] if none can.

    A run that is still training may just have replaced the latest. The best one can be used without it.
    """
    for step in sorted(manager.all_steps(), reverse=True):
        with suppress(OSError, KeyError, ValueError):
            return _progress(manager, step).history
    return []


def _progress(manager: ocp.CheckpointManager, step: int) -> Progress:
    stored = manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]
    fields = {name: value for name, value in stored.items() if name in Progress._fields}
    try:
        return Progress(**{**fields, "history": from_json(stored["history"])})
    except TypeError as error:  # it lacks a field
        raise ValueError(f"{one_line(error)}; {ANOTHER_VERSION}") from None
