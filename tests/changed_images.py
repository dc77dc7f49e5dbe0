"""Drawn images, and the same images changed as duplicates are."""

import numpy as np
from scipy.ndimage import gaussian_filter

from fer_jax.data import digests
from fer_jax.data.folders import Split


def draw(count: int, seed: int) -> np.ndarray:
    """Draw unlike images with soft shapes, as faces have them: u8[N, 48, 48], 40 to 200."""
    soft = gaussian_filter(np.random.default_rng(seed).normal(size=(count, 48, 48)), (0, 2.5, 2.5))
    soft -= soft.min(axis=(1, 2), keepdims=True)
    return (40 + 160 * soft / soft.max(axis=(1, 2), keepdims=True)).round().astype(np.uint8)


def split_of(images: np.ndarray) -> Split:
    """Make a split of images, without votes."""
    names = np.array([f"{row}.png" for row in range(len(images))], str)
    return Split(images, np.zeros((len(images), 10), np.int32), names, digests.of_images(images))


def shift(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Shift images; the pixels that come in repeat the border."""
    rows = np.clip(np.arange(48) - down, 0, 47)
    columns = np.clip(np.arange(48) - right, 0, 47)
    return images[:, rows][:, :, columns]


def brighten(images: np.ndarray) -> np.ndarray:
    return images + np.uint8(30)


def reduce_contrast(images: np.ndarray) -> np.ndarray:
    return (images * 0.5 + 60).round().astype(np.uint8)


def mirror(images: np.ndarray) -> np.ndarray:
    return images[:, :, ::-1]


def change_all(images: np.ndarray) -> np.ndarray:
    """Reduce the contrast, shift and mirror."""
    return mirror(shift(reduce_contrast(images), 1, -1))


def highest_correlation(image: np.ndarray, other: np.ndarray) -> float:
    """The highest of numpy's correlations over the overlap, in 18 alignments."""
    correlations = []
    for view in (image, image[:, ::-1]):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                overlap = view[max(-down, 0) : 48 - max(down, 0), max(-right, 0) : 48 - max(right, 0)]
                other_overlap = other[max(down, 0) : 48 - max(-down, 0), max(right, 0) : 48 - max(-right, 0)]
                if overlap.std() > 0 and other_overlap.std() > 0:
                    correlations.append(np.corrcoef(overlap.ravel(), other_overlap.ravel())[0, 1])
    return max(correlations, default=0.0)
