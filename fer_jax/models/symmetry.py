"""Channels in pairs, for networks that give a face and its mirror image the same logits.

Group convolution with the group of the reflection (Cohen & Welling 2016, https://arxiv.org/abs/1602.07576): the kernels
of channels c and c + C / 2 are mirror images of each other. If the image is mirrored, the maps of the two are mirrored
and change places; so their mean over pixels and pair is the same. A layer has half the weights of another of its width,
and takes the same time.
"""

import jax.numpy as jnp
from jax import Array, lax


def paired_kernel(kernel: Array) -> Array:
    """Return the kernels of all channels: [3, 3, C_in, C / 2] -> [3, 3, C_in, C]; C_in is 1 or consists of pairs."""
    mirrored = kernel[:, ::-1]
    if (half := kernel.shape[2] // 2) > 0:
        mirrored = jnp.concatenate([mirrored[:, :, half:], mirrored[:, :, :half]], axis=2)
    return jnp.concatenate([kernel, mirrored], axis=3)


def for_both(values: Array) -> Array:
    """Return the values of each pair for both of its channels: [..., C / 2] -> [..., C]."""
    # Without the barrier XLA looks each of them up in the loops over the maps, which are three times as slow then.
    return lax.optimization_barrier(jnp.concatenate([values, values], axis=-1))


def sum_of_pairs(values: Array) -> Array:
    """Return the sum of each pair: [..., C] -> [..., C / 2]."""
    half = values.shape[-1] // 2
    return values[..., :half] + values[..., half:]


def mean_of_pairs(values: Array) -> Array:
    """Return the mean of each pair: [..., C] -> [..., C / 2]."""
    return sum_of_pairs(values) / 2
