"""The residual networks of `registry.MODELS`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.data.labels import EMOTIONS
from fer_jax.models.blocks import ConvBlock, ResidualBlock
from fer_jax.models.pooling import max_blur_pool, max_pool_2x2

Dtype = Any


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
