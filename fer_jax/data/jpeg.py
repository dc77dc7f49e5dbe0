"""The effect of JPEG compression on the pixels of grey images, without a file: 8x8 blocks, cosine transform, rounding.

All of it is integer arithmetic, so that numpy and XLA make the same pixels. In floating point, a coefficient halfway
between two steps could round either way.

Source: ITU-T T.81 (JPEG), annexes A.3 and K.1; the meaning of quality is the Independent JPEG Group's.
"""

from types import ModuleType
from typing import TypeVar

import jax
import numpy as np

A = TypeVar("A", np.ndarray, jax.Array)

# The quantisation step of each coefficient of a block at quality 50, T.81 table K.1: rows from low to high vertical
# frequency.
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
COSINE_BITS = 13  # fractional bits of the cosines
BLOCK_BITS = 2  # fractional bits of a block transformed in one direction


def _cosines() -> np.ndarray:
    """The cosine transform of eight values in units of 2^-13: i32[8, 8], a row per frequency, of norm sqrt(8)."""
    frequency, position = np.indices((8, 8))
    wave = np.cos((2 * position + 1) * frequency * np.pi / 16) * np.where(frequency == 0, 1, np.sqrt(2))
    return np.rint(wave * 2**COSINE_BITS).astype(np.int32)


COSINES = _cosines()


def compress(images: A, quality: A, xp: ModuleType) -> A:
    """Images as JPEG compression returns them.

    Args:
        images: u8[N, H, W], both sides multiples of 8.
        quality: i32[N], 1 (coarse) to 100, or 0 for images that stay as they are.
        xp: numpy or jax.numpy.

    Returns:
        u8[N, H, W], the same from either module. At least 98 % of the pixels are within one level of libjpeg's; the
        others are in blocks with a coefficient almost halfway between two steps.
    """
    n, height, width = images.shape
    blocks = images.astype(np.int32).reshape(n, height // 8, 8, width // 8, 8).swapaxes(2, 3) - 128
    at_least_1 = xp.maximum(quality, 1)
    percent = xp.where(quality < 50, 5000 // at_least_1, 200 - 2 * quality)
    steps = xp.clip((STEPS * percent[:, None, None] + 50) // 100, 1, 255)[:, None, None]
    first_shift, second_shift = COSINE_BITS - BLOCK_BITS, COSINE_BITS + BLOCK_BITS
    eighths = _transform(_transform(blocks, COSINES.T, first_shift), COSINES.T, second_shift)
    coefficients = xp.sign(eighths) * ((abs(eighths) + 4 * steps) // (8 * steps)) * steps  # halves away from zero
    pixels = _transform(_transform(coefficients, COSINES, first_shift), COSINES, second_shift + 3) + 128
    pixels = xp.clip(pixels, 0, 255).astype(np.uint8).swapaxes(2, 3).reshape(n, height, width)
    return xp.where(quality[:, None, None] > 0, pixels, images)


def _transform(blocks: A, matrix: np.ndarray, shift: int) -> A:
    """Multiply each row by the matrix and divide by 2^shift, rounded; transposed, ready for the other direction."""
    return ((blocks @ matrix + (1 << (shift - 1))) >> shift).swapaxes(-1, -2)
