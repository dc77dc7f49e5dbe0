"""The rules of config fields, and the fields that exclude each other."""

import math
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from fer_jax.core import config, run_folder, schema, shipped
from fer_jax.core.errors import UserError
from fer_jax.search import sweep_plan
from fer_jax.training import checks, setup


def changed(fields: dict) -> ConfigDict:
    """The config base with some values, whatever their type."""
    changed = ConfigDict(config.load("base").to_dict(), type_safe=False)
    changed.update_from_flattened_dict(fields)
    return changed


def refusal(fields: dict) -> str:
    """The error for these fields, short and on one line; "" if there is none."""
    try:
        checks.check(changed(fields))
    except UserError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 300
        return text
    return ""


def test_every_field_has_a_rule_that_its_neutral_value_obeys() -> None:
    assert checks.RULES.keys() == config.flatten(schema.default_config().to_dict()).keys()
    checks.check(schema.default_config())


@pytest.mark.parametrize("name", shipped.configs())
def test_a_shipped_config_builds(name: str) -> None:
    loaded = config.load(name)
    for variant in sweep_plan.variants(name, loaded).values():
        checks.check(variant)
    setup.build(loaded, steps_per_epoch=10)


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf, np.ones(3), len, Path("faces"), None, b"x", 1j])
def test_a_value_that_json_cannot_hold_is_refused_by_name(value) -> None:
    for field in checks.RULES:
        text = refusal({field: value})
        assert text.startswith(f"{field}=")
        assert "at most inf" not in text


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.label_mode", "median", "data.label_mode='median' is unknown: choose one of majority"),
        ("augment.recipe", "cutmix", "augment.recipe='cutmix' is unknown: choose one of none"),
        ("augment.renderer", "cloud", "augment.renderer='cloud' is unknown: choose one of host"),
        ("image.normalize", "zca", "image.normalize='zca' is unknown: choose one of scale"),
        ("model.name", "alexnet", "model.name='alexnet' is unknown: choose one of emotion_cnn"),
        ("model.dtype", "int8", "model.dtype='int8' is unknown: choose one of float32"),
        ("optim.name", "adagrad", "optim.name='adagrad' is unknown: choose one of adam"),
        ("schedule.name", "linear", "schedule.name='linear' is unknown: choose one of constant"),
        ("train.epochs", 0, "train.epochs=0 must be at least 1"),
        ("train.epochs", "three", "train.epochs='three' must be a whole number"),
        ("train.epochs", 10.0, "train.epochs=10.0 must be a whole number"),
        ("train.epochs", 1e30, "train.epochs=1e+30 must be a whole number"),
        ("train.epochs", True, "train.epochs=True must be a whole number"),
        ("train.epochs", 10**400, "must be at least 1 and at most 1,000,000"),
        ("train.batch_size", 0, "train.batch_size=0 must be at least 1"),
        ("train.eval_batch_size", 0, "train.eval_batch_size=0 must be at least 1"),
        ("train.steps_per_call", 0, "train.steps_per_call=0 must be at least 1"),
        ("train.patience", -1, "train.patience=-1 must be at least 0"),
        ("optim.freeze", (1,), "optim.freeze=(1,) must be a tuple of names"),
        ("train.init_from", 3, "train.init_from=3 must be text"),
        ("seed", -1, "seed=-1 must be at least 0"),
        ("image.size", 45, "image.size=45 must be a multiple of 8"),
        ("image.size", 8, "image.size=8 must be at least 16"),
        ("model.dropout", 2.0, "model.dropout=2.0 must be at least 0 and at most 0.99"),
        ("data.dir", 3, "data.dir=3 must be text"),
        ("data.temperature", 0.0, "data.temperature=0.0 must be at least 0.01"),
        ("data.smoothing", 1.0, "data.smoothing=1.0 must be at least 0"),
        ("data.balance", 2.0, "data.balance=2.0 must be at least 0 and at most 1"),
        ("data.logit_adjustment", -1.0, "data.logit_adjustment=-1.0 must be at least 0"),
        ("data.drop_repeats", 1, "data.drop_repeats=1 must be True or False"),
        ("data.teachers", "best", "data.teachers='best' must be a tuple of names"),
        ("data.teachers", (3,), "data.teachers=(3,) must be a tuple of names"),
        ("augment.mixup", -1.0, "augment.mixup=-1.0 must be at least 0"),
        ("augment.erase", 50.0, "augment.erase=50.0 must be at least 0 and at most 1"),
        ("model.depth", -1, "model.depth=-1 must be at least 0"),
        ("model.width", 0.0, "model.width=0.0 must be at least 0.125"),
        ("model.stochastic_depth", 1.0, "model.stochastic_depth=1.0 must be at least 0"),
        ("optim.learning_rate", "0.1", "optim.learning_rate='0.1' must be a number"),
        ("optim.learning_rate", math.inf, "optim.learning_rate=inf must be at least 0 and at most 1e+30"),
        ("optim.clip_norm", -1.0, "optim.clip_norm=-1.0 must be at least 0"),
        ("optim.b2", 1.0, "optim.b2=1.0 must be at least 0"),
        ("optim.momentum", -0.1, "optim.momentum=-0.1 must be at least 0"),
        ("optim.weight_decay", -0.1, "optim.weight_decay=-0.1 must be at least 0"),
        ("schedule.final_scale", 2.0, "schedule.final_scale=2.0 must be at least 0 and at most 1"),
        ("schedule.boundaries", (4, 3), "schedule.boundaries=(4, 3) must be a tuple of numbers in ascending order"),
        ("schedule.boundaries", ("3",), "schedule.boundaries=('3',) must be a tuple of numbers in ascending order"),
        ("schedule.scales", (-1.0,), "schedule.scales=(-1.0,) must be a tuple of numbers of at least 0"),
        ("schedule.scales", (True,), "schedule.scales=(True,) must be a tuple of numbers of at least 0"),
    ],
)
def test_a_wrong_value_gets_one_line_with_its_rule(field: str, value, message: str) -> None:
    assert message in refusal({field: value})


