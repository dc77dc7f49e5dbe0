"""Checkpoints read: whole, undamaged, and fit for the network; damaged ones moved aside where a run goes on."""

import os
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from fer_jax.core import run_folder
from fer_jax.core.errors import UserError, one_line
from fer_jax.training import packing
from fer_jax.training.checkpoint import DamagedError, Progress, array_digests, json_digest, open_manager, signature
from fer_jax.training.history import EpochRecord, from_json
from fer_jax.training.shapes import mismatch, named_leaves

ANOTHER_VERSION = "if another version of fer_jax saved it, use that one, or train again"
DAMAGED = "damaged"  # in the run folder: checkpoints that were moved aside

Say = Callable[[str], None]


class Restored(NamedTuple):
    """The content of a checkpoint."""

    step: int
    tree: Any
    progress: Progress


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
                saved = restore(manager, "latest", like, sharding)
                _delete_superseded(manager)
                return manager, saved
            except BaseException:
                manager.close()
                raise
        except DamagedError as error:
            aside = _move_aside(run, error.folder)
            step = error.folder.name
            next_one = (
                "the one before it is tried" if run_folder.checkpoints(run) else "none is left: the run starts again"
            )
            say(f"checkpoint {step} is damaged ({error.reason}): moved to {aside}; {next_one}")


def _delete_superseded(manager: ocp.CheckpointManager) -> None:
    """Delete checkpoints that are neither the latest nor the best: a process was killed while it deleted them."""
    for step in set(manager.all_steps()) - {manager.latest_step(), manager.best_step()}:
        manager.delete(step)


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
    expected = {name: signature(leaf) for name, leaf in named_leaves(like, ".").items()}
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
        changed := [name for name, digest in array_digests(tree).items() if digests[name] != digest]
    ):
        raise ValueError(f"the array {changed[0]} has changed")
    return Restored(step, tree, progress)


def _misfit(folder: Path, expected: Mapping[str, str]) -> str:
    """The first array that does not fit; orbax would stop in the middle of its reads."""
    with closing(ocp.StandardCheckpointHandler()) as handler:
        # orbax turns named tuples into dicts, tuples into lists; with this separator their leaves have the same names
        stored = named_leaves(handler.metadata(folder / "tree"), ".")
    return mismatch({name: signature(leaf) for name, leaf in stored.items()}, expected)


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
    if stored.get("digest", (digest := json_digest(stored))) != digest:
        raise ValueError("its history has changed")
    return stored


def _progress(folder: Path, stored: Mapping[str, Any]) -> Progress:
    fields = {name: value for name, value in stored.items() if name in Progress._fields}
    try:
        return Progress(**{**fields, "history": from_json(stored["history"])})
    except TypeError as error:  # it lacks a field
        raise UserError(f"checkpoint {folder} cannot be restored: {one_line(error)}; {ANOTHER_VERSION}") from None
