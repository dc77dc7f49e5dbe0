"""Configs: a Python file with `get_config()`, overrides from the command line, fields by their dotted names."""

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
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
_KINDS = {
    float: "a number",
    int: "a whole number",
    tuple: "a tuple of numbers or names",
    bool: "True or False",
    str: "text",
}
SHOWN = 60  # characters of a value in an error


def find(name: str) -> Path:
    """The config file of that path, or the shipped config of that name, for example "base".

    Raises:
        UserError: neither exists.
    """
    path, configs = Path(name).expanduser(), shipped.configs()
    if path.is_file():
        return path
    if name in configs:
        return configs[name]
    hint = difflib.get_close_matches(path.stem, configs, 1)
    suggestion = f"did you mean {hint[0]}? " if hint else ""
    raise UserError(f"no config file {name}: {suggestion}give a file, or a shipped config ({', '.join(configs)})")


def load(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of a file or of a shipped name, with `--config.a.b=value` overrides as ml_collections reads them.

    Raises:
        UserError: no such file, an error in it, an unknown or missing field, a value of the wrong type, or an argument
            that is no override.
    """
    for argument in overrides:
        if not (argument.startswith("--config.") and "=" in argument):
            # "--config.x false" would set x to True and leave "false" unused.
            raise UserError(f"unknown argument {argument!r}: overrides are written --config.field=value")
    path = find(name)
    values = flags.FlagValues()
    arguments = ["fer_jax", f"--config={path}", *overrides]
    flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except flags.Error as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    except (AttributeError, KeyError) as error:
        fields = flatten(load(name).to_dict()) if overrides else {}
        names = [argument.removeprefix("--config.").split("=")[0] for argument in overrides]
        unknown = next((field for field in names if field not in fields), None)
        raise UserError(f"{path}: {unknown_field(unknown, fields) if unknown else one_line(error)}") from None
    except Exception as error:  # whatever the user's file raised while it ran
        raise UserError(f"{path}: {type(error).__name__}: {one_line(error)}") from None
    if not isinstance(flag.value, ConfigDict):
        raise UserError(f"{path}: get_config() must return an ml_collections.ConfigDict")
    try:
        return conform(flag.value)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def conform(config: ConfigDict) -> ConfigDict:
    """The config with each value in the type of its field in `schema.default_config()`.

    A whole number may stand for a fraction, and 10.0 for 10.

    Raises:
        ValueError: an unknown or missing field, or a value of another type.
    """
    default = schema.default_config()
    fields, expected = flatten(config.to_dict()), flatten(default.to_dict())
    for name in fields:
        if name not in expected:
            raise ValueError(unknown_field(name, expected))
    if missing := [name for name in expected if name not in fields]:
        raise ValueError(f"the field {missing[0]} is missing: start from fer_jax.default_config() and change fields")
    return with_values(default, {name: _typed(name, value, expected[name]) for name, value in fields.items()})


def _typed(name: str, value: Any, default: Any) -> Any:
    kind, number = type(default), isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is int and number and float(value).is_integer():
        return int(value)
    if kind is tuple and isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
        return tuple(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    kinds = {
        float: "a number",
        int: "a whole number",
        tuple: "a tuple of numbers or names",
        bool: "True or False",
        str: "text",
    }
    raise ValueError(f"{name}={shown(value)} must be {kinds[kind]}")


def unknown_field(name: str, fields: Collection[str]) -> str:
    """The error text for a dotted name that is not among the fields of a config, with the nearest name."""
    section, _, last = name.rpartition(".")
    siblings = [field.removeprefix(f"{section}.") for field in fields if section and field.startswith(f"{section}.")]
    if nearest := difflib.get_close_matches(last if siblings else name, siblings or fields, 1):
        return f"no such field: {name}; did you mean {f'{section}.' * bool(siblings)}{nearest[0]}?"
    return f"no such field: {name}" + f"; {section} has {', '.join(siblings)}" * bool(siblings)


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


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The fields in which two nested dicts differ, with both values, as text."""
    before, after = flatten(old), flatten(new)

    def text(fields: dict[str, Any], name: str) -> str:
        return shown(fields[name]) if name in fields else "missing"

    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name}: {text(before, name)} there, {text(after, name)} now" for name in names)


def shown(value: Any) -> str:
    """A value as an error shows it, at most `SHOWN` characters long."""
    return one_line(repr(value), SHOWN)


def with_later_fields(fields: Any) -> ConfigDict:
    """The config that a run has stored as JSON, with the fields that came later."""
    config = ConfigDict(fields)
    for field, value in LATER_FIELDS.items():
        section, name = field.split(".")
        if section in config and name not in config[section]:
            config[section][name] = value
    return config
