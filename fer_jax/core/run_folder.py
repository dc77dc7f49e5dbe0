"""The run folder: the names of its files, its config, and the lock of the process that trains in it."""

import errno
import json
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax.core import atomic, schema, shipped
from fer_jax.core import config as config_lib
from fer_jax.core.cli import command
from fer_jax.core.errors import DISK_FAILURES, DiskError, UserError, file_error, one_line

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
WEIGHTS = "weights.safetensors"  # of a released network, instead of checkpoints; see fer_jax.inference.weights
RESULT = "result.json"  # the metrics of a finished run of a sweep; see fer_jax.search.sweep
GRAPH = "network.onnx"  # of a released network, for onnxruntime; see fer_jax.inference.onnx_network
PREDICTIONS = "taught.npz"  # of the teachers, for the training images; see fer_jax.data.soft_targets
EXPORTED = {  # by the ending: the reason why a file is no run folder
    ".onnx": "is exported already, and this command reads run folders",
    ".stablehlo": "is a StableHLO file, which fer_jax does not read",
}
CARD = "README.md"  # the model card of a released network
REPORTS = Path("experiments/reports")  # of released networks: their folders stay unchanged
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class BusyError(UserError):
    """Another process is training in the run folder."""


def find(name: str | Path) -> Path:
    """Return the run folder of a path, or of a shipped network's name, for example "best".

    `./best` is always the folder in the working directory.

    Raises:
        UserError: the name is a shipped network's, and a run folder here has it too.
    """
    path, network = Path(name), shipped.networks().get(str(name))
    if network is None or str(name).startswith((".", "~")):
        return path.expanduser()
    if (path / CONFIG).is_file() and path.resolve() != network.resolve():
        raise UserError(f"{name} is a shipped network and a run folder here: write ./{name} or {network}")
    return network


def is_predictions(name: str) -> bool:
    """Return True for the name of a file of predictions; other teachers are runs."""
    return name.endswith(Path(PREDICTIONS).suffix)


def find_predictions(name: str) -> Path:
    """Return the path of a file of predictions; that of a shipped network is for example "best/taught.npz".

    `./best/taught.npz` is always the file in the working directory.

    Raises:
        UserError: there is no such file, or both have the name.
    """
    path = Path(name).expanduser()
    network = None if name.startswith((".", "~")) else shipped.networks().get(str(path.parent))
    if network is not None and (shipped_path := network / path.name).is_file():
        if path.is_file() and path.resolve() != shipped_path.resolve():
            raise UserError(f"{name} is of a shipped network and of a folder here: write ./{name} or {shipped_path}")
        path = shipped_path
    if not path.is_file():
        raise UserError(f"no file of predictions {name}; name the {PREDICTIONS} of a run that had teachers, or a run")
    return path


def is_released(run: Path) -> bool:
    """Return True for the folder of a released network."""
    return (run / WEIGHTS).exists()


def has_checkpoint(run: Path) -> bool:
    """Return True if training has saved a checkpoint."""
    return bool(checkpoints(run))


def checkpoints(run: Path) -> dict[int, Path]:
    """Return the folders of a run's checkpoints by step, without those that are incomplete: their names are longer."""
    named = ((path.name.removeprefix("step_"), path) for path in (run / CHECKPOINTS).glob("step_*"))
    return {int(step): path for step, path in named if step.isdigit()}


def default_workdir(config_path: str) -> Path:
    """Return the default run folder or study folder of a config: experiments/<name of the config>."""
    return Path("experiments") / Path(config_path).stem


def read_config(run: Path) -> ConfigDict:
    """Return the config that a run was trained with, with the fields that came later.

    Raises:
        UserError: the folder has no readable config.json.
    """
    path = run / CONFIG
    if run.suffix in EXPORTED and not run.is_dir():
        raise UserError(f"{run} {EXPORTED[run.suffix]}: name the run folder that it was exported from")
    try:
        config = config_lib.with_later_fields(json.loads(path.read_text()))
    except FileNotFoundError:
        if has_checkpoint(run):
            raise UserError(f"{path} is missing; the command that trained this run writes it again") from None
        recipe = next((name for name in shipped.configs() if run == default_workdir(name)), "")
        train = f"it first with {command('main')} --config {recipe}" if recipe else f"one with {command('main')}"
        hint = f"train {train}, or name a shipped network ({', '.join(shipped.networks())})"
        raise UserError(f"no run in {run}: {path} is missing; {hint}") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None
    sections = [name for name, value in schema.default_config().items() if isinstance(value, ConfigDict)]
    if missing := [name for name in sections if not isinstance(config.get(name), ConfigDict)]:
        raise UserError(f"{path} cannot be read: the section {missing[0]} is missing")
    for section in sections:  # deeper ones could not be written as JSON again
        if nested := [name for name, value in config[section].items() if isinstance(value, ConfigDict)]:
            raise UserError(f"{path} cannot be read: {section}.{nested[0]} must be a field, not a section")
    return config


