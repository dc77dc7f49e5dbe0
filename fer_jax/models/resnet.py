"""The residual networks of `registry.MODELS`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.data.labels import EMOTIONS
from fer_jax.models.blocks import ConvBlock, ResidualBlock
from fer_jax.models.pooling import max_blur_pool, max_pool_2x2
from fer_jax.models.symmetry import mean_of_pairs

Dtype = Any


class ResNet(nn.Module):
    """Stages of a ConvBlock and residual blocks, global average pooling, one dense layer: [B, S, S, 1] -> f32[B, 8].

    Every stage except the first halves the side by 2x2 pooling, between its ConvBlock and its residual blocks.
    """

    widths: tuple[int, ...]  # channels of each stage
    blocks: tuple[int, ...]  # residual blocks of each stage
    # Turn each 2x2 patch of the image into one pixel of four channels. The first stage then runs at half the side, and
    # the first, largest maps are most of a small network's cost.
    space_to_depth: bool = True
    width: float = 1.0  # a factor on all `widths`
    depth: int = 1  # a factor on all `blocks`
    squeeze_excite: bool = False  # in every residual block
    antialias: bool = False  # pool by `max_blur_pool`
    symmetric: bool = False  # a face and its mirror image have the same logits, see `fer_jax.models.symmetry`
    stochastic_depth: float = 0.0  # drop probability of the last residual block; less before, in proportion to depth
    dropout: float = 0.0  # before the dense layer
    dtype: Dtype = jnp.float32

    @property
    def symmetric_multiple(self) -> int:
        """With `symmetric` the side of the images is a multiple of this number, so that only even sides are halved."""
        return 2 ** (len(self.widths) - 1 + self.space_to_depth)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.space_to_depth:
            batch, height, width, channels = x.shape
            x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
            # In symmetric networks the columns of a patch come first: the halves of the channels are a pair then.
            x = x.transpose(0, 1, 3, 4, 2, 5) if self.symmetric else x.swapaxes(2, 3)
            x = x.reshape(batch, height // 2, width // 2, 4 * channels)
        block = 0
        for index, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            x = ConvBlock(_scaled(width, self.width), self.dtype, self.symmetric)(x, train)
            if index > 0:
                x = max_blur_pool(x) if self.antialias else max_pool_2x2(x)
            for _ in range(self.depth * count):
                block += 1
                drop = self.stochastic_depth * block / (self.depth * sum(self.blocks))
                x = ResidualBlock(self.squeeze_excite, drop, self.dtype, self.symmetric)(x, train)
        x = x.mean(axis=(1, 2), dtype=jnp.float32)
        if self.symmetric:
            x = mean_of_pairs(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(len(EMOTIONS))(x)


def _scaled(width: int, factor: float) -> int:
    """Return the width times the factor, to the nearest multiple of 8 and at least 8; a factor of 1 changes nothing."""
    return width if factor == 1 else max(8, math.floor(width * factor / 8 + 0.5) * 8)
