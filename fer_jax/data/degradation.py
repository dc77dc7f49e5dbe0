"""Degradations as cameras and files cause them: noise, JPEG compression and blur, the same in numpy and XLA."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data import jpeg as jpeg_lib
from fer_jax.data.folders import SIDE

A = TypeVar("A", np.ndarray, jax.Array)

NOISE_UNIT = np.float32(1 / np.sqrt(4 * (256**2 - 1) / 12))  # one over the standard deviation of a sum of four bytes


def degraded(images: A, jpeg: A | None, noise: A | None, noise_seed: A | None, xp: ModuleType) -> A:
    """Images with noise, then compressed as JPEG: u8[N, 48, 48] -> u8[N, 48, 48]; see `AugmentParams`."""
    if noise is not None:
        assert noise_seed is not None
        images = _at(noise > 0, images, noisy, noise, noise_seed, xp=xp)
    return images if jpeg is None else _at(jpeg > 0, images, jpeg_lib.compress, jpeg, xp=xp)


def noisy(images: A, deviation: A, seed: A, xp: ModuleType) -> A:
    """Images with noise that is independent in each pixel, and almost normal: the sum of four random bytes.

    The bytes are a hash of seed and pixel, so that numpy and XLA draw the same.

    Args:
        images: u8[N, H, W].
        deviation: f32[N], in grey levels.
        seed: u32[N].
        xp: numpy or jax.numpy.

    Returns:
        u8[N, H, W].
    """
    height, width = images.shape[1:]
    pixel = np.arange(height * width, dtype=np.uint32).reshape(height, width) * np.uint32(0x9E3779B9)
    bits: Any = seed[:, None, None] + pixel
    # a hash of C. Wellons, github.com/skeeto/hash-prospector
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits >> shift)) * np.uint32(factor)
    bits = bits ^ (bits >> 16)
    total = ((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)).astype(np.int32) - 510
    levels = images + xp.rint(total.astype(np.float32) * (deviation * NOISE_UNIT)[:, None, None])
    return xp.clip(levels, 0, 255).astype(np.uint8)


def blurred(images: A, deviation: A, xp: ModuleType) -> A:
    """Images blurred by a Gaussian, with the mirror image beyond the border: f32[N, S, S] -> f32[N, S, S].

    The cosine transform turns such a blur into one factor for each frequency.

    Args:
        images: f32[N, S, S].
        deviation: f32[N], in pixels of a 48x48 image; 0 changes nothing.
        xp: numpy or jax.numpy.
    """
    return _at(deviation > 0, images, _blurred, deviation, xp=xp)


def _blurred(images: A, deviation: A, xp: ModuleType) -> A:
    size = images.shape[1]
    waves = _cosines(size)
    frequency = np.pi / SIDE * np.arange(size, dtype=np.float32)
    gain = xp.exp(-0.5 * (deviation[:, None] * frequency) ** 2)
    # GPUs would take products of fewer bits.
    product: Any = np.matmul if xp is np else partial(jnp.matmul, precision="highest")
    spectrum = product(product(waves, images), waves.T) * gain[:, :, None] * gain[:, None, :]
    return product(product(waves.T, spectrum), waves)


def _cosines(size: int) -> np.ndarray:
    """The orthonormal cosine transform (DCT-II): f32[S, S], a row per frequency."""
    frequency, position = np.indices((size, size))
    waves = np.cos((2 * position + 1) * frequency * np.pi / (2 * size)) * np.sqrt(2 / size)
    return (waves * np.where(frequency == 0, np.sqrt(0.5), 1)).astype(np.float32)


def _at(chosen: A, images: A, change: Callable[..., A], *params: A, xp: ModuleType) -> A:
    """Images of which the chosen are changed: numpy computes these alone, XLA all of them."""
    if xp is not np:
        return xp.where(chosen[:, None, None], change(images, *params, xp), images)
    rows, images = np.flatnonzero(chosen), images.copy()
    if len(rows):
        images[rows] = change(images[rows], *(param[rows] for param in params), xp)
    return images