def claim(run: Path, config: ConfigDict, lock: bool = True) -> AbstractContextManager[Any]:
    """Make a run folder for a config: write its config.json, or check the existing one.

    Args:
        run: the run folder.
        config: the config.
        lock: keep other processes out, and write. One process of a run does this; the others only check.

    Returns:
        The lock. It keeps other processes out until it is closed or the process ends in any way.

    Raises:
        BusyError: another process holds the folder.
        UserError: the folder has another config (the differing fields are named), holds a released network, or cannot
            be written.
    """
    if is_released(run):
        raise UserError(f"{run} holds a released network, which cannot be trained on; choose another --workdir")
    claimed: AbstractContextManager[Any] = hold(run) if lock else nullcontext()
    try:
        _write_config(run, config, lock)
    except UserError:
        with claimed:  # closes the lock
            raise
    return claimed


def hold(run: Path) -> AbstractContextManager[Any]:
    """Make a run folder and return its lock, which keeps other processes from training in it; see `claim`."""
    from filelock import Timeout  # only training needs it: an extra

    try:
        run.mkdir(parents=True, exist_ok=True)
        return lock_file(run / LOCK, timeout=0)
    except Timeout as error:
        message = f"another process is training in {run}; wait for it, or choose another --workdir"
        if Path(error.lock_file).name != LOCK:  # it may have been left by a process of another machine
            message += f"; if none is, delete {error.lock_file}"
        raise BusyError(message) from None
    except OSError as error:
        raise _unwritable(run, error) from None


def _unwritable(path: Path, error: OSError) -> UserError:
    if error.errno in DISK_FAILURES:
        return DiskError(file_error(error, path))
    return UserError(f"cannot write {path}: {error.strerror}; choose another --workdir")


def lock_file(path: Path, timeout: float = -1) -> AbstractContextManager[Any]:
    """Return the lock of a file. This process may hold it twice.

    Where the file system has no locks, as some network file systems, a second file that exists only meanwhile is the
    lock. One that a killed process of this machine left is taken over.

    Args:
        path: the file.
        timeout: seconds to wait for it; -1 for ever.

    Raises:
        filelock.Timeout: another process holds the lock.
    """
    from filelock import FileLock, SoftFileLock  # as above

    try:
        with warnings.catch_warnings(action="ignore"):  # filelock falls back by itself in one case, with a warning
            return FileLock(path, is_singleton=True).acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    soft = SoftFileLock(path.with_name(f"{path.name}.held"), is_singleton=True)
    return soft.acquire(timeout=timeout or 0.5)  # a second attempt follows a takeover


def _write_config(run: Path, config: ConfigDict, locked: bool) -> None:
    trained = has_checkpoint(run)  # a run that ended before its first checkpoint leaves nothing worth keeping
    if (run / CONFIG).is_file():
        try:
            old = read_config(run)
        except UserError:
            if trained:
                raise
        else:
            if config_lib.as_json(old) == config_lib.as_json(config):
                return
            if trained:
                check_same(run, old, config)
    elif trained:  # training compares the checkpoint's config, then calls `write_config`
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not locked:  # another run may be training here
            return
        (run / RESULT).unlink(missing_ok=True)  # of the old config; its checkpoints were deleted
        write_config(run, config)
    except OSError as error:
        raise _unwritable(run / CONFIG, error) from None


def check_same(run: Path, old: ConfigDict, new: ConfigDict) -> None:
    """Raise a UserError that names the differing fields, if a run was trained with another config."""
    if differences := config_lib.differences(config_lib.as_json(old), config_lib.as_json(new)):
        raise UserError(f"{run} holds a run of another config ({differences}); choose another --workdir")


def write_config(run: Path, config: ConfigDict) -> None:
    """Write config.json."""
    with atomic.replacing(run / CONFIG) as partial:
        partial.write_text(json.dumps(config_lib.as_json(config), indent=2) + "\n")


def check_replaceable(out: Path) -> None:
    """Raise UserError unless `out` is new, empty, or a released network without files of the user."""
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise UserError(f"{out} is not a folder; choose another --out")
    names = {path.name for path in out.iterdir()}
    if names and WEIGHTS not in names:
        raise UserError(f"{out} exists and holds no released network; choose another --out")
    if others := names - {CONFIG, WEIGHTS, GRAPH, PREDICTIONS, CARD, "report"}:
        raise UserError(f"{out} would be replaced, but also holds {min(others)}; move it away or choose another --out")
