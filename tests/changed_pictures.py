"""Pictures, drawn, and the same changed as repeats are."""

import numpy as np
from scipy.ndimage import gaussian_filter


def draw(count: int, seed: int) -> np.ndarray:
    """Unlike pictures with soft shapes, as faces have them: u8[N, 48, 48], 40 to 200."""
    soft = gaussian_filter(np.random.default_rng(seed).normal(size=(count, 48, 48)), (0, 2.5, 2.5))
    soft -= soft.min(axis=(1, 2), keepdims=True)
    return (40 + 160 * soft / soft.max(axis=(1, 2), keepdims=True)).round().astype(np.uint8)


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Cut out elsewhere: the pixels that come in are the ones next to the border."""
    rows = np.clip(np.arange(48) - down, 0, 47)
    columns = np.clip(np.arange(48) - right, 0, 47)
    return images[:, rows][:, :, columns]


def lighter(images: np.ndarray) -> np.ndarray:
    return images + np.uint8(30)


def paler(images: np.ndarray) -> np.ndarray:
    return (images * 0.5 + 60).round().astype(np.uint8)


def mirrored(images: np.ndarray) -> np.ndarray:
    return images[:, :, ::-1]


def all_at_once(images: np.ndarray) -> np.ndarray:
    return mirrored(moved(paler(images), 1, -1))


def highest_correlation(image: np.ndarray, other: np.ndarray) -> float:
    """By numpy's own correlation of the overlap, 18 times."""
    found = []
    for turned in (image, image[:, ::-1]):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                here = turned[max(-down, 0) : 48 - max(down, 0), max(-right, 0) : 48 - max(right, 0)]
                there = other[max(down, 0) : 48 - max(-down, 0), max(right, 0) : 48 - max(-right, 0)]
                if here.std() > 0 and there.std() > 0:
                    found.append(np.corrcoef(here.ravel(), there.ravel())[0, 1])
    return max(found, default=0.0)
