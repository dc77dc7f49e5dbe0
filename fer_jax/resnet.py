"""The residual networks of `models.MODELS`, and what they are made of."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.labels import EMOTIONS
from fer_jax.ops import BatchNorm, Conv3x3
from fer_jax.pooling import max_blur_pool, max_pool_2x2

Dtype = Any


class ConvBlock(nn.Module):
    """3x3 convolution, BatchNorm, ReLU: [B, H, W, C] -> [B, H, W, features]."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv3x3(self.features, use_bias=False, dtype=self.dtype)(x)
        x = BatchNorm(use_running_average=not train, dtype=self.dtype)(x)
        return nn.relu(x)


class SqueezeExcite(nn.Module):
    """Each channel times a factor from 0 to 1 that the means of all channels decide (Hu et al. 2017, arXiv:1709.01507).

    `[B, H, W, C]` -> the same; between the two dense layers there are C // `ratio` channels.
    """

    ratio: int = 4
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        squeezed = nn.Dense(channels // self.ratio, dtype=self.dtype)(x.mean(axis=(1, 2), dtype=jnp.float32))
        factors = nn.sigmoid(nn.Dense(channels, dtype=self.dtype)(nn.relu(squeezed)))
        return x * factors[:, None, None, :]


class ResidualBlock(nn.Module):
    """x + two ConvBlocks of the same width (He et al. 2015, https://arxiv.org/abs/1512.03385).

    In training the two are left out with probability `drop`, picture by picture, and else count 1 / (1 - drop) times
    (stochastic depth, Huang et al. 2016, https://arxiv.org/abs/1603.09382).
    """

    squeeze_excite: bool = False
    drop: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = x.shape[-1]
        branch = ConvBlock(width, self.dtype)(ConvBlock(width, self.dtype)(x, train), train)
        if self.squeeze_excite:
            branch = SqueezeExcite(dtype=self.dtype)(branch)
        return x + nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), deterministic=not train)(branch)


class ResNet(nn.Module):
    """Stages of [ConvBlock, 2x2 max pooling but in the first, residual blocks], average, Dense.

    With `space_to_depth` each 2x2 patch of the picture becomes one pixel of four channels, so that the first
    stage runs at half the side: most of the cost of a small network lies in its first, largest maps.
    `width` is a factor on all `widths`, `depth` one on the numbers of residual blocks, `blocks`. The last residual
    block is dropped with probability `stochastic_depth`, those before it with less, in proportion to their depth.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    space_to_depth: bool = True
    width: float = 1.0
    depth: int = 1
    squeeze_excite: bool = False
    antialias: bool = False
    stochastic_depth: float = 0.0
    dropout: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.space_to_depth:
            batch, height, width, channels = x.shape
            x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
            x = x.reshape(batch, height // 2, width // 2, 4 * channels)
        block = 0
        for index, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            x = ConvBlock(_scaled(width, self.width), self.dtype)(x, train)
            if index > 0:
                x = max_blur_pool(x) if self.antialias else max_pool_2x2(x)
            for _ in range(self.depth * count):
                block += 1
                drop = self.stochastic_depth * block / (self.depth * sum(self.blocks))
                x = ResidualBlock(self.squeeze_excite, drop, self.dtype)(x, train)
        x = x.mean(axis=(1, 2), dtype=jnp.float32)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(len(EMOTIONS))(x)


def _scaled(width: int, factor: float) -> int:
    """To the nearest multiple of 8, at least 8; a factor of 1 leaves any width as it is."""
    return width if factor == 1 else max(8, math.floor(width * factor / 8 + 0.5) * 8)
