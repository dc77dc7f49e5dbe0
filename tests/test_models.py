import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import fer_jax
from fer_jax.core.errors import UserError
from fer_jax.models import registry
from fer_jax.models.blocks import ConvBlock
from fer_jax.models.emotion_cnn import EmotionCNN
from fer_jax.models.resnet import ResNet
from fer_jax.training import checks

SIDES = {"vgg13": 64}  # all others are counted at 48 pixels


@pytest.mark.parametrize("name", registry.PARAMETERS)
def test_parameters_are_as_many_as_the_table_has(name: str) -> None:
    model = registry.create_model(name, 0.5, "float32")
    variables = registry.init(model, 0, SIDES.get(name, 48))
    assert registry.count_parameters(variables["params"]) == registry.PARAMETERS[name]


def test_both_tables_list_the_same_models() -> None:
    assert list(registry.PARAMETERS) == list(registry.MODELS)


def test_emotion_cnn_parameters_by_hand() -> None:
    widths = [1, 32, 32, 64, 64, 128, 128, 256, 256, 512, 512]
    convolutions = sum(9 * a * b for a, b in itertools.pairwise(widths))
    batch_norms = sum(2 * width for width in widths[1:])
    dense = (512 * 256 + 256) + 2 * 256 + (256 * 128 + 128) + 2 * 128 + (128 * 8 + 8)
    assert registry.PARAMETERS["emotion_cnn"] == convolutions + batch_norms + dense


def test_vgg13_parameters_by_hand() -> None:
    widths = [1, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256]
    convolutions = sum(9 * a * b + b for a, b in itertools.pairwise(widths))
    dense = (4 * 4 * 256 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 8 + 8)
    assert registry.PARAMETERS["vgg13"] == convolutions + dense


class PlainEmotionCNN(nn.Module):
    """The five-block CNN in plain flax, written from its description alone."""

    widths: tuple[int, ...]
    dense: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate(self.widths):
            for j in range(2):
                x = nn.Conv(width, (3, 3), use_bias=False, name=f"conv{i}{j}")(x)
                x = nn.relu(nn.BatchNorm(use_running_average=True, name=f"norm{i}{j}")(x))
            x = nn.max_pool(x, (2, 2), (2, 2)) if i < len(self.widths) - 1 else x
        x = x.mean((1, 2))
        for i, width in enumerate(self.dense):
            x = nn.relu(nn.LayerNorm(name=f"layer_norm{i}")(nn.Dense(width, name=f"dense{i}")(x)))
        return nn.Dense(8, name="logits")(x)


@pytest.mark.slow
def test_emotion_cnn_equals_a_plain_flax_one() -> None:
    sizes = {"widths": (3, 4, 5, 6, 7), "dense": (8, 9)}  # smaller than the real ones
    model = EmotionCNN(**sizes)
    rng = np.random.default_rng(0)
    ours = jax.tree.map(
        lambda leaf: np.asarray(leaf) + rng.uniform(0, 0.05, leaf.shape).astype(np.float32), registry.init(model, 0, 48)
    )
    params, stats = {}, {}
    for i in range(5):
        for j in range(2):
            block = f"ConvBlock_{2 * i + j}"
            params[f"conv{i}{j}"] = ours["params"][block]["Conv3x3_0"]
            params[f"norm{i}{j}"] = ours["params"][block]["BatchNorm_0"]
            stats[f"norm{i}{j}"] = ours["batch_stats"][block]["BatchNorm_0"]
    for i in range(2):
        params[f"dense{i}"] = ours["params"][f"Dense_{i}"]
        params[f"layer_norm{i}"] = ours["params"][f"LayerNorm_{i}"]
    params["logits"] = ours["params"]["Dense_2"]
    x = rng.uniform(-1, 1, (3, 48, 48, 1)).astype(np.float32)
    expected = jax.jit(PlainEmotionCNN(**sizes).apply)({"params": params, "batch_stats": stats}, x)
    logits = jax.jit(partial(model.apply, train=False))(ours, x)
    assert float(jnp.std(expected)) > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_gives_float32_logits_close_to_float32_ones() -> None:
    model = registry.create_model("resnet_tiny", 0.5, "float32")
    weights = registry.init(model, 0, 48)
    half = registry.create_model("resnet_tiny", 0.5, "bfloat16")
    x = np.random.default_rng(0).uniform(-1, 1, (4, 48, 48, 1)).astype(np.float32)
    full = jax.jit(partial(model.apply, train=False))(weights, x)
    rounded = jax.jit(partial(half.apply, train=False))(weights, x)
    assert rounded.dtype == jnp.float32
    assert not np.array_equal(full, rounded)
    np.testing.assert_allclose(rounded, full, atol=0.06 * float(jnp.abs(full).max()))


