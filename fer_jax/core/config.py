"""Configs: Python files with `get_config()`, overrides of the command line, fields by their dotted names."""

import difflib
import itertools
import json
import math
import reprlib
import runpy
import traceback
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from fer_jax.core import schema, shipped
from fer_jax.core.errors import UserError, one_line

# Fields that the config.json of older runs lacks, with the values that describe those runs.
LATER_FIELDS = {
    "augment.cutmix": 0.0,
    "augment.erase": 0.0,
    "augment.final_epochs": 0,
    "augment.final_recipe": "none",
    "augment.mixup": 0.0,
    "data.balance": 0.0,
    "data.drop_repeats": False,
    "data.fraction": 1.0,
    "data.logit_adjustment": 0.0,
    "data.smoothing": 0.0,
    "data.teacher_share": 0.5,
    "data.teachers": (),
    "data.temperature": 1.0,
    "model.width": 1.0,
    "model.depth": 1,
    "model.squeeze_excite": False,
    "model.antialias": False,
    "model.symmetric": False,
    "model.stochastic_depth": 0.0,
    "optim.freeze": (),
    "optim.swa_epochs": 0,
    "train.init_from": "",
    "train.steps_per_call": 1,
}
_KINDS = {
    float: "a number",
    int: "a whole number",
    tuple: "a tuple of numbers or names",
    bool: "True or False",
    str: "text",
}
SHOWN = 60  # characters of a value in an error
_LARGEST = 1e300  # a whole number may be too large for a float
_DIFFERENCES = 150  # characters of the differences of two configs in an error
_NAME = 40  # characters of a mistyped name in an error
_repr = reprlib.Repr()  # stops at values that are long or nested deeply
_repr.maxstring = _repr.maxother = _repr.maxlong = SHOWN


def find(name: str) -> Path:
    """Return the config file of a path, or the shipped config of a name, for example "base".

    Raises:
        UserError: neither exists, or both do, or the file has another ending than .py.
    """
    path, configs = Path(name).expanduser(), shipped.configs()
    if path.is_file():
        if name in configs and not path.samefile(configs[name]):
            raise UserError(f"{name} is a shipped config and a file here: write ./{name} or {configs[name]}")
        if path.suffix not in ("", ".py"):
            raise UserError(f"{name} is not a Python file: give a .py file with get_config(), or a shipped config")
        return path
    if name in configs:
        return configs[name]
    hint = difflib.get_close_matches(path.stem, configs, 1)
    suggestion = f"did you mean {hint[0]}? " if hint else ""
    raise UserError(
        f"no config file {one_line(name, SHOWN)}: {suggestion}give a file, or a shipped config ({', '.join(configs)})"
    )


