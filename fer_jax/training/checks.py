"""The rules of a config: what each field may hold, and which values go together.

`RULES` has an entry for every field of `schema.default_config()`.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax.core import config as config_lib
from fer_jax.core import run_folder, schema
from fer_jax.core.config import shown
from fer_jax.core.errors import UserError, one_line
from fer_jax.data import augment, labels
from fer_jax.models import registry

Rule = Callable[[Any], str]  # from a value to what it must be, or "" where it is right


def _one_of(names: Collection[str]) -> Rule:
    def rule(value: Any) -> str:
        return "" if value in names else f"is unknown: choose one of {', '.join(names)}"

    return rule


def _between(low: float, high: float) -> Rule:
    def rule(value: Any) -> str:
        return "" if low <= value <= high else f"must be at least {low} and at most {high}"

    return rule


def _at_least(low: float) -> Rule:
    def rule(value: Any) -> str:
        return "" if low <= value < math.inf else f"must be at least {low}"

    return rule


def _multiple(step: int, low: int, high: int) -> Rule:
    between = _between(low, high)

    def rule(value: Any) -> str:
        return between(value) or ("" if value % step == 0 else f"must be a multiple of {step}")

    return rule


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "must be text"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be True or False"


def _names(value: Any) -> str:
    return "" if all(isinstance(item, str) for item in value) else "must be a tuple of names"


def _ascending(value: Any) -> str:
    numbers = all(isinstance(item, int | float) for item in value)
    return "" if numbers and list(value) == sorted(value) else "must be a tuple of numbers in ascending order"


def _factors(value: Any) -> str:
    factors = all(isinstance(item, int | float) and 0 <= item < math.inf for item in value)
    return "" if factors else "must be a tuple of numbers of at least 0"


def _optimizer(value: Any) -> str:
    from fer_jax.training import optim  # loads optax, which predictions do without

    return _one_of(optim.OPTIMIZERS)(value)


def _schedule(value: Any) -> str:
    from fer_jax.training import optim  # as above

    return _one_of(optim.SCHEDULES)(value)


_DECAY = _between(0, 0.999999)  # a decay of 1 would never change

RULES: Mapping[str, Rule] = {
    "seed": _between(0, 2**63),
    "data.dir": _text,
    "data.label_mode": _one_of(labels.MODES),
    "data.temperature": _between(0.01, 100),
    "data.smoothing": _between(0, 0.99),
    "data.balance": _between(0, 1),
    "data.logit_adjustment": _between(0, 10),
    "data.teachers": _names,
    "data.teacher_share": _between(0, 1),
    "data.drop_repeats": _flag,
    "image.size": _multiple(8, 16, 1024),
    "image.normalize": _one_of(augment.NORMALIZATIONS),
    "augment.recipe": _one_of(augment.RECIPES),
    "augment.erase": _between(0, 1),
    "augment.mixup": _between(0, 100),
    "augment.cutmix": _between(0, 1),
    "augment.renderer": _one_of(("host", "device")),
    "model.name": _one_of(registry.MODELS),
    "model.dropout": _between(0, 0.99),
    "model.dtype": _one_of(("float32", "bfloat16")),
    "model.width": _between(0.125, 16),
    "model.depth": _between(0, 16),
    "model.squeeze_excite": _flag,
    "model.antialias": _flag,
    "model.stochastic_depth": _between(0, 0.99),
    "optim.name": _optimizer,
    "optim.learning_rate": _between(0, 1e30),
    "optim.b1": _DECAY,
    "optim.b2": _DECAY,
    "optim.momentum": _DECAY,
    "optim.nesterov": _flag,
    "optim.weight_decay": _between(0, 1e6),
    "optim.l2": _between(0, 1e6),
    "optim.clip_norm": _at_least(0),
    "optim.ema_decay": _DECAY,
    "optim.swa_epochs": _at_least(0),
    "schedule.name": _schedule,
    "schedule.warmup_epochs": _at_least(0),
    "schedule.final_scale": _between(0, 1),
    "schedule.boundaries": _ascending,
    "schedule.scales": _factors,
    "train.init_from": _text,
    "train.epochs": _at_least(1),
    "train.batch_size": _at_least(1),
    "train.eval_batch_size": _at_least(1),
    "train.steps_per_call": _at_least(1),
    "train.patience": _at_least(0),
}


# The fields that predictions depend on.
NETWORK_FIELDS = [name for name in RULES if name.split(".")[0] in ("image", "augment", "model")]
NETWORK_FIELDS.append("train.eval_batch_size")


def check(config: ConfigDict) -> None:
    """Check every field of a config by its rule, and the fields that depend on each other.

    Raises:
        UserError: the first field that is unknown, missing or wrong, with what it must be.
    """
    fields = _fields(config)
    _check_rules(fields, RULES)
    if problem := _conflict(fields):
        raise UserError(problem)
    _check_model(config)


def check_network(config: ConfigDict) -> None:
    """Check the fields that predictions depend on, and that no field is unknown or missing.

    Raises:
        UserError: as `check` does.
    """
    _check_rules(_fields(config), NETWORK_FIELDS)
    _check_model(config)


def _fields(config: ConfigDict) -> dict[str, Any]:
    fields = config_lib.flatten(config.to_dict())
    if unknown := [name for name in fields if name not in RULES]:
        nearest = config_lib.unknown_field(unknown[0], RULES)
        raise UserError(f"the config was made for another version of fer_jax: {nearest}")
    if missing := [name for name in RULES if name not in fields]:
        raise UserError(f"the config was made for another version of fer_jax: it lacks {missing[0]}")
    return fields


def _check_rules(fields: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        try:
            problem = RULES[name](fields[name])
        except (TypeError, ValueError):
            default = config_lib.flatten(schema.default_config().to_dict())[name]
            problem = f"must be of the type of {default!r}"
        if problem:
            raise UserError(f"{name}={shown(fields[name])} {problem}")


def _check_model(config: ConfigDict) -> None:
    try:
        registry.create_model(**config.model)
    except ValueError as error:
        raise UserError(one_line(error)) from None


def _conflict(fields: Mapping[str, Any]) -> str:
    """Two fields that exclude each other, as an error text; "" where all go together."""
    mode = fields["data.label_mode"]
    if labels.MODES[mode].multi_hot:
        neutral = {"data.temperature": 1.0, "data.smoothing": 0.0, "augment.mixup": 0.0, "augment.cutmix": 0.0}
        for name, off in {**neutral, "data.teachers": type(fields["data.teachers"])()}.items():
            if fields[name] != off:
                return f"{name}={shown(fields[name])} does not go with data.label_mode={mode}: set it to {off}"
    for name, other in (("augment.mixup", "augment.cutmix"), ("optim.ema_decay", "optim.swa_epochs")):
        if fields[name] and fields[other]:
            return f"{name}={fields[name]!r} does not go with {other}={fields[other]!r}: set one of them to 0"
    if fields["optim.swa_epochs"] > fields["train.epochs"]:
        epochs = fields["train.epochs"]
        return f"optim.swa_epochs={fields['optim.swa_epochs']} must be at most train.epochs={epochs}"
    if fields["augment.renderer"] == "host" and fields["train.steps_per_call"] > 1:
        return "train.steps_per_call above 1 needs augment.renderer=device: the host renders step by step"
    if fields["model.depth"] == 0 and (fields["model.squeeze_excite"] or fields["model.stochastic_depth"]):
        return "model.depth=0 leaves no residual block for model.squeeze_excite and model.stochastic_depth"
    if len(fields["schedule.boundaries"]) != len(fields["schedule.scales"]):
        return "schedule.boundaries and schedule.scales must be of one length"
    return ""


def check_sources(config: ConfigDict) -> None:
    """Check that the run folders exist that a new run learns from.

    Raises:
        UserError: a teacher, or the network to start from, is missing.
    """
    for run in (*config.data.teachers, *([config.train.init_from] if config.train.init_from else [])):
        run_folder.read_config(run_folder.find(Path(run)))
