"""The five-block CNN: the example to follow for a new network."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.data.labels import EMOTIONS
from fer_jax.models.blocks import ConvBlock
from fer_jax.models.pooling import max_pool_2x2

Dtype = Any


class EmotionCNN(nn.Module):
    """Five blocks of two 3x3 convolutions, global average pooling, two dense blocks: [B, S, S, 1] -> f32[B, 8].

    `dropout` follows each dense block.
    """

    dropout: float = 0.4
    dtype: Dtype = jnp.float32
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    dense: tuple[int, ...] = (256, 128)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for index, width in enumerate(self.widths):
            x = ConvBlock(width, self.dtype)(x, train)
            x = ConvBlock(width, self.dtype)(x, train)
            if index < len(self.widths) - 1:
                x = max_pool_2x2(x)
        x = x.mean(axis=(1, 2))
        for width in self.dense:
            x = nn.Dense(width, dtype=self.dtype)(x)
            x = nn.relu(nn.LayerNorm(dtype=self.dtype)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(len(EMOTIONS))(x.astype(jnp.float32))
