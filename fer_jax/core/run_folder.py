"""A run's folder: its config, the lock of the process that trains in it, and the files that every layer knows."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax.core import atomic, shipped
from fer_jax.core import config as config_lib
from fer_jax.core.cli import command
from fer_jax.core.errors import UserError, one_line

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
WEIGHTS = "weights.safetensors"  # of a released network, in place of checkpoints; see fer_jax.inference.weights
RESULT = "result.json"  # the metrics of a finished run of a sweep; see fer_jax.sweep
CARD = "README.md"  # of a released network: its model card
REPORTS = Path("experiments/reports")  # of released networks, whose own folders stay as they are


class BusyError(UserError):
    """Another process trains in the run folder."""


def find(name: str | Path) -> Path:
    """The run folder of that path, or the shipped network of that name, for example "best".

    A run folder with a shipped network's name is meant by `./best`.

    Raises:
        UserError: the name stands for both, a run folder here and a shipped network.
    """
    path, network = Path(name), shipped.networks().get(str(name))
    if network is None or str(name).startswith((".", "~")):
        return path.expanduser()
    if (path / CONFIG).is_file() and path.resolve() != network.resolve():
        raise UserError(f"{name} is a shipped network and a run folder here: write ./{name} or {network}")
    return network


def is_released(run: Path) -> bool:
    """True for the folder of a released network."""
    return (run / WEIGHTS).exists()


def has_checkpoint(run: Path) -> bool:
    """True where training has saved a checkpoint."""
    return any((run / CHECKPOINTS).glob("step_*"))


def default_workdir(config_path: str) -> Path:
    """The run folder, or study folder, of a config file where the user names none: experiments/<name of the config>."""
    return Path("experiments") / Path(config_path).stem


def read_config(run: Path) -> ConfigDict:
    """The config that a run was trained with, with the fields that came later.

    Raises:
        UserError: the folder has no readable config.json.
    """
    path = run / CONFIG
    try:
        return config_lib.with_later_fields(json.loads(path.read_text()))
    except FileNotFoundError:
        hint = f"train one with {command('main')}, or name a shipped network ({', '.join(shipped.networks())})"
        raise UserError(f"no run in {run}: {path} is missing; {hint}") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None


def claim(run: Path, config: ConfigDict, lock: bool = True) -> AbstractContextManager[Any]:
    """Make the run folder this config's: write its config.json, or check the one that it has.

    Args:
        run: the run folder.
        config: the config.
        lock: keep other processes out and write. Of the processes of one run, one does; the others only check.

    Returns:
        The lock. It keeps other processes out until it is closed or the process ends in whatever way.

    Raises:
        BusyError: another process holds the folder.
        UserError: the folder is another config's (the differing fields are named), is a released network's, or
            cannot be written.
    """
    if is_released(run):
        raise UserError(f"{run} holds a released network, which cannot be trained on; choose another --workdir")
    held: AbstractContextManager[Any] = hold(run) if lock else nullcontext()
    try:
        _write_config(run, config, lock)
    except UserError:
        with held:
            raise
    return held


def hold(run: Path) -> AbstractContextManager[Any]:
    """Make a run folder and keep other processes from training in it; see `claim`."""
    from filelock import FileLock, Timeout  # only training needs it: an extra

    try:
        run.mkdir(parents=True, exist_ok=True)
        return FileLock(run / ".lock", is_singleton=True).acquire(blocking=False)  # this process may hold it twice
    except Timeout:
        raise BusyError(f"another process trains in {run}; wait for it, or choose another --workdir") from None
    except OSError as error:
        raise UserError(f"cannot write {run}: {error.strerror}; choose another --workdir") from None


def _write_config(run: Path, config: ConfigDict, locked: bool) -> None:
    path = run / CONFIG
    new = config_lib.as_json(config)
    if path.is_file():
        old = config_lib.as_json(read_config(run))
        if old == new:
            return
        # A run that ended before its first checkpoint leaves nothing worth keeping.
        if has_checkpoint(run):
            differences = config_lib.differences(old, new)
            raise UserError(f"{run} holds a run of another config ({differences}); choose another --workdir")
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not locked:  # the processes of another run may be at work here
            return
        (run / RESULT).unlink(missing_ok=True)  # of the old config, whose checkpoints somebody has deleted
        with atomic.replacing(path) as partial:
            partial.write_text(json.dumps(new, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --workdir") from None


def check_replaceable(out: Path) -> None:
    """Raise UserError unless `out` is new, empty, or a released folder with nothing of the user's in it."""
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise UserError(f"{out} is no folder; choose another --out")
    there = {path.name for path in out.iterdir()}
    if there and WEIGHTS not in there:
        raise UserError(f"{out} exists and holds no released network; choose another --out")
    if others := there - {CONFIG, WEIGHTS, CARD, "report"}:
        raise UserError(f"{out} would be replaced, but also holds {min(others)}; move it away or choose another --out")
