from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fer_jax.models.ops import BatchNorm, Conv3x3, batch_norm, conv3x3
from fer_jax.models.pooling import max_pool_2x2


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def lax_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@partial(jax.jit, static_argnums=0)
def value_and_gradients(function, x, kernel, dy):
    value, pull_back = jax.vjp(function, x, kernel)
    return value, *pull_back(dy)


def assert_close(actual, expected, tolerance: float) -> None:
    """Assert that every entry is within `tolerance` times the largest expected one: sums over pixels may cancel."""
    for value, reference in zip(actual, expected, strict=True):
        assert value.shape == reference.shape
        assert value.dtype == reference.dtype
        value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
        np.testing.assert_allclose(value, reference, rtol=0, atol=tolerance * np.abs(reference).max())


SHAPES = {
    "48 px": (6, 48, 48, 32, 32),
    "one channel": (5, 48, 48, 1, 32),
    "odd size": (3, 9, 7, 5, 6),
    "smaller than the kernel": (2, 1, 2, 3, 4),
    "three parts of the batch": (48, 10, 9, 8, 6),
    # The shapes below are wide enough for Winograd's method.
    "24 px, one image": (1, 24, 20, 128, 128),
    "6 px": (16, 6, 6, 128, 256),
    "3 px": (32, 3, 3, 256, 128),
    "wide and odd": (16, 11, 7, 128, 130),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_conv3x3_equals_the_lax_convolution(shape):
    b, h, w, c_in, c_out = shape
    x, kernel, dy = normal(0, b, h, w, c_in), normal(1, 3, 3, c_in, c_out), normal(2, b, h, w, c_out)
    assert_close(value_and_gradients(conv3x3, x, kernel, dy), value_and_gradients(lax_conv, x, kernel, dy), 5e-5)


def test_winograds_method_is_used_in_wide_layers_of_several_images():
    def lax_convolutions(batch: int, side: int, channels: int) -> int:
        x, kernel = normal(0, batch, side, side, channels), normal(1, 3, 3, channels, channels)
        return value_and_gradients.lower(conv3x3, x, kernel, x).compile().as_text().count(" convolution(")

    assert (lax_convolutions(16, 6, 128), lax_convolutions(16, 6, 32), lax_convolutions(1, 6, 128)) == (0, 3, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "channels"), [(24, 16), (24, 1), (6, 128)])
def test_conv3x3_in_bfloat16_sums_in_float32(side, channels):
    x, kernel, dy = (
        normal(0, 32, side, side, channels),
        normal(1, 3, 3, channels, channels),
        normal(2, 32, side, side, channels),
    )
    narrow = [a.astype(jnp.bfloat16) for a in (x, kernel, dy)]
    actual = value_and_gradients(conv3x3, *narrow)
    expected = value_and_gradients(lax_conv, *(a.astype(np.float32) for a in narrow))
    # One rounding to bfloat16 (8 bits). The error of sums in bfloat16 would be several times as large.
    assert_close(actual, [np.asarray(a).astype(jnp.bfloat16) for a in expected], 2**-8)


@pytest.mark.slow
def test_conv3x3_inside_scan_equals_the_lax_convolution():
    x, kernels = normal(0, 16, 6, 6, 128), normal(1, 3, 3, 3, 128, 128) / 128

    def loss(conv):
        return lambda k: jnp.sum(lax.scan(lambda y, k: (jnp.tanh(conv(y, k)), None), x, k)[0] ** 2)

    ours, laxs = (jax.jit(jax.grad(loss(conv)))(kernels) for conv in (conv3x3, lax_conv))
    assert_close([ours], [laxs], 5e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "width"), [(24, 16), (12, 128)])
def test_gradients_of_a_batch_spread_over_devices(side, width):
    assert jax.device_count() == 2  # see conftest.py
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = normal(0, 32, side, side, width), normal(1, 3, 3, width, width) / width
    scale, bias = normal(2, width), normal(3, width)

    def loss(x, kernel, scale, bias):
        return jnp.sum(max_pool_2x2(batch_norm(conv3x3(x, kernel), scale, bias, 1e-5)[0]) ** 3)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
    expected = gradient(x, kernel, scale, bias)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put((kernel, scale, bias), NamedSharding(mesh, PartitionSpec()))
    assert_close(gradient(sharded, *replicated), expected, 5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_conv3x3_module_interchanges_with_linen_conv(use_bias, dtype):
    x, key = normal(0, 2, 12, 12, 3), jax.random.key(0)
    ours, linen = Conv3x3(16, use_bias, dtype), nn.Conv(16, (3, 3), use_bias=use_bias, dtype=dtype)
    params = jax.jit(linen.init)(key, x)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(ours.init)(key, x), params)
    params = jax.tree.map(lambda p: np.asarray(p) + np.float32(0.5), params)

    def outputs_and_gradients(module):
        @jax.jit
        @partial(jax.grad, has_aux=True)
        def gradient(params, x):
            y = module.apply(params, x)
            return jnp.sum(y.astype(jnp.float32) ** 2), y

        gradients, y = gradient(params, x)
        return [y, *jax.tree.leaves(gradients)]

    tolerance = 1e-5 if dtype is None else 2e-2
    assert_close(outputs_and_gradients(ours), outputs_and_gradients(linen), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 5, 8, 3), (6, 2, 1, 5)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_batch_norm_interchanges_with_linens(shape, dtype):
    x, weights = (2 * normal(0, *shape) + 3).astype(dtype), normal(1, *shape)

    def run(module):
        shapes = jax.eval_shape(module.init, jax.random.key(0), x)
        variables = jax.tree.map(lambda leaf: np.linspace(0.5, 1.5, leaf.size, dtype=leaf.dtype), shapes)

        @jax.jit
        @partial(jax.grad, argnums=(0, 1), has_aux=True)
        def gradient(params, x):
            y, updates = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(y.astype(jnp.float32) * weights), (y, updates)

        gradients, (y, updates) = gradient(variables["params"], x)
        return [y, *jax.tree.leaves(updates), *jax.tree.leaves(gradients)]

    actual = run(BatchNorm(use_running_average=False, dtype=dtype))
    expected = run(nn.BatchNorm(use_running_average=False, momentum=0.9, dtype=dtype))
    assert_close(actual, expected, 1e-5 if dtype == jnp.float32 else 2e-2)


def test_batch_norm_in_evaluation_equals_linens():
    x, key = normal(0, 2, 3, 4, 5), jax.random.key(0)
    ours, linen = BatchNorm(use_running_average=True), nn.BatchNorm(use_running_average=True)
    variables = jax.jit(linen.init)(key, x)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(ours.init)(key, x), variables)
    variables = jax.tree.map(lambda leaf: np.linspace(0.7, 1.7, leaf.size, dtype=leaf.dtype), variables)
    assert_close([jax.jit(ours.apply)(variables, x)], [jax.jit(linen.apply)(variables, x)], 1e-6)
