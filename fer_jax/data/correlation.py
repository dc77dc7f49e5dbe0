"""Pairs of correlated images: the same photograph in other light, mirrored, or shifted by up to a pixel."""

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from fer_jax.data.folders import SIDE

# The correlation of the blurred images may lie this far below the threshold. At 0.92 this lost nothing: of all pairs
# of a validation and a training image of FER+, 1,006 reach the threshold, and their blurred images 0.89 or more. Nor
# did it for 3,000 training images with all (3,906 pairs). Training images moved by (1, 1) keep 0.88 blurred, each one.
MARGIN = 0.05

# Bound memory besides the pairs found, by 0.1 GB and by 0.2 GB for each core, whatever the number of images.
BLOCK = 65_536  # images whose features are in memory, on either side
CHUNK = 128  # images of a block compared with a block of others at a time

# [pixel, window]: sums over 8 pixels, every 4 pixels. A blur that a shift by one pixel hardly changes.
_BLUR = np.array([[4 * window <= pixel < 4 * window + 8 for window in range(11)] for pixel in range(SIDE)], np.float32)
# [pixel, shift]: 1 where a row (or column) is still inside after a shift by -1, 0, 1.
_INSIDE = np.array([[0 <= pixel + shift < SIDE for shift in (-1, 0, 1)] for pixel in range(SIDE)], np.float32)


class Pairs(NamedTuple):
    """Correlated images, one row a pair."""

    image: np.ndarray  # i64[P], row in the first images
    other: np.ndarray  # i64[P], row in the second
    correlation: np.ndarray  # f32[P], at the best alignment
    mirrored: np.ndarray  # bool[P], True if the best alignment mirrors
    shifted: np.ndarray  # bool[P], True if it shifts


class _Features(NamedTuple):
    even: np.ndarray  # f32[N, 66], the part of the standardised blurred image that mirroring keeps
    odd: np.ndarray  # f32[N, 55], the part that mirroring negates
    norm: np.ndarray  # f32[N, 3, 3], by shift: norm of the pixels still inside, less their mean; inf where flat


def correlated_pairs(images: np.ndarray, others: np.ndarray, threshold: float) -> Pairs:
    """All pairs whose Pearson correlation over the overlap reaches a threshold in one of the 18 alignments.

    Blurred images are compared first, all with all: the time grows with the product of both numbers. The pairs less
    than MARGIN below the threshold are then compared at full resolution. Swapping `images` and `others` does not change
    the pairs.

    Args:
        images: u8[N, 48, 48].
        others: u8[M, 48, 48].
        threshold: above 0.

    Returns:
        The pairs in the order of `images`, then of `others`; exact duplicates are among them, flat images never.
    """
    found = [Pairs(*(np.zeros(0, dtype) for dtype in (np.int64, np.int64, np.float32, bool, bool)))]
    # Threads of our own: OpenBLAS's wait by spinning, which takes many times as long next to other programs.
    with (
        threadpool_limits(1, "blas"),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(
            desc="comparing", total=len(images) * len(others), unit_scale=True, leave=False, disable=None, delay=2
        ) as bar,
    ):
        for start in range(0, len(images), BLOCK):
            block = images[start : start + BLOCK]
            chunks = range(0, len(block), CHUNK)
            features = _features(block, pool)
            for other_start in range(0, len(others), BLOCK):
                other_block = others[other_start : other_start + BLOCK]
                compare = partial(_compare, block, features, other_block, _features(other_block, pool), threshold)
                for chunk, pairs in zip(chunks, pool.map(compare, chunks), strict=True):
                    found.append(pairs._replace(image=pairs.image + start, other=pairs.other + other_start))
                    bar.update(len(block[chunk : chunk + CHUNK]) * len(other_block))
    pairs = Pairs(*(np.concatenate(fields) for fields in zip(*found, strict=True)))
    order = np.lexsort((pairs.other, pairs.image))
    return Pairs(*(field[order] for field in pairs))


def _compare(
    images: np.ndarray, first: _Features, others: np.ndarray, second: _Features, threshold: float, start: int
) -> Pairs:
    """The pairs of a chunk of images, from row `start` on, with all others."""
    chunk = slice(start, start + CHUNK)
    # The product with a mirrored image is even - odd instead of even + odd: this is the larger of the two.
    blurred = first.odd[chunk] @ second.odd.T
    np.abs(blurred, out=blurred)
    blurred += first.even[chunk] @ second.even.T
    image, other = np.divmod(np.flatnonzero(blurred > threshold - MARGIN), len(others))
    pairs = _align(images[chunk], first.norm[chunk], others, second.norm, image, other)
    mask = pairs.correlation >= threshold
    return Pairs(*(field[mask] for field in pairs._replace(image=pairs.image + start)))


def _features(images: np.ndarray, pool: Executor) -> _Features:
    parts = pool.map(_features_of, (images[start : start + 1024] for start in range(0, len(images), 1024)))
    return _Features(*map(np.concatenate, zip(*parts, strict=True)))


def _features_of(images: np.ndarray) -> _Features:
    pixels = images.astype(np.float32)
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
    return _Features(even, odd, norm)


def _align(
    images: np.ndarray,
    image_norm: np.ndarray,
    others: np.ndarray,
    other_norm: np.ndarray,
    image: np.ndarray,
    other: np.ndarray,
) -> Pairs:
    """The pairs of rows `image` (ascending) and `other`, at the highest correlation of their 18 alignments."""
    rows, starts = np.unique(image, return_index=True)
    pixels = images[rows].astype(np.float32)
    # All alignments of an image, less the mean, zero where a shift leaves nothing: one product for all correlations.
    aligned = np.zeros((len(rows), 2, 3, 3, SIDE, SIDE), np.float32)
    norm = np.stack([image_norm[rows], image_norm[rows, :, ::-1]], axis=1)
    for mirrored, view in enumerate((pixels, pixels[:, :, ::-1])):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                inside = view[:, _overlap(down), _overlap(right)]
                shifted = aligned[:, mirrored, down + 1, right + 1, _overlap(-down), _overlap(-right)]
                shifted[...] = inside - inside.mean(axis=(1, 2), keepdims=True)

    best, correlation = np.zeros(len(image), np.int64), np.zeros(len(image), np.float32)
    for row, (start, stop) in enumerate(pairwise([*starts, len(image)])):
        partners = other[start:stop]
        centred = others[partners].reshape(-1, SIDE**2).astype(np.float32)
        centred -= centred.mean(axis=1, keepdims=True)  # smaller numbers lose less to rounding in float32
        product = centred @ aligned[row].reshape(18, -1).T
        # The overlap in the other image is what a shift the opposite way would leave.
        partner_norm = other_norm[partners, None, ::-1, ::-1]
        values = (product.reshape(-1, 2, 3, 3) / (norm[row] * partner_norm)).reshape(-1, 18)
        best[start:stop] = values.argmax(axis=1)
        correlation[start:stop] = values.max(axis=1)
    return Pairs(image, other, correlation, best >= 9, best % 9 != 4)


def _overlap(shift: int) -> slice:
    """The rows (or columns) of an image that stay inside it in a shift."""
    return slice(max(-shift, 0), SIDE - max(shift, 0))