def load(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the config of a file or of a shipped name, with overrides.

    Args:
        name: the path of a Python file with `get_config()`, or the name of a shipped config.
        overrides: arguments `--config.section.field=value`, in the syntax of ml_collections.

    Raises:
        UserError: no such file, an error in it, an unknown or missing field, a value of another type, or an argument
            that is no override.
    """
    for argument in overrides:
        if not (argument.startswith("--config.") and "=" in argument):
            # ml_collections would set x to True for "--config.x false", and leave "false" unused.
            raise UserError(f"unknown argument {shown(argument)}: overrides are written --config.field=value")
    path = find(name)
    config = call(path, "get_config")
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() must return an ml_collections.ConfigDict")
    try:
        config = conform(config)
        return conform(_overridden(config, overrides)) if overrides else config
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: {error}") from None


def call(path: Path, function: str, default: Any = None) -> Any:
    """Run a config file and return the result of one of its functions, or the default if it has no such function.

    Raises:
        UserError: the file raised an error; the line number is given.
    """
    try:
        defined = runpy.run_path(str(path))
        return defined[function]() if function in defined else default
    except (Exception, SystemExit) as error:  # the code is the user's: any error is possible
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UserError(f"{place}: {type(error).__name__}: {one_line(_text(error))}") from None


def _text(error: BaseException) -> str:
    """The text of an error; a KeyError shows its own in quotes, and ml_collections wraps one in an AttributeError."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _overridden(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """The config with overrides; ValueError for a field that does not exist, or a value that cannot be read."""
    fields = flatten(config.to_dict())
    for argument in overrides:
        name = argument.removeprefix("--config.").split("=")[0]
        if name not in fields:
            raise ValueError(unknown_field(name, fields))
    values = flags.FlagValues()
    arguments = ["fer_jax", *overrides]
    try:
        flag = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        values(arguments)
    except Exception as error:  # absl and ml_collections have no common class of errors
        raise ValueError(one_line(error)) from None
    return flag.value


def conform(config: ConfigDict) -> ConfigDict:
    """Return the config with each value in the type of its field in `schema.default_config()`, locked.

    A whole number may stand for a fraction, 10.0 for 10, a list for a tuple and a path for its text.

    Raises:
        ValueError: an unknown or missing field, or a value of another type.
    """
    try:
        fields = flatten(config.to_dict())
    except (RecursionError, TypeError):  # sections without end; names that are no text
        raise ValueError("a config has sections, and fields with names in them, nothing else") from None
    expected = flatten(schema.default_config().to_dict())
    for name, value in fields.items():
        if any(field.startswith(f"{name}.") for field in expected):
            raise ValueError(f"{name}={shown(value)} must be a section with fields")
        if name not in expected:
            raise ValueError(unknown_field(name, expected))
    if missing := [name for name in expected if name not in fields]:
        section = missing[0].split(".")[0]
        whole = not any(name.startswith(f"{section}.") for name in fields)
        place = f"section {section}" if whole else f"field {missing[0]}"
        raise ValueError(f"the {place} is missing: start from fer_jax.default_config() and change fields")
    tree: dict[str, Any] = {}
    for name, default in expected.items():
        section, _, last = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[last] = _typed(name, fields[name], default)
    return ConfigDict(tree).lock()


def _typed(name: str, value: Any, default: Any) -> Any:
    kind, value = type(default), _plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value} must be a finite number")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind is float and abs(value) < _LARGEST:
            return float(value)
        if kind is int and (isinstance(value, int) or value.is_integer()):
            return int(value)
    elif kind is tuple and isinstance(value, list | tuple):
        items = tuple(map(_plain, value))
        if all(isinstance(item, str) or (isinstance(item, int | float) and abs(item) < _LARGEST) for item in items):
            return items
    elif kind in (bool, str) and isinstance(value, kind):
        return value
    raise ValueError(f"{name}={shown(value)} must be {_KINDS[kind]}")


def _plain(value: Any) -> Any:
    """A value in a type that JSON holds: a number of numpy as Python's, a path as text; others as they are."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return str(value) if isinstance(value, PathLike) else value


def unknown_field(name: str, fields: Collection[str]) -> str:
    """Return the error text for a dotted name that a config does not have, with the nearest name."""
    section, _, last = name.rpartition(".")
    siblings = [field.removeprefix(f"{section}.") for field in fields if section and field.startswith(f"{section}.")]
    text = f"no such field: {one_line(name, _NAME)}"
    if nearest := difflib.get_close_matches(last if siblings else name, siblings or fields, 1):
        return f"{text}; did you mean {f'{section}.' * bool(siblings)}{nearest[0]}?"
    return text + f"; {section} has {', '.join(siblings)}" * bool(siblings)


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Return the config as plain nested dicts and lists."""
    return json.loads(config.to_json())


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, with dotted names; an empty dict stays a value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def with_values(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Return a copy of the config with fields set by their dotted names."""
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(values)
    return changed


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the first differences of two nested dicts, each with both values, and the count of the others, as text."""
    before, after = flatten(old), flatten(new)

    def text(fields: dict[str, Any], name: str) -> str:
        return shown(fields[name]) if name in fields else "missing"

    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    parts = [f"{one_line(name, _NAME)}: {text(before, name)} there, {text(after, name)} now" for name in names]
    count = max(1, sum(total <= _DIFFERENCES for total in itertools.accumulate(map(len, parts))))
    return ", ".join(parts[:count]) + f", and {len(parts) - count} more" * (len(parts) > count)


def shown(value: Any) -> str:
    """Return a value as an error shows it, at most `SHOWN` characters long."""
    try:
        return one_line(_repr.repr(value), SHOWN)
    except ValueError:  # Python shows no whole number of more than 4,300 digits
        return f"<{type(value).__name__}>"


def with_later_fields(fields: Any) -> ConfigDict:
    """Return the config that a run has stored as JSON, with the fields that came later."""
    config = ConfigDict(fields)
    for field, value in LATER_FIELDS.items():
        section, name = field.split(".")
        if section in config and name not in config[section]:
            config[section][name] = value
    return config