def test_large_and_whole_numbers_are_taken_where_they_make_sense() -> None:
    assert refusal({"train.epochs": 10**5000}) == "train.epochs=<int> must be at least 1 and at most 1,000,000"
    assert refusal({"optim.learning_rate": 1e30}) == ""
    assert refusal({"optim.learning_rate": 1, "schedule.warmup_epochs": 2, "seed": 2**63}) == ""


@pytest.mark.parametrize("field", ["data.temperature", "data.smoothing", "augment.mixup", "augment.cutmix"])
def test_multi_hot_targets_are_neither_softened_nor_mixed(field: str) -> None:
    fields = {field: 0.5, "data.label_mode": "multi_target"}
    assert f"{field}=0.5 does not go with data.label_mode=multi_target" in refusal(fields)
    assert refusal({field: 0.5, "data.label_mode": "probability"}) == ""


EXCLUSIVE = [
    ({"augment.mixup": 0.2, "augment.cutmix": 0.5}, "augment.mixup=0.2 does not go with augment.cutmix=0.5: set one"),
    (
        {"optim.ema_decay": 0.9, "optim.swa_epochs": 2},
        "optim.ema_decay=0.9 does not go with optim.swa_epochs=2: set one",
    ),
    ({"optim.ema_decay": 0.0, "optim.swa_epochs": 99}, "optim.swa_epochs=99 must be at most 24, as train"),
    ({"augment.final_epochs": 24}, "augment.final_epochs=24 must be at most 23, as train.epochs=24"),
    ({"augment.final_epochs": 3, "train.patience": 2}, "augment.final_epochs does not go with train.patience"),
    (
        {"augment.cutmix": 0.5, "data.label_mode": "multi_target"},
        "augment.cutmix=0.5 does not go with data.label_mode=multi_target: set it to 0.0",
    ),
    ({"model.depth": 0, "model.squeeze_excite": True}, "model.depth=0 leaves no residual block"),
    ({"model.depth": 0, "model.stochastic_depth": 0.1}, "model.depth=0 leaves no residual block"),
    ({"data.teachers": ("a", "b"), "data.label_mode": "multi_target"}, "'a', 'b'"),
    ({"train.steps_per_call": 2, "augment.renderer": "host"}, "above 1 needs augment.renderer=device"),
    ({"schedule.boundaries": (3,), "schedule.scales": ()}, "must have the same length"),
]


@pytest.mark.parametrize("stored", [False, True], ids=["given", "stored"])
@pytest.mark.parametrize(("fields", "message"), EXCLUSIVE)
def test_fields_that_exclude_each_other_get_one_line(fields: dict, message: str, stored: bool, tmp_path: Path) -> None:
    if stored:  # in config.json tuples are lists
        with run_folder.claim(tmp_path, changed(fields)):
            fields = config.flatten(run_folder.read_config(tmp_path).to_dict())
    assert message in refusal(fields)


def test_a_symmetric_network_halves_even_sides_only() -> None:
    fields = {"model.name": "resnet14", "model.symmetric": True}
    assert refusal({**fields, "image.size": 64}) == ""
    assert refusal({**fields, "image.size": 56}).startswith(
        "model.symmetric=True needs an image.size that is a multiple"
    )
    assert refusal({**fields, "model.name": "resnet9", "image.size": 56}) == ""
    assert "emotion_cnn has no such part" in refusal({**fields, "model.name": "emotion_cnn", "model.antialias": False})


def test_a_final_recipe_needs_epochs() -> None:
    fields = {"augment.final_recipe": "flip", "augment.final_epochs": 0}
    assert refusal(fields) == "augment.final_recipe='flip' needs augment.final_epochs above 0"
    assert refusal({**fields, "augment.final_epochs": 1}) == ""


# Base has their opposites: a moving average, final epochs; the host's renderer; no boundaries.
NOT_ALONE = ({"optim.swa_epochs"}, {"train.patience"}, {"train.steps_per_call"}, {"schedule.boundaries"})


@pytest.mark.parametrize(("fields", "message"), EXCLUSIVE)
def test_one_of_two_exclusive_fields_alone_is_taken(fields: dict, message: str) -> None:
    for field in fields:
        alone = {name: value for name, value in fields.items() if name != field}
        if alone.keys() not in NOT_ALONE:
            assert refusal(alone) == ""


@pytest.mark.parametrize("check", [checks.check, checks.check_network])
def test_a_config_of_another_version_gets_one_line(check) -> None:
    with pytest.raises(UserError, match=r"no such field: model\.attention.* \(or .* another version of fer_jax\)"):
        check(changed({"model.attention": True}))
    with pytest.raises(UserError, match=r"data\.dir is missing: .* another version of fer_jax"):
        check(ConfigDict({"seed": 0}))


def test_a_network_is_checked_by_the_fields_that_predictions_depend_on() -> None:
    old = changed({"optim.name": "adagrad", "data.label_mode": "median"})
    checks.check_network(old)
    with pytest.raises(UserError, match=r"model\.name='alexnet' is unknown"):
        checks.check_network(changed({"model.name": "alexnet"}))