@pytest.mark.parametrize("name", registry.PARAMETERS)
def test_weights_and_logits_stay_float32_in_bfloat16(name: str) -> None:
    model = registry.create_model(name, 0.5, "bfloat16")
    side = SIDES.get(name, 48)
    weights = registry.init(model, 0, side)
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {jnp.dtype("float32")}
    images = jax.ShapeDtypeStruct((4, side, side, 1), jnp.float32)
    logits = jax.eval_shape(partial(model.apply, train=False), weights, images)
    assert (logits.shape, logits.dtype) == ((4, 8), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.PARAMETERS)
@pytest.mark.parametrize("size", [16, 24, 64])  # two tests above have 48
def test_sides_may_be_multiples_of_8(name: str, size: int) -> None:
    for antialias in {False, name.startswith("resnet")}:
        model = registry.create_model(name, 0.0, "float32", antialias=antialias)
        images = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
        variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
        assert jax.eval_shape(partial(model.apply, train=False), variables, images).shape == (2, 8)


@pytest.mark.slow
def test_space_to_depth_turns_a_patch_into_one_pixel() -> None:
    model = ResNet(widths=(4,), blocks=(0,))
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)

    @jax.jit
    def first_input(x: np.ndarray) -> jax.Array:
        inputs = []

        def spy(call, args, kwargs, context):
            inputs.extend(args[:1] if isinstance(context.module, ConvBlock) else [])
            return call(*args, **kwargs)

        with nn.intercept_methods(spy):
            model.init(jax.random.key(0), x, train=False)
        return inputs[0]

    patches = np.asarray(first_input(x))
    assert patches.shape == (1, 2, 2, 4)
    np.testing.assert_array_equal(patches[0, 0, 0], [0, 1, 4, 5])
    np.testing.assert_array_equal(patches[0, 1, 1], [10, 11, 14, 15])


