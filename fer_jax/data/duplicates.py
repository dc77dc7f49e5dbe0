"""Duplicates and near-duplicates: the images that occur in several splits of FER2013.

A duplicate has the same pixels. A near-duplicate is the same photograph again: the correlation of the two images,
which no change of brightness or contrast alters, reaches 0.92 in the best of 18 alignments (mirrored or not, shifted
by up to one pixel each way). Other crops, sizes and angles of a photograph often stay below that, and are not found:
the counts are too low rather than too high.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np

from fer_jax.data.correlation import Pairs, correlating
from fer_jax.data.folders import Split

# Set by eye, on picture sheets of all pairs of a validation and a training picture of FER+ that are not exact repeats.
# Correlation, pairs, and those of them that show the same photograph (not only the same person):
#   0.89-0.90   85   47 (55 %)     0.92-0.93   68   68
#   0.90-0.91   93   73 (78 %)     0.93-0.96  245  245
#   0.91-0.92   76   63 (83 %)     0.96-1.00  333  333
# The others are mostly faces from the front, with dark hair on a dark ground. Within the training split, with four
# times as many pairs, some of them reach 0.922: 6 of the 120 pairs that python -m fer_jax.repeats --sheet draws.
THRESHOLD = 0.92


def exact(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether the pixels of each of `images` (u8[N, 48, 48]) occur among `others` (u8[M, 48, 48]): bool[N]."""
    return _copies(images, others) > 0


def near(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The nearest repeat of each picture, exact or near; a flat picture has exact ones only.

    Args:
        images: u8[N, 48, 48].
        others: u8[M, 48, 48].

    Returns:
        i64[N], the row in `others`, or -1 where there is none.
    """
    pairs = _best(correlating(images, others, THRESHOLD))
    row = np.full(len(images), -1)
    row[pairs.image] = pairs.other
    first = {other.tobytes(): index for index, other in reversed(list(enumerate(others)))}
    return np.array([first.get(image.tobytes(), other) for image, other in zip(images, row, strict=True)], np.int64)


def drop(train: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Which training pictures to keep so that none is a repeat, exact or near, of a picture of another split.

    Args:
        train: u8[N, 48, 48].
        others: u8[M, 48, 48] each, the pictures of the other splits.

    Returns:
        bool[N], False for a repeat.
    """
    keep = np.ones(len(train), bool)
    for images in others:
        keep[exact(train, images)] = False
        keep[correlating(images, train, THRESHOLD).other] = False
    return keep


def _best(pairs: Pairs) -> Pairs:
    """Of each image's pairs the one that correlates best."""
    order = np.lexsort((-pairs.correlation, pairs.image))
    _, chosen = np.unique(pairs.image[order], return_index=True)
    return Pairs(*(field[order[chosen]] for field in pairs))


def _copies(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How often the pixels of each image occur among others: i64[N]."""
    count = Counter(other.tobytes() for other in others)
    return np.array([count[image.tobytes()] for image in images], np.int64)


class Shown(NamedTuple):
    """A pair of near-duplicates to draw."""

    correlation: float
    names: tuple[str, str]
    picture: np.ndarray  # u8[48, 96], side by side


class Row(NamedTuple):
    """The counts of one split against another, or itself."""

    pictures: int  # of a split
    exact: int  # those with an exact repeat in the split that they are compared with
    near: int  # those with near repeats only, and by the best of these:
    mirrored: int
    shifted: int
    in_place: int  # neither: other light or compression, another watermark


def _count(images: np.ndarray, is_exact: np.ndarray, pairs: Pairs) -> tuple[Row, Pairs]:
    """A line of the table, and the best pair of each picture that has near repeats only."""
    best = _best(Pairs(*(field[~is_exact[pairs.image]] for field in pairs)))
    kinds = (best.mirrored, best.shifted, ~best.mirrored & ~best.shifted)
    return Row(len(images), int(is_exact.sum()), len(best.image), *(int(kind.sum()) for kind in kinds)), best


def compare(splits: Mapping[str, Split]) -> tuple[dict[tuple[str, str], Row], list[Shown]]:
    """The table by (pictures of, repeated in), and the near repeats, nearest to the threshold first."""
    rows, shown = {}, {}
    for one, two in combinations_with_replacement(splits, 2):
        first, second = splits[one], splits[two]
        pairs = correlating(first.images, second.images, THRESHOLD)
        if one == two:
            pairs = Pairs(*(field[pairs.image != pairs.other] for field in pairs))
            rows[one, two], best = _count(first.images, _copies(first.images, first.images) > 1, pairs)
        else:
            swapped = pairs._replace(image=pairs.other, other=pairs.image)
            rows[two, one], _ = _count(second.images, exact(second.images, first.images), swapped)
            rows[one, two], best = _count(first.images, exact(first.images, second.images), pairs)
        for image, other, correlation in zip(best.image, best.other, best.correlation, strict=True):
            names = (first.names[image], second.names[other])
            picture = np.concatenate([first.images[image], second.images[other]], axis=1)
            shown[frozenset(names)] = Shown(float(correlation), names, picture)
    return dict(sorted(rows.items())), sorted(shown.values(), key=lambda pair: pair.correlation)
