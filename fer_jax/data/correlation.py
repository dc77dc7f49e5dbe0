"""Find the pictures that correlate: the same photograph in other light, mirrored, or shifted by up to a pixel."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from fer_jax.data.folders import SIDE

# How far below the threshold the correlation of the blurred pictures may lie. At 0.92 this lost nothing: of all pairs
# of a validation and a training picture of FER+, 1,006 correlate so, and their blurred pictures 0.89 or more; nor did
# it for 3,000 training pictures with all (3,906 pairs). Training pictures moved by (1, 1) keep 0.88 blurred, each one.
MARGIN = 0.05

CHUNK = 128  # pictures compared with all others at a time; bounds memory

# [pixel, window]: sums over 8 pixels, every 4 pixels. A blur that a shift by one pixel hardly changes.
_BLUR = np.array([[4 * window <= pixel < 4 * window + 8 for window in range(11)] for pixel in range(SIDE)], np.float32)
# [pixel, shift]: which rows (or columns) are still inside after a shift by -1, 0, 1.
_INSIDE = np.array([[0 <= pixel + shift < SIDE for shift in (-1, 0, 1)] for pixel in range(SIDE)], np.float32)


class Pairs(NamedTuple):
    """Pictures that correlate, one row a pair."""

    image: np.ndarray  # i64[P], row in the first pictures
    other: np.ndarray  # i64[P], row in the second
    correlation: np.ndarray  # f32[P], at the best alignment
    mirrored: np.ndarray  # bool[P], whether that one mirrors
    shifted: np.ndarray  # bool[P], whether it shifts


class _Described(NamedTuple):
    even: np.ndarray  # f32[N, 66], of the blurred picture, standardised: what mirroring keeps
    odd: np.ndarray  # f32[N, 55], what mirroring negates
    norm: np.ndarray  # f32[N, 3, 3], by shift: length of what is still inside, less its mean; inf where that is flat


def correlating(images: np.ndarray, others: np.ndarray, threshold: float) -> Pairs:
    """All pairs whose Pearson correlation, over what overlaps, reaches a threshold in one of the 18 alignments.

    Blurred pictures are compared first, all with all; the pairs less than MARGIN below the threshold are then compared
    as they are. Which pictures come first makes no difference to what is found.

    Args:
        images: u8[N, 48, 48].
        others: u8[M, 48, 48].
        threshold: above 0.

    Returns:
        The pairs in the order of `images`; exact repeats are among them, flat pictures never.
    """
    first, second = _describe(images), _describe(others)

    def compare(start: int) -> Pairs:
        chunk = slice(start, start + CHUNK)
        # the product with a mirrored picture is even - odd instead of even + odd: this is the larger of the two
        blurred = first.odd[chunk] @ second.odd.T
        np.abs(blurred, out=blurred)
        blurred += first.even[chunk] @ second.even.T
        image, other = np.divmod(np.flatnonzero(blurred > threshold - MARGIN), max(len(others), 1))
        pairs = _align(images[chunk], first.norm[chunk], others, second.norm, image, other)
        reached = pairs.correlation >= threshold
        return Pairs(*(field[reached] for field in pairs._replace(image=pairs.image + start)))

    starts = range(0, max(len(images), 1), CHUNK)
    # Threads of our own: OpenBLAS's wait by spinning, and beside other programs that takes many times as long.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(tqdm(pool.map(compare, starts), "comparing", len(starts), leave=False, disable=None, delay=2))
    return Pairs(*(np.concatenate(fields) for fields in zip(*found, strict=True)))


def _describe(images: np.ndarray) -> _Described:
    described = []
    for start in range(0, max(len(images), 1), 1024):
        pixels = images[start : start + 1024].astype(np.float32)
        blurred = _BLUR.T @ (pixels.reshape(-1, SIDE) @ _BLUR).reshape(-1, SIDE, 11)
        blurred -= blurred.mean(axis=(1, 2), keepdims=True)
        length = np.linalg.norm(blurred, axis=(1, 2), keepdims=True)
        blurred /= np.where(length > 0, length, np.inf)
        left, middle, right = blurred[:, :, :5] / np.sqrt(2), blurred[:, :, 5:6], blurred[:, :, :5:-1] / np.sqrt(2)
        even = np.concatenate([left + right, middle], axis=2).reshape(-1, 66)
        odd = (left - right).reshape(-1, 55)

        # float32 holds the sums over a row exactly, float64 all that follow
        total, squares = (
            _INSIDE.T.astype(np.float64) @ (values.reshape(-1, SIDE) @ _INSIDE).reshape(-1, SIDE, 3)
            for values in (pixels, pixels**2)
        )
        area = np.outer(_INSIDE.sum(axis=0), _INSIDE.sum(axis=0))
        variation = squares - total**2 / area
        norm = np.sqrt(np.where(variation > 0, variation, np.inf)).astype(np.float32)
        described.append(_Described(even, odd, norm))
    return _Described(*map(np.concatenate, zip(*described, strict=True)))


def _align(
    images: np.ndarray,
    image_norm: np.ndarray,
    others: np.ndarray,
    other_norm: np.ndarray,
    image: np.ndarray,
    other: np.ndarray,
) -> Pairs:
    """Pairs (rows `image`, ascending, and `other`) with the highest correlation of their 18 alignments."""
    rows, starts = np.unique(image, return_index=True)
    pixels = images[rows].astype(np.float32)
    # all alignments of an image, less the mean, zero where a shift leaves nothing: one product for all correlations
    aligned = np.zeros((len(rows), 2, 3, 3, SIDE, SIDE), np.float32)
    norm = np.stack([image_norm[rows], image_norm[rows, :, ::-1]], axis=1)
    for mirrored, turned in enumerate((pixels, pixels[:, :, ::-1])):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                inside = turned[:, _kept(down), _kept(right)]
                moved = aligned[:, mirrored, down + 1, right + 1, _kept(-down), _kept(-right)]
                moved[...] = inside - inside.mean(axis=(1, 2), keepdims=True)

    best, correlation = np.zeros(len(image), np.int64), np.zeros(len(image), np.float32)
    for row, (start, stop) in enumerate(pairwise([*starts, len(image)])):
        against = other[start:stop]
        centred = others[against].reshape(-1, SIDE**2).astype(np.float32)
        centred -= centred.mean(axis=1, keepdims=True)  # for float32: less is then rounded off
        product = centred @ aligned[row].reshape(18, -1).T
        # what remains of the other picture is what a shift the opposite way would leave
        remains = other_norm[against, None, ::-1, ::-1]
        values = (product.reshape(-1, 2, 3, 3) / (norm[row] * remains)).reshape(-1, 18)
        best[start:stop] = values.argmax(axis=1)
        correlation[start:stop] = values.max(axis=1)
    return Pairs(image, other, correlation, best >= 9, best % 9 != 4)


def _kept(shift: int) -> slice:
    """The rows (or columns) of a picture that stay inside it in a shift."""
    return slice(max(-shift, 0), SIDE - max(shift, 0))
