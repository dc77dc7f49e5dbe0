"""Blocks of layers that the networks share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.models.ops import BatchNorm, Conv3x3
from fer_jax.models.symmetry import for_both, mean_of_pairs

Dtype = Any


class ConvBlock(nn.Module):
    """3x3 convolution, BatchNorm, ReLU: [B, H, W, C] -> [B, H, W, features]; `symmetric` as in `Conv3x3`."""

    features: int
    dtype: Dtype = jnp.float32
    symmetric: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv3x3(self.features, use_bias=False, dtype=self.dtype, symmetric=self.symmetric)(x)
        x = BatchNorm(use_running_average=not train, dtype=self.dtype, symmetric=self.symmetric)(x)
        return nn.relu(x)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: scale each channel by a factor in 0..1, a function of the means of all channels.

    Hu et al. 2017, https://arxiv.org/abs/1709.01507. `[B, H, W, C]` -> `[B, H, W, C]`; the two dense layers have
    C // `ratio` channels between them. With `symmetric`, as in `Conv3x3`, a pair of channels has one mean and factor.
    """

    ratio: int = 4
    dtype: Dtype = jnp.float32
    symmetric: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        means = x.mean(axis=(1, 2), dtype=jnp.float32)
        if self.symmetric:
            means = mean_of_pairs(means)
        channels = means.shape[-1]
        squeezed = nn.Dense(channels // self.ratio, dtype=self.dtype)(means)
        factors = nn.sigmoid(nn.Dense(channels, dtype=self.dtype)(nn.relu(squeezed)))
        if self.symmetric:
            factors = for_both(factors)
        return x * factors[:, None, None, :]


class ResidualBlock(nn.Module):
    """x + two ConvBlocks of the same width (He et al. 2015, https://arxiv.org/abs/1512.03385).

    In training the branch of each image is dropped with probability `drop`, and scaled by 1 / (1 - drop) otherwise:
    stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382).
    """

    squeeze_excite: bool = False
    drop: float = 0.0
    dtype: Dtype = jnp.float32
    symmetric: bool = False  # as in `Conv3x3`

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = x.shape[-1]
        # Stored weights go by the order of construction: the second block is ConvBlock_0.
        second, first = (ConvBlock(width, self.dtype, self.symmetric) for _ in range(2))
        branch = second(first(x, train), train)
        if self.squeeze_excite:
            branch = SqueezeExcite(dtype=self.dtype, symmetric=self.symmetric)(branch)
        return x + nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), deterministic=not train)(branch)