@pytest.mark.slow
def test_dropout_works_in_training_only() -> None:
    model = ResNet(widths=(4,), blocks=(0,), dropout=0.5)
    weights = registry.init(model, 0, 8)
    x = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 1)).astype(np.float32)

    @jax.jit
    def train(seed: int) -> jax.Array:
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(weights, x, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    evaluate = jax.jit(lambda seed: model.apply(weights, x, train=False, rngs={"dropout": jax.random.key(seed)}))
    assert not np.allclose(train(0), train(1))
    np.testing.assert_array_equal(train(0), train(0))
    np.testing.assert_array_equal(evaluate(0), evaluate(1))


def test_fresh_weights_have_the_variance_of_he_and_depend_on_the_seed_alone() -> None:
    model = registry.create_model("resnet_tiny", 0.0, "float32")
    first, second, other = (registry.init(model, seed, 48) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    kernel = first["params"]["ResidualBlock_1"]["ConvBlock_0"]["Conv3x3_0"]["kernel"]  # 9 x 64 x 64 draws
    assert float(kernel.var()) == pytest.approx(2 / (9 * 64), rel=0.05)
    assert not np.array_equal(kernel, other["params"]["ResidualBlock_1"]["ConvBlock_0"]["Conv3x3_0"]["kernel"])
    norm = first["params"]["ConvBlock_0"]["BatchNorm_0"]
    assert set(norm["scale"].tolist()) == {1.0}
    assert set(norm["bias"].tolist()) == {0.0}


def test_a_variable_without_a_rule_is_an_error() -> None:
    class Shifted(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return x + self.param("offset", nn.initializers.zeros, (1,))

    with pytest.raises(ValueError, match=r"^params/offset: .* rules for kernel, bias, .* rename"):
        registry.init(Shifted(), 0, 48)


class Linear(nn.Module):
    """The smallest network that a user may write: it takes dropout and dtype, and is called with (x, train)."""

    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(8)(x.reshape(len(x), -1))


class WithoutDropout(nn.Module):
    dtype: Any

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return x


class WithoutDtype(nn.Module):
    dropout: float

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return x


class WithoutTrain(nn.Module):
    dropout: float
    dtype: Any

    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        return x


class WithNumber(nn.Module):
    """A network that must be given one more field."""

    number: int
    dropout: float
    dtype: Any

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return x


def test_a_new_model_is_a_module_and_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "mine", Linear)
    model = registry.create_model("mine", 0.5, "bfloat16")
    assert model == Linear(dropout=0.5, dtype=jnp.dtype("bfloat16"))
    variables = registry.init(model, 0, 16)
    assert registry.count_parameters(variables["params"]) == 16 * 16 * 8 + 8
    assert variables["batch_stats"] == {}


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (WithoutDropout, r"the module must take dropout and dtype, as EmotionCNN does \(.*'dropout'.*\)"),
        (WithoutDtype, r"the module must take dropout and dtype, as EmotionCNN does \(.*'dtype'.*\)"),
        (WithNumber, r"the module must take dropout and dtype, as EmotionCNN does \(.*'number'.*\)"),
        (WithoutTrain, r"the module must be called with \(x, train\), as EmotionCNN is"),
    ],
)
def test_a_module_of_another_form_is_an_error(
    module: type[nn.Module], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.MODELS, "mine", module)
    with pytest.raises(ValueError, match=f"^model.name=mine: {problem}$"):
        registry.create_model("mine", 0.5, "float32")
    config = fer_jax.default_config()
    config.model.name = "mine"
    with pytest.raises(UserError, match=f"^model.name=mine: {problem}$"):
        checks.check(config)


@pytest.mark.parametrize(("dtype", "precise"), [("float32", True), ("bfloat16", False)])
def test_switches_that_a_module_has_are_set(dtype: str, precise: bool) -> None:
    model = registry.create_model("resnet9", 0.1, dtype, width=0.5, depth=2, squeeze_excite=True, antialias=True)
    assert isinstance(model, ResNet)
    assert (model.dropout, model.dtype == jnp.float32) == (0.1, precise)
    assert (model.width, model.depth, model.squeeze_excite, model.antialias) == (0.5, 2, True, True)
    assert (model.stochastic_depth, model.space_to_depth) == (0.0, False)


@pytest.mark.parametrize(("field", "value"), [("name", "alexnet"), ("dtype", "float16")])
def test_the_checks_refuse_unknown_models_and_dtypes(field: str, value: str) -> None:
    config = fer_jax.default_config()
    config.model[field] = value
    with pytest.raises(UserError, match=rf"model\.{field}='{value}' is unknown: choose one of (emotion_cnn|float32), "):
        checks.check(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_tiny", "emotion_cnn", "vgg13"])
def test_absent_classes_lose_their_probability_and_the_others_keep_their_ratios(name: str) -> None:
    model = registry.create_model(name, dropout=0.0, dtype="float32")
    variables = registry.init(model, 0, 16)
    absent = np.arange(8) % 3 == 0
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    predict = jax.jit(lambda variables: jax.nn.softmax(model.apply(variables, images, train=False)))
    before, after = map(np.asarray, (predict(variables), predict(registry.without_classes(variables, absent))))
    assert after[:, absent].max() < 1e-15
    expected = before[:, ~absent] / before[:, ~absent].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after[:, ~absent], expected, rtol=1e-4)
