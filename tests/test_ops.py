import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fer_jax.ops import Conv3x3, conv3x3, max_pool_2x2


def normal(seed: int, *shape: int, dtype: str = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)).astype(dtype)


def lax_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def value_and_gradients(function, x, *more, dy):
    value, pull_back = jax.vjp(function, x, *more)
    return value, *pull_back(dy)


def assert_close(got, want, tolerance: float) -> None:
    """Every entry within `tolerance` times the largest wanted magnitude: sums over pixels may cancel."""
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        assert g.dtype == w.dtype
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        np.testing.assert_allclose(g, w, rtol=0, atol=tolerance * np.abs(w).max())


SHAPES = {
    "48 px": (6, 48, 48, 32, 32),
    "one channel": (5, 48, 48, 1, 32),
    "indivisible batch": (13, 24, 24, 32, 16),
    "odd size": (3, 9, 7, 5, 6),
    "deep": (17, 6, 6, 128, 64),
    "smallest block": (8, 3, 3, 64, 128),
    "one picture": (1, 12, 12, 8, 4),
    "smaller than the kernel": (2, 1, 2, 3, 4),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_conv3x3_equals_the_lax_convolution(shape):
    b, h, w, c_in, c_out = shape
    x, kernel, dy = normal(0, b, h, w, c_in), normal(1, 3, 3, c_in, c_out), normal(2, b, h, w, c_out)
    got = jax.jit(lambda: value_and_gradients(conv3x3, x, kernel, dy=dy))()
    want = value_and_gradients(lax_conv, x, kernel, dy=dy)
    assert_close(got, want, 1e-5)


def test_conv3x3_in_bfloat16_sums_in_float32():
    x, kernel, dy = normal(0, 8, 24, 24, 16), normal(1, 3, 3, 16, 8), normal(2, 8, 24, 24, 8)
    narrow = [a.astype(jnp.bfloat16) for a in (x, kernel, dy)]
    got = value_and_gradients(conv3x3, *narrow[:2], dy=narrow[2])
    x, kernel, dy = (a.astype(jnp.float32) for a in narrow)
    want = value_and_gradients(lax_conv, x, kernel, dy=dy)
    # One rounding to bfloat16 (8 bits); sums kept in bfloat16 would be off by several times that.
    assert_close(got, [a.astype(jnp.bfloat16) for a in want], 2**-8)


def test_conv3x3_inside_scan_equals_the_lax_convolution():
    x, kernels = normal(0, 4, 6, 6, 8), normal(1, 3, 3, 3, 8, 8)

    def loss(conv):
        return lambda k: jnp.sum(lax.scan(lambda y, k: (jnp.tanh(conv(y, k)), None), x, k)[0] ** 2)

    assert_close([jax.jit(jax.grad(loss(conv3x3)))(kernels)], [jax.grad(loss(lax_conv))(kernels)], 1e-5)


def test_conv3x3_and_max_pool_on_a_batch_spread_over_devices():
    assert jax.device_count() == 2  # see conftest.py
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = normal(0, 12, 24, 24, 8), normal(1, 3, 3, 8, 16)

    def loss(x, kernel):
        return jnp.sum(max_pool_2x2(conv3x3(x, kernel)) ** 2)

    want = jax.grad(loss, argnums=(0, 1))(x, kernel)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    assert_close(jax.jit(jax.grad(loss, argnums=(0, 1)))(sharded, replicated), want, 1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_conv3x3_module_interchanges_with_linen_conv(use_bias, dtype):
    x, key = normal(0, 2, 12, 12, 3), jax.random.key(0)
    ours, linen = Conv3x3(16, use_bias, dtype), nn.Conv(16, (3, 3), use_bias=use_bias, dtype=dtype)
    params = linen.init(key, x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(key, x), params)
    params = jax.tree.map(lambda p: p + 0.5, params)

    def loss(module):
        return lambda p: jnp.sum(module.apply(p, x).astype(jnp.float32) ** 2)

    tolerance = 1e-5 if dtype is None else 2e-2
    assert_close([ours.apply(params, x)], [linen.apply(params, x)], tolerance)
    assert_close(
        jax.tree.leaves(jax.grad(loss(ours))(params)),
        jax.tree.leaves(jax.grad(loss(linen))(params)),
        tolerance,
    )


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_equals_linen(size, dtype, ties):
    x = normal(0, 3, *size, 5, dtype=dtype)
    if ties:
        x = jnp.maximum(jnp.round(x), 0)
    dy = normal(1, 3, size[0] // 2, size[1] // 2, 5, dtype=dtype)
    got = jax.jit(lambda: value_and_gradients(max_pool_2x2, x, dy=dy))()
    want = value_and_gradients(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x, dy=dy)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.asarray(g, np.float32), np.asarray(w, np.float32))
    np.testing.assert_array_equal(max_pool_2x2(x), got[0])
