from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.models import registry
from fer_jax.models.blocks import ResidualBlock, SqueezeExcite
from fer_jax.models.pooling import max_blur_pool
from fer_jax.models.resnet import ResNet


def uniform(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def names(variables) -> set[str]:
    return {"/".join(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])}


def test_squeeze_excite_equals_numpy() -> None:
    x = uniform(3, 5, 4, 8)
    shapes = jax.eval_shape(SqueezeExcite().init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: uniform(*leaf.shape), shapes["params"])
    first, second = params["Dense_0"], params["Dense_1"]
    assert first["kernel"].shape == (8, 2)
    hidden = np.maximum(x.mean((1, 2)) @ first["kernel"] + first["bias"], 0)
    factors = 1 / (1 + np.exp(-(hidden @ second["kernel"] + second["bias"])))
    assert factors.std() > 0.05
    np.testing.assert_allclose(SqueezeExcite().apply({"params": params}, x), x * factors[:, None, None], rtol=1e-5)


def test_antialiasing_replaces_the_pooling() -> None:
    x = np.abs(uniform(2, 8, 8, 1))
    plain, blurred = (ResNet(widths=(4, 4), blocks=(0, 0), antialias=on) for on in (False, True))
    weights = registry.init(plain, 0, 8)
    assert names(weights) == names(registry.init(blurred, 0, 8))
    logits = jax.jit(partial(blurred.apply, train=False))(weights, x)
    plain_logits, layers = jax.jit(partial(plain.apply, train=False, capture_intermediates=True))(weights, x)
    unpooled = layers["intermediates"]["ConvBlock_1"]["__call__"][0]
    dense = weights["params"]["Dense_0"]
    expected = np.asarray(jax.jit(max_blur_pool)(unpooled)).mean((1, 2)) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(plain_logits, expected, atol=1e-3)


def branches(drop: float, x: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """The branch of a block in training, its output minus its input: without drops, and for each of 400 keys."""
    shapes = jax.eval_shape(partial(ResidualBlock().init, train=False), jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: uniform(*leaf.shape), shapes)

    def branch(drop: float, key: jax.Array) -> jax.Array:
        module = ResidualBlock(drop=drop)
        return module.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])[0] - x

    keys = jax.random.split(jax.random.key(0), 400)
    return jax.jit(lambda keys: (branch(0.0, keys[0]), jax.lax.map(partial(branch, drop), keys)))(keys)


def test_stochastic_depth_drops_whole_branches_image_by_image() -> None:
    whole, drawn = branches(0.25, uniform(6, 4, 4, 8))
    kept = np.abs(drawn).max(axis=(2, 3, 4)) > 0  # [key, image]
    np.testing.assert_allclose(drawn, kept[:, :, None, None, None] * whole / 0.75, rtol=1e-3, atol=1e-5)
    # 2400 draws: the standard error of the mean is 0.009, that of the correlation of 400 pairs 0.05.
    assert kept.mean() == pytest.approx(0.75, abs=0.035)
    assert np.abs(np.corrcoef(kept.T) - np.eye(6)).max() < 0.2
    scale = float(np.abs(whole).max())
    np.testing.assert_allclose(drawn.mean(axis=0), whole, atol=0.15 * scale)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "expected"), [(1, [0.2, 0.4, 0.6]), (2, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])])
def test_stochastic_depth_grows_with_depth_and_ends_with_training(factor: int, expected: list[float]) -> None:
    x = uniform(2, 16, 16, 1)
    model = ResNet(widths=(8, 8), blocks=(1, 2), depth=factor, stochastic_depth=0.6)
    weights = registry.init(model, 0, 16)
    drops = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, ResidualBlock):
            drops.append(context.module.drop)
        return call(*args, **kwargs)

    with nn.intercept_methods(spy):
        logits = jax.jit(partial(model.apply, train=False))(weights, x)
    assert drops == pytest.approx(expected)
    plain_logits = jax.jit(partial(model.clone(stochastic_depth=0.0).apply, train=False))(weights, x)
    np.testing.assert_array_equal(logits, plain_logits)


