"""The rules of a config: the values that each field may have, and the fields that exclude each other.

`RULES` has an entry for every field of `schema.default_config()`.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from fer_jax.core import config as config_lib
from fer_jax.core.config import shown
from fer_jax.core.errors import UserError, one_line
from fer_jax.data import labels, normalize, recipes
from fer_jax.models import registry

Rule = Callable[[Any], str]  # from a value to what it must be, or "" if it is right


def _one_of(names: Collection[str]) -> Rule:
    def rule(value: Any) -> str:
        return "" if isinstance(value, str) and value in names else f"is unknown: choose one of {', '.join(names)}"

    return rule


def _number(low: float, high: float) -> Rule:
    def rule(value: Any) -> str:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return "must be a number"
        return "" if low <= value <= high else f"must be at least {low:,} and at most {high:,}"

    return rule


def _whole(low: int, high: int = 1_000_000) -> Rule:
    in_range = _number(low, high)

    def rule(value: Any) -> str:
        if not isinstance(value, int) or isinstance(value, bool):
            return "must be a whole number"
        return in_range(value)

    return rule


def _multiple(step: int, low: int, high: int) -> Rule:
    whole = _whole(low, high)

    def rule(value: Any) -> str:
        return whole(value) or ("" if value % step == 0 else f"must be a multiple of {step}")

    return rule


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "must be text"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be True or False"


def _tuple_of(item: Callable[[Any], bool], items: str) -> Rule:
    def rule(value: Any) -> str:  # a config that was stored as JSON has lists
        return "" if isinstance(value, list | tuple) and all(map(item, value)) else f"must be a tuple of {items}"

    return rule


def _non_negative(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _ascending(value: Any) -> str:
    numbers = isinstance(value, list | tuple) and all(map(_non_negative, value))
    return "" if numbers and list(value) == sorted(value) else "must be a tuple of numbers in ascending order"


def _optimizer(value: Any) -> str:
    from fer_jax.training import optim  # loads optax, which predictions do without

    return _one_of(optim.OPTIMIZERS)(value)


def _schedule(value: Any) -> str:
    from fer_jax.training import optim  # as above

    return _one_of(optim.SCHEDULES)(value)


_DECAY = _number(0, 0.999999)  # a decay of 1 would never change

RULES: Mapping[str, Rule] = {
    "seed": _whole(0, 2**63),
    "data.dir": _text,
    "data.label_mode": _one_of(labels.MODES),
    "data.temperature": _number(0.01, 100),
    "data.smoothing": _number(0, 0.99),
    "data.balance": _number(0, 1),
    "data.logit_adjustment": _number(0, 10),
    "data.teachers": _tuple_of(lambda item: isinstance(item, str), "names"),
    "data.teacher_share": _number(0, 1),
    "data.drop_repeats": _flag,
    "data.fraction": _number(0.001, 1),
    "image.size": _multiple(8, 16, 1024),
    "image.normalize": _one_of(normalize.NORMALIZATIONS),
    "augment.recipe": _one_of(recipes.RECIPES),
    "augment.erase": _number(0, 1),
    "augment.mixup": _number(0, 100),
    "augment.cutmix": _number(0, 1),
    "augment.final_recipe": _one_of(recipes.RECIPES),
    "augment.final_epochs": _whole(0),
    "augment.renderer": _one_of(("host", "device")),
    "model.name": _one_of(registry.MODELS),
    "model.dropout": _number(0, 0.99),
    "model.dtype": _one_of(("float32", "bfloat16")),
    "model.width": _number(0.125, 16),
    "model.depth": _whole(0, 16),
    "model.squeeze_excite": _flag,
    "model.antialias": _flag,
    "model.symmetric": _flag,
    "model.stochastic_depth": _number(0, 0.99),
    "optim.name": _optimizer,
    "optim.learning_rate": _number(0, 1e30),
    "optim.b1": _DECAY,
    "optim.b2": _DECAY,
    "optim.momentum": _DECAY,
    "optim.nesterov": _flag,
    "optim.weight_decay": _number(0, 1e6),
    "optim.l2": _number(0, 1e6),
    "optim.clip_norm": _number(0, 1e30),
    "optim.ema_decay": _DECAY,
    "optim.swa_epochs": _whole(0),
    "optim.freeze": _tuple_of(lambda item: isinstance(item, str), "names"),
    "schedule.name": _schedule,
    "schedule.warmup_epochs": _number(0, 1_000_000),
    "schedule.final_scale": _number(0, 1),
    "schedule.boundaries": _ascending,
    "schedule.scales": _tuple_of(_non_negative, "numbers of at least 0"),
    "train.init_from": _text,
    "train.epochs": _whole(1),
    "train.batch_size": _whole(1),
    "train.eval_batch_size": _whole(1),
    "train.steps_per_call": _whole(1),
    "train.patience": _whole(0),
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
        raise UserError(f"{nearest} (or the config was made for another version of fer_jax)")
    if missing := [name for name in RULES if name not in fields]:
        raise UserError(f"the field {missing[0]} is missing: the config was made for another version of fer_jax")
    return fields


def _check_rules(fields: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if problem := RULES[name](fields[name]):
            raise UserError(f"{name}={shown(fields[name])} {problem}")


def _check_model(config: ConfigDict) -> None:
    try:
        model = registry.create_model(**config.model)
    except ValueError as error:
        raise UserError(one_line(error)) from None
    if config.model.symmetric and config.image.size % (multiple := model.symmetric_multiple):
        raise UserError(
            f"model.symmetric=True needs an image.size that is a multiple of {multiple}, so that {config.model.name} "
            f"halves even sides only; it is {config.image.size}"
        )


def _conflict(fields: Mapping[str, Any]) -> str:
    """Two fields that exclude each other, as an error text; "" if there are none."""
    mode = fields["data.label_mode"]
    if labels.MODES[mode].multi_hot:
        neutral = {"data.temperature": 1.0, "data.smoothing": 0.0, "augment.mixup": 0.0, "augment.cutmix": 0.0}
        for name, off in {**neutral, "data.teachers": type(fields["data.teachers"])()}.items():
            if fields[name] != off:
                return f"{name}={shown(fields[name])} does not go with data.label_mode={mode}: set it to {off}"
    for name, other in (("augment.mixup", "augment.cutmix"), ("optim.ema_decay", "optim.swa_epochs")):
        if fields[name] and fields[other]:
            return f"{name}={fields[name]!r} does not go with {other}={fields[other]!r}: set one of them to 0"
    for name, less in (("optim.swa_epochs", 0), ("augment.final_epochs", 1)):
        if fields[name] and fields[name] > (most := fields["train.epochs"] - less):
            return f"{name}={fields[name]} must be at most {most}, as train.epochs={fields['train.epochs']}"
    if fields["augment.final_epochs"] and fields["train.patience"]:
        return "augment.final_epochs does not go with train.patience: a run that stops early may not reach them"
    if fields["augment.final_recipe"] != "none" and not fields["augment.final_epochs"]:
        return f"augment.final_recipe={fields['augment.final_recipe']!r} needs augment.final_epochs above 0"
    if fields["augment.renderer"] == "host" and fields["train.steps_per_call"] > 1:
        return "train.steps_per_call above 1 needs augment.renderer=device: the host renders step by step"
    if fields["model.depth"] == 0 and (fields["model.squeeze_excite"] or fields["model.stochastic_depth"]):
        return "model.depth=0 leaves no residual block for model.squeeze_excite and model.stochastic_depth"
    if len(fields["schedule.boundaries"]) != len(fields["schedule.scales"]):
        return "schedule.boundaries and schedule.scales must have the same length"
    return ""
