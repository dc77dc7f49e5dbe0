"""What JPEG does to the pixels of grey pictures, without the file: 8x8 blocks, their cosine transform, rounded.

All of it in whole numbers, so that numpy and XLA make the same pixels: a coefficient halfway between two steps would
else fall to either side.

Source: ITU-T T.81 (JPEG), annexes A.3 and K.1; the meaning of quality is the Independent JPEG Group's.
"""

from types import ModuleType
from typing import TypeVar

import jax
import numpy as np

A = TypeVar("A", np.ndarray, jax.Array)

# How coarse each coefficient of a block is at quality 50, T.81 table K.1: rows from slow to fast downwards.
STEPS = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.int32,
)
BITS = 13  # after the binary point of the cosines
KEPT = 2  # after that of a block transformed in one direction


def _cosines() -> np.ndarray:
    """The cosine transform of eight values, i32[8, 8] of 2^-13: the row is the frequency, its norm the root of 8."""
    frequency, place = np.indices((8, 8))
    wave = np.cos((2 * place + 1) * frequency * np.pi / 16) * np.where(frequency == 0, 1, np.sqrt(2))
    return np.rint(wave * 2**BITS).astype(np.int32)


COSINES = _cosines()


def compress(images: A, quality: A, xp: ModuleType) -> A:
    """Pictures as they come back from JPEG, with the module `xp`, numpy or jax.numpy.

    Args:
        images: u8[N, H, W], both sides multiples of 8.
        quality: i32[N], 1 (coarse) to 100, or 0 for pictures that stay as they are.
        xp: numpy or jax.numpy.

    Returns:
        u8[N, H, W], by either module the same; 98 % of the pixels or more are within a level of libjpeg's, the others
        in blocks that have a coefficient almost halfway between two steps.
    """
    n, height, width = images.shape
    blocks = images.astype(np.int32).reshape(n, height // 8, 8, width // 8, 8).swapaxes(2, 3) - 128
    at_least_1 = xp.maximum(quality, 1)
    percent = xp.where(quality < 50, 5000 // at_least_1, 200 - 2 * quality)
    steps = xp.clip((STEPS * percent[:, None, None] + 50) // 100, 1, 255)[:, None, None]
    eighths = _transform(_transform(blocks, COSINES.T, BITS - KEPT), COSINES.T, BITS + KEPT)
    coefficients = xp.sign(eighths) * ((abs(eighths) + 4 * steps) // (8 * steps)) * steps  # halves away from zero
    pixels = _transform(_transform(coefficients, COSINES, BITS - KEPT), COSINES, BITS + KEPT + 3) + 128
    pixels = xp.clip(pixels, 0, 255).astype(np.uint8).swapaxes(2, 3).reshape(n, height, width)
    return xp.where(quality[:, None, None] > 0, pixels, images)


def _transform(blocks: A, matrix: np.ndarray, dropped: int) -> A:
    """Each row times the matrix, less the last bits, to the nearest; rows come out as columns, ready for the others."""
    return ((blocks @ matrix + (1 << (dropped - 1))) >> dropped).swapaxes(-1, -2)