def test_switches_that_are_off_change_neither_names_nor_random_numbers() -> None:
    model = ResNet(widths=(4, 8), blocks=(0, 1))
    weights = registry.init(model, 0, 8)
    convolutions = ("ConvBlock_0", "ConvBlock_1", "ResidualBlock_0/ConvBlock_0", "ResidualBlock_0/ConvBlock_1")
    parts = ("Conv3x3_0/kernel", "BatchNorm_0/scale", "BatchNorm_0/bias")
    expected = {f"{block}/{part}" for block in convolutions for part in parts}
    assert names(weights) == expected | {"Dense_0/kernel", "Dense_0/bias"}
    # No key is given, so drawing a random number would raise.
    jax.eval_shape(partial(model.apply, train=True, mutable=["batch_stats"]), weights, uniform(2, 8, 8, 1))


@pytest.mark.parametrize(
    ("factor", "widths"),
    [(1.5, (24, 48, 96, 192)), (0.5, (8, 16, 32, 64)), (0.1, (8, 8, 8, 16)), (1.25, (24, 40, 80, 160))],
)
def test_width_is_a_factor_rounded_to_multiples_of_8(factor: float, widths: tuple[int, ...]) -> None:
    # Without the factor the widths are (16, 32, 64, 128).
    params = registry.init(registry.create_model("resnet_tiny", 0.0, "float32", width=factor), 0, 16)["params"]
    assert tuple(params[f"ConvBlock_{i}"]["Conv3x3_0"]["kernel"].shape[-1] for i in range(4)) == widths


def parameters(widths: tuple[int, ...], blocks: tuple[int, ...], squeeze_excite: bool, parts: int = 1) -> int:
    """The number of weights of a network with space-to-depth, counted by hand; `parts` is 2 with pairs of channels."""
    total, c_in = widths[-1] // parts * 8 + 8, 4
    for width, count in zip(widths, blocks, strict=True):
        own = width // parts
        total += 9 * c_in * own + 2 * own
        total += count * 2 * (9 * width * own + 2 * own)
        if squeeze_excite:
            total += count * (2 * own * (own // 4) + own // 4 + own)
        c_in = width
    return total


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({}, parameters((16, 32, 64, 128), (0, 1, 1, 0), False)),
        ({"squeeze_excite": True}, parameters((16, 32, 64, 128), (0, 1, 1, 0), True)),
        ({"antialias": True, "stochastic_depth": 0.5}, parameters((16, 32, 64, 128), (0, 1, 1, 0), False)),
        ({"width": 1.5, "squeeze_excite": True}, parameters((24, 48, 96, 192), (0, 1, 1, 0), True)),
        ({"symmetric": True}, parameters((16, 32, 64, 128), (0, 1, 1, 0), False, 2)),
        ({"symmetric": True, "squeeze_excite": True}, parameters((16, 32, 64, 128), (0, 1, 1, 0), True, 2)),
        ({"depth": 0}, parameters((16, 32, 64, 128), (0, 0, 0, 0), False)),
        ({"depth": 3, "squeeze_excite": True}, parameters((16, 32, 64, 128), (0, 3, 3, 0), True)),
    ],
)
def test_parameters_by_hand(switches, expected: int) -> None:
    model = registry.create_model("resnet_tiny", 0.0, "bfloat16", **switches)
    variables = registry.init(model, 0, 16)
    assert registry.count_parameters(variables["params"]) == expected
    images = jax.ShapeDtypeStruct((4, 16, 16, 1), jnp.float32)
    train = partial(model.apply, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"])
    logits, _ = jax.eval_shape(train, variables, images)
    assert (logits.shape, logits.dtype) == ((4, 8), jnp.float32)


@pytest.mark.parametrize("name", ["emotion_cnn", "vgg13"])
@pytest.mark.parametrize(
    ("switch", "value", "default"),
    [
        ("width", 1.5, 1.0),
        ("depth", 2, 1),
        ("squeeze_excite", True, False),
        ("antialias", True, False),
        ("symmetric", True, False),
        ("stochastic_depth", 0.1, 0.0),
    ],
)
def test_other_models_refuse_the_switches(name: str, switch: str, value: object, default: object) -> None:
    registry.create_model(name, 0.0, "float32", **{switch: default})
    with pytest.raises(ValueError, match=rf"model\.{switch}={value}: {name} has no such part; set it to {default} or"):
        registry.create_model(name, 0.0, "float32", **{switch: value})
