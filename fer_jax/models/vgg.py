"""The VGG13 of the FER+ paper."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.data.labels import EMOTIONS
from fer_jax.models.ops import Conv3x3
from fer_jax.models.pooling import max_pool_2x2

Dtype = Any


class VGG13(nn.Module):
    """The VGG13 of Barsoum et al. 2016, section 4 (https://arxiv.org/abs/1608.01041): [B, 64, 64, 1] -> f32[B, 8].

    `dropout` follows each dense layer, half of it each group of convolutions. The paper has 0.5 and 0.25. Other image
    sizes work too and change the first dense layer.
    """

    dropout: float = 0.5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for width, count in ((64, 2), (128, 2), (256, 3), (256, 3)):
            for _ in range(count):
                x = nn.relu(Conv3x3(width, dtype=self.dtype)(x))
            x = nn.Dropout(self.dropout / 2, deterministic=not train)(max_pool_2x2(x))
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(1024, dtype=self.dtype)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(len(EMOTIONS))(x.astype(jnp.float32))
