"""What a tuning searches: config fields with their ranges and choices, as `get_search()` of its config file says."""

import json
import runpy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError, one_line


class Range(NamedTuple):
    """All numbers from `low` to `high`, both included: whole ones where the field's are."""

    low: float
    high: float
    log: bool = False  # spread evenly over the logarithm
    points: int = 3  # how many of them grid search tries


Dimension = Range | Sequence[Any]  # a sequence holds the choices


class Search(NamedTuple):
    """What `get_search()` of a tuning's config file returns."""

    space: Mapping[str, Dimension]  # by the dotted name of the field
    seeds: int = 1  # a trial's figure is the mean over so many seeds, the config's and those after it
    grace_epochs: int = 2  # every trial gets these before it may be pruned
    startup_trials: int = 5  # so many trials are finished before the first is pruned


def load(path: str, config: ConfigDict) -> Search:
    """The search of a config file, each value in the type of its field.

    Args:
        path: of a Python file with `get_search()`.
        config: what the file's `get_config()` gives: the values of all fields that are not searched.

    Raises:
        UserError: the file has no search, or a field or range of it makes no sense.
    """
    try:
        search = runpy.run_path(str(config_lib.find(path))).get("get_search", lambda: None)()
    except Exception as error:  # whatever the user's file raised while it ran
        raise UserError(f"{path}: {type(error).__name__}: {one_line(error)}") from None
    if not (isinstance(search, Search) and isinstance(search.space, Mapping) and search.space):
        raise UserError(
            f"{path}: get_search() must return a fer_jax.search_space.Search of one field or more; see configs/tune.py"
        )
    for name in ("seeds", "grace_epochs", "startup_trials"):
        value = getattr(search, name)
        if not (isinstance(value, int) and value >= 1):
            raise UserError(f"{path}: {name}={value!r} must be a whole number, at least 1")
    try:
        return search._replace(space={name: _typed(config, name, of) for name, of in search.space.items()})
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _typed(config: ConfigDict, name: str, dimension: Dimension) -> Dimension:
    """The dimension with its values as the config holds them; ValueError where it cannot hold them."""
    fields = config_lib.flatten(config.to_dict())
    if name not in fields:
        raise ValueError(config_lib.unknown_field(name, fields))

    def held(value: Any) -> Any:
        try:
            return config_lib.flatten(config_lib.with_values(config, {name: value}).to_dict())[name]
        except (TypeError, ValueError):
            kind = type(fields[name]).__name__
            raise ValueError(f"{name}: {value!r} is not of the field's type, {kind}") from None

    if not isinstance(dimension, Range):
        if isinstance(dimension, str) or not isinstance(dimension, Sequence) or not dimension:
            raise ValueError(f"{name}: {dimension!r} is neither a Range nor a list of choices")
        choices = [held(value) for value in dimension]
        if len({repr(choice) for choice in choices}) < len(choices):
            raise ValueError(f"{name}: a choice is given twice: {choices}")
        return choices
    if isinstance(fields[name], bool) or not isinstance(fields[name], int | float):
        raise ValueError(f"{name}: a Range is for numbers; give a list of choices")
    low, high = held(dimension.low), held(dimension.high)
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
    """What makes two searches the same one: the space, and over how many seeds a figure is the mean."""
    space = {name: of._asdict() if isinstance(of, Range) else of for name, of in search.space.items()}
    return json.loads(json.dumps({"space": space, "seeds": search.seeds}))
