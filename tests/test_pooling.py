from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from scipy import ndimage

from fer_jax.models.pooling import max_blur_pool, max_pool_2x2


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@partial(jax.jit, static_argnums=0)
def value_and_gradient(function, x, dy):
    value, pull_back = jax.vjp(function, x)
    return value, *pull_back(dy)


def linen_pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), (2, 2))


max_pool = jax.jit(max_pool_2x2)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 2)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_max_pool_equals_linen(size, dtype):
    x = normal(0, 3, *size, 5)
    dy = normal(1, 3, size[0] // 2, size[1] // 2, 5).astype(dtype)
    for images in (x, np.maximum(np.round(x), 0)):  # with ties
        actual, expected = (value_and_gradient(pool, images.astype(dtype), dy) for pool in (max_pool_2x2, linen_pool))
        for value, reference in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(value, np.float32), np.asarray(reference, np.float32))
        np.testing.assert_array_equal(max_pool(images.astype(dtype)), actual[0])


@pytest.mark.parametrize("size", [(2, 2), (3, 6), (7, 4), (12, 12)])
def test_max_blur_pool_equals_scipy(size: tuple[int, int]) -> None:
    x = normal(0, 2, *size, 3)
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = np.empty((2, size[0] // 2, size[1] // 2, 3))
    for image in range(2):
        for channel in range(3):
            dense = ndimage.maximum_filter(x[image, ..., channel], size=2, origin=-1)[:-1, :-1]
            blurred = ndimage.convolve(dense, binomial, mode="mirror")
            expected[image, ..., channel] = blurred[::2, ::2]
    actual = jax.jit(max_blur_pool)(x)
    assert actual.shape == jax.eval_shape(max_pool_2x2, x).shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert jax.eval_shape(max_blur_pool, jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2, 2), (3, 6), (7, 4), (12, 12), (2, 66)])
def test_the_gradient_of_max_blur_pool_equals_finite_differences(size: tuple[int, int]) -> None:
    # The values are far apart, so that a small difference changes no maximum.
    values = np.random.default_rng(0).permutation(2 * size[0] * size[1] * 3).astype(np.float32)
    check_grads(
        jax.jit(max_blur_pool),
        (values.reshape(2, *size, 3) / 4,),
        order=1,
        modes=["rev"],
        atol=0.02,
        rtol=0.02,
        eps=0.05,
    )


def test_max_blur_pool_keeps_gradients_in_bfloat16() -> None:
    x = normal(0, 2, 12, 12, 3).astype(jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(max_blur_pool(x).astype(jnp.float32) ** 2)))
    actual = gradient(x)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(actual, np.float32), gradient(x.astype(jnp.float32)), atol=0.05)


@pytest.mark.slow
def test_max_blur_pool_on_a_batch_spread_over_devices() -> None:
    assert jax.device_count() == 2  # see conftest.py
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    x = normal(0, 4, 12, 12, 3)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(max_blur_pool(x) ** 3)))
    actual = gradient(jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))))
    np.testing.assert_allclose(actual, gradient(x), rtol=1e-5, atol=1e-6)
