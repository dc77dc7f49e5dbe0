"""Configs: a Python file with `get_config()`, overrides from the command line, and the run folder's config.json."""

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from absl import flags
from filelock import FileLock, Timeout
from ml_collections import ConfigDict, config_flags

from fer_jax import atomic
from fer_jax.cli import UserError

WEIGHTS = "weights.safetensors"  # of a released network, in place of checkpoints; see fer_jax.weights
RESULT = "result.json"  # what came of a finished run of a sweep; see fer_jax.sweep

# Fields that the config.json of older runs lacks, with what those runs did.
ADDED = {
    "augment.cutmix": 0.0,
    "augment.erase": 0.0,
    "augment.mixup": 0.0,
    "data.balance": 0.0,
    "data.drop_repeats": False,
    "data.logit_adjustment": 0.0,
    "data.smoothing": 0.0,
    "data.teacher_share": 0.5,
    "data.teachers": (),
    "data.temperature": 1.0,
    "model.width": 1.0,
    "model.depth": 1,
    "model.squeeze_excite": False,
    "model.antialias": False,
    "model.stochastic_depth": 0.0,
    "optim.swa_epochs": 0,
    "train.init_from": "",
    "train.steps_per_call": 1,
}


def load(path: str, overrides: Sequence[str]) -> ConfigDict:
    """The config of a file, with `--config.a.b=value` overrides, as ml_collections reads them.

    Raises:
        UserError: no such file, an error in it, an unknown field, a value of the wrong type, or an argument
            that is no override.
    """
    for argument in overrides:
        if not (argument.startswith("--config.") and "=" in argument):
            # "--config.x false" would set x to True and leave "false" lying about.
            raise UserError(f"unknown argument {argument!r}: overrides are written --config.field=value")
    if not Path(path).is_file():
        raise UserError(f"no config file {path}: give one of configs/*.py")
    values = flags.FlagValues()
    arguments = ["fer_jax", f"--config={path}", *overrides]
    flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except flags.Error as error:
        raise UserError(f"{path}: {_one_line(error)}") from None
    except (AttributeError, KeyError) as error:
        wanted = [argument.removeprefix("--config.").split("=")[0] for argument in overrides]
        fields = flatten(load(path, []).to_dict()) if wanted else {}
        unknown = next((name for name in wanted if name not in fields), None)
        raise UserError(f"{path}: {no_such_field(unknown, fields) if unknown else _one_line(error)}") from None
    except Exception as error:  # whatever the user's file raised while it ran
        raise UserError(f"{path}: {type(error).__name__}: {_one_line(error)}") from None
    if not isinstance(flag.value, ConfigDict):
        raise UserError(f"{path}: get_config() must return an ml_collections.ConfigDict")
    return flag.value


def no_such_field(name: str, fields: Collection[str]) -> str:
    """What to tell of a dotted name that is not among the fields of a config."""
    section, _, last = name.rpartition(".")
    beside = [field.removeprefix(f"{section}.") for field in fields if section and field.startswith(f"{section}.")]
    if near := difflib.get_close_matches(last if beside else name, beside or fields, 1):
        return f"no such field: {name}; did you mean {f'{section}.' * bool(beside)}{near[0]}?"
    return f"no such field: {name}" + f"; {section} has {', '.join(beside)}" * bool(beside)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def as_json(config: ConfigDict) -> dict[str, Any]:
    """The config as plain nested dicts and lists."""
    return json.loads(config.to_json())


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def with_values(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A copy of the config with fields set by their dotted names."""
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(values)
    return changed


class BusyError(UserError):
    """Another process trains in the run folder."""


def claim(run: Path, config: ConfigDict, lock: bool = True) -> AbstractContextManager[Any]:
    """Make the run folder this config's: write its config.json, or check the one that is there.

    Args:
        run: the run folder.
        config: the config.
        lock: keep other processes out and write (of the processes of one run, one does; the others only look).

    Returns:
        What keeps them out, until it is closed or the process ends in whatever way.

    Raises:
        BusyError: another process holds it.
        UserError: the folder is another config's (the differing fields are named), is a released network's, or
            cannot be written.
    """
    if (run / WEIGHTS).exists():
        raise UserError(f"{run} holds a released network, which cannot be trained on; choose another --workdir")
    held: AbstractContextManager[Any] = hold(run) if lock else nullcontext()
    try:
        _write(run, config, lock)
    except UserError:
        with held:
            raise
    return held


def hold(run: Path) -> AbstractContextManager[Any]:
    """Keep other processes from training in a run folder, which is made; see `claim`."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        return FileLock(run / ".lock", is_singleton=True).acquire(blocking=False)  # this process may hold it twice
    except Timeout:
        raise BusyError(f"another process trains in {run}; wait for it, or choose another --workdir") from None
    except OSError as error:
        raise UserError(f"cannot write {run}: {error.strerror}; choose another --workdir") from None


def _write(run: Path, config: ConfigDict, locked: bool) -> None:
    path = run / "config.json"
    new = as_json(config)
    if path.is_file():
        old = as_json(read(run))
        if old == new:
            return
        # a run that ended before its first checkpoint leaves nothing worth keeping
        if any((run / "checkpoints").glob("step_*")):
            raise UserError(f"{run} holds a run of another config ({changes(old, new)}); choose another --workdir")
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not locked:  # another run's processes may be at work here
            return
        (run / RESULT).unlink(missing_ok=True)  # of the other config, whose checkpoints somebody has deleted
        with atomic.replacing(path) as partial:
            partial.write_text(json.dumps(new, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --workdir") from None


def changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The fields in which two nested dicts differ, with both values, as text."""
    was, now = flatten(old), flatten(new)
    fields = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return ", ".join(f"{name}: {_shown(was, name)} there, {_shown(now, name)} now" for name in fields)


def _shown(fields: dict[str, Any], name: str) -> str:
    return repr(fields[name]) if name in fields else "missing"


def read(run: Path) -> ConfigDict:
    """The config that a run folder was trained with, with the fields that came later.

    Raises:
        UserError: the folder has no readable config.json.
    """
    path = run / "config.json"
    try:
        return completed(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"no run in {run}: {path} is missing; train one with python -m fer_jax.main") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {_one_line(error)}") from None


def completed(fields: Any) -> ConfigDict:
    """The config that was kept as JSON, with the fields that came later."""
    config = ConfigDict(fields)
    for field, value in ADDED.items():
        section, name = field.split(".")
        if section in config and name not in config[section]:
            config[section][name] = value
    return config
