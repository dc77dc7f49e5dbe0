"""The search space of a tuning: config fields with their ranges and choices, from `get_search()` of its config file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError


class Range(NamedTuple):
    """All numbers from `low` to `high`, both included; whole numbers for a field of whole numbers."""

    low: float
    high: float
    log: bool = False  # sample evenly on a logarithmic scale
    points: int = 3  # values that grid search tries


Dimension = Range | Sequence[Any]  # a sequence lists the choices


class Search(NamedTuple):
    """The return value of `get_search()` in a tuning's config file."""

    space: Mapping[str, Dimension]  # by the dotted name of the field
    seeds: int = 1  # a trial's score is the mean over this many seeds: the config's and the next ones
    grace_epochs: int = 2  # no trial is pruned before this many epochs
    startup_trials: int = 5  # no trial is pruned before this many trials have finished


def load(path: str, config: ConfigDict) -> Search:
    """The search of a config file, each value in the type of its field.

    Args:
        path: a Python file with `get_search()`, or the name of a shipped config.
        config: the result of the file's `get_config()`: the values of all fields that are not searched.

    Raises:
        UserError: the file has no search, or a field or range is not valid.
    """
    search = config_lib.call(config_lib.find(path), "get_search")
    if not (isinstance(search, Search) and isinstance(search.space, Mapping) and search.space):
        raise UserError(
            f"{path}: get_search() must return a fer_jax.search_space.Search of one field or more; see configs/tune.py"
        )
    for name in ("seeds", "grace_epochs", "startup_trials"):
        value = getattr(search, name)
        if not (isinstance(value, int) and value >= 1):
            raise UserError(f"{path}: {name}={value!r} must be a whole number, at least 1")
    try:
        space = {name: _typed(config, name, dimension) for name, dimension in search.space.items()}
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return search._replace(space=space)


def _typed(config: ConfigDict, name: str, dimension: Dimension) -> Dimension:
    """The dimension with its values in the type of the config's field; ValueError for a value of another type."""
    fields = config_lib.flatten(config.to_dict())
    if name not in fields:
        raise ValueError(config_lib.unknown_field(name, fields))

    def typed(value: Any) -> Any:
        try:
            return config_lib.flatten(config_lib.with_values(config, {name: value}).to_dict())[name]
        except (TypeError, ValueError):
            kind = type(fields[name]).__name__
            raise ValueError(f"{name}: {value!r} is not of the field's type, {kind}") from None

    if not isinstance(dimension, Range):
        if isinstance(dimension, str) or not isinstance(dimension, Sequence) or not dimension:
            raise ValueError(f"{name}: {dimension!r} is neither a Range nor a list of choices")
        choices = [typed(value) for value in dimension]
        if len({repr(choice) for choice in choices}) < len(choices):
            raise ValueError(f"{name}: a choice is given twice: {choices}")
        return choices
    if isinstance(fields[name], bool) or not isinstance(fields[name], int | float):
        raise ValueError(f"{name}: a Range is for numbers; give a list of choices")
    low, high = typed(dimension.low), typed(dimension.high)
    if not low < high:
        raise ValueError(f"{name}: the range {low} to {high} is empty: low must be less than high")
    if dimension.log and low <= 0:
        raise ValueError(f"{name}: a logarithmic range cannot begin at {low}: low must be more than 0")
    if not (isinstance(dimension.points, int) and 2 <= dimension.points <= 1000):
        raise ValueError(f"{name}: points={dimension.points!r} must be a whole number, 2 to 1000")
    return dimension._replace(low=low, high=high)


def points(dimension: Dimension) -> list[Any]:
    """The values of a dimension that grid search tries."""
    if not isinstance(dimension, Range):
        return list(dimension)
    spaced = (np.geomspace if dimension.log else np.linspace)(dimension.low, dimension.high, dimension.points)
    if isinstance(dimension.low, int):
        return sorted({round(value) for value in spaced.tolist()})
    return [dimension.low, *spaced.tolist()[1:-1], dimension.high]


def ends(dimension: Dimension) -> list[Any]:
    """The values to check: both ends of a range, all choices."""
    return [dimension.low, dimension.high] if isinstance(dimension, Range) else list(dimension)


def as_json(search: Search) -> dict[str, Any]:
    """The identity of a search: its space, and the number of seeds behind a score."""
    space = {
        name: dimension._asdict() if isinstance(dimension, Range) else dimension
        for name, dimension in search.space.items()
    }
    return json.loads(json.dumps({"space": space, "seeds": search.seeds}))
