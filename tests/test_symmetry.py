"""Symmetric networks: a face and its mirror image have the same logits."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.models import ops, registry
from fer_jax.models.resnet import ResNet


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def swapped(maps: Any) -> np.ndarray:
    """The two channels of each pair change places."""
    return np.concatenate(np.split(np.asarray(maps), 2, axis=-1)[::-1], axis=-1)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("fields", "side"),
    [
        ({"space_to_depth": False}, 16),
        ({"space_to_depth": True}, 24),
        ({"space_to_depth": False, "antialias": True, "squeeze_excite": True}, 16),
        ({"space_to_depth": True, "antialias": True, "squeeze_excite": True}, 24),
    ],
)
def test_a_mirror_image_has_the_same_logits(fields: dict[str, Any], side: int, train: bool) -> None:
    model = ResNet(widths=(8, 16, 8), blocks=(1, 1, 1), symmetric=True, **fields)
    assert side % model.symmetric_multiple == 0
    images = numbers(4, side, side, 1)
    variables = registry.init(model, 0, side)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * numbers(*leaf.shape), variables["params"])
    apply = partial(model.apply, {**variables, "params": params}, train=train, mutable=["batch_stats"])
    logits, _ = apply(images)
    mirrored, _ = apply(images[:, :, ::-1])
    upside_down, _ = apply(images[:, ::-1])
    np.testing.assert_allclose(logits, mirrored, atol=2e-4)
    assert np.abs(logits - upside_down).max() > 0.05


def test_an_odd_side_that_is_halved_would_break_the_symmetry() -> None:
    model = ResNet(widths=(8, 8, 8, 8), blocks=(0, 0, 0, 0), space_to_depth=False, symmetric=True)
    assert 12 % model.symmetric_multiple
    images = numbers(4, 12, 12, 1)  # the last pooling halves 3 pixels
    variables = registry.init(model, 0, 12)
    logits, mirrored = (np.asarray(model.apply(variables, x, train=False)) for x in (images, images[:, :, ::-1]))
    assert np.abs(logits - mirrored).max() > 1e-3


@pytest.mark.parametrize("c_in", [1, 6])
def test_a_convolution_mirrors_its_maps_and_swaps_the_pairs(c_in: int) -> None:
    conv = ops.Conv3x3(4, symmetric=True)
    x = numbers(2, 5, 7, c_in)
    params = {"kernel": numbers(3, 3, c_in, 2), "bias": numbers(2)}
    y = np.asarray(conv.apply({"params": params}, x))
    plain = nn.Conv(2, (3, 3)).apply({"params": params}, x)
    np.testing.assert_allclose(y[..., :2], plain, atol=1e-5)  # the first of each pair has the kernel as it is
    other = x if c_in == 1 else swapped(x)
    np.testing.assert_allclose(conv.apply({"params": params}, other[:, :, ::-1]), swapped(y)[:, :, ::-1], atol=1e-5)


def test_batch_norm_of_pairs_is_that_of_both_maps_side_by_side() -> None:
    """Forward, gradients and statistics, beside flax's BatchNorm on maps twice as wide."""
    x, weight = numbers(3, 4, 5, 6), numbers(6, 5, 4, 3).transpose()
    params = {"scale": numbers(3), "bias": 2 * numbers(3)}

    def wide(maps: Any) -> Any:
        return jnp.concatenate(jnp.split(maps, 2, axis=-1), axis=2)

    def run(module: nn.Module, maps: Any, factor: Any, params: Any) -> Any:
        y, updates = module.apply({"params": params}, maps, mutable=["batch_stats"])
        return (y * factor).sum(), (y, updates)

    ours, linen = ops.BatchNorm(use_running_average=False, symmetric=True), nn.BatchNorm(False, momentum=0.9)
    grad = partial(jax.value_and_grad, has_aux=True)
    (_, (y, updates)), gradients = grad(lambda p: run(ours, p[0], weight, p[1]))((x, params))
    (_, (expected, statistics)), others = grad(lambda p: run(linen, wide(p[0]), wide(weight), p[1]))((x, params))
    np.testing.assert_allclose(wide(y), expected, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), gradients, others)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), updates, statistics)
    still = ops.BatchNorm(use_running_average=True, symmetric=True)
    variables = {"params": params, **updates}
    frozen = nn.BatchNorm(True).apply(variables, wide(x))
    np.testing.assert_allclose(wide(still.apply(variables, x)), frozen, atol=1e-5)
