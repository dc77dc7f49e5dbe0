"""Duplicates and near-duplicates: the images that occur in several splits of FER2013.

A duplicate has the same pixels. A near-duplicate is the same photograph again: the correlation of the two images,
which no change of brightness or contrast alters, reaches 0.92 in the best of 18 alignments (mirrored or not, shifted
by up to one pixel each way). Other crops, sizes and angles of a photograph often stay below that, and are not found:
the counts are too low rather than too high.
"""

from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np

from fer_jax.data.correlation import Pairs, correlated_pairs
from fer_jax.data.folders import Split

# Set by eye, on sheets of all pairs of a validation and a training image of FER+ that are not exact duplicates.
# Correlation, pairs, and the number of them that show the same photograph (not only the same person):
#   0.89-0.90   85   47 (55 %)     0.92-0.93   68   68
#   0.90-0.91   93   73 (78 %)     0.93-0.96  245  245
#   0.91-0.92   76   63 (83 %)     0.96-1.00  333  333
# The others are mostly faces from the front, with dark hair on a dark ground. Within the training split, with four
# times as many pairs, some of them reach 0.922: 6 of the 120 pairs that python -m fer_jax.repeats --sheet draws.
THRESHOLD = 0.92


def exact(split: Split, other: Split) -> np.ndarray:
    """The mask of the N images of a split whose pixels occur in the other: bool[N]."""
    return np.isin(split.digests, other.digests)


def near(split: Split, other: Split) -> np.ndarray:
    """The closest duplicate of each image, exact or near; a flat image has exact ones only.

    Args:
        split: N images.
        other: the split to search; equal pixels are found by the digests of both.

    Returns:
        i64[N], the row in the other split, or -1 where there is none.
    """
    pairs = _best(correlated_pairs(split.images, other.images, THRESHOLD))
    row = np.full(len(split.images), -1)
    row[pairs.image] = pairs.other
    distinct, first = np.unique(other.digests, return_index=True)
    is_exact = np.isin(split.digests, distinct)
    row[is_exact] = first[np.searchsorted(distinct, split.digests[is_exact])]
    return row


def drop(train: Split, *others: Split) -> np.ndarray:
    """The mask of the training images without a duplicate, exact or near, in another split.

    Args:
        train: N images.
        others: the splits to search.

    Returns:
        bool[N], False for a duplicate.
    """
    keep = np.ones(len(train.images), bool)
    for other in others:
        keep[exact(train, other)] = False
        keep[correlated_pairs(other.images, train.images, THRESHOLD).other] = False
    return keep


def _best(pairs: Pairs) -> Pairs:
    """The pair with the highest correlation for each image that has one."""
    order = np.lexsort((-pairs.correlation, pairs.image))
    _, first = np.unique(pairs.image[order], return_index=True)
    return Pairs(*(field[order[first]] for field in pairs))


class NearDuplicate(NamedTuple):
    """A pair of near-duplicates, to draw."""

    correlation: float
    names: tuple[str, str]
    pixels: np.ndarray  # u8[48, 96], side by side


class DuplicateCounts(NamedTuple):
    """The counts of one split compared with another, or with itself."""

    images: int  # of the split
    exact: int  # images with an exact duplicate
    near: int  # images with near-duplicates only; the next three count them by the closest one
    mirrored: int
    shifted: int
    in_place: int  # neither mirrored nor shifted: other light or compression, another watermark


def _count(is_exact: np.ndarray, pairs: Pairs) -> tuple[DuplicateCounts, Pairs]:
    """The counts, and the best pair of each image that has near-duplicates only."""
    best = _best(Pairs(*(field[~is_exact[pairs.image]] for field in pairs)))
    kinds = (best.mirrored, best.shifted, ~best.mirrored & ~best.shifted)
    numbers = (is_exact.sum(), len(best.image), *(kind.sum() for kind in kinds))
    return DuplicateCounts(len(is_exact), *map(int, numbers)), best


def compare(splits: Mapping[str, Split]) -> tuple[dict[tuple[str, str], DuplicateCounts], list[NearDuplicate]]:
    """The counts by (split, compared with), and the near-duplicates, lowest correlation first."""
    counts, near_duplicates = {}, {}
    for first_name, second_name in combinations_with_replacement(splits, 2):
        first, second = splits[first_name], splits[second_name]
        pairs = correlated_pairs(first.images, second.images, THRESHOLD)
        if first_name == second_name:
            pairs = Pairs(*(field[pairs.image != pairs.other] for field in pairs))
            _, inverse, copies = np.unique(first.digests, return_inverse=True, return_counts=True)
            is_exact = copies[inverse] > 1
        else:
            swapped = pairs._replace(image=pairs.other, other=pairs.image)
            is_exact = exact(second, first)
            counts[second_name, first_name], _ = _count(is_exact, swapped)
            is_exact = exact(first, second)
        counts[first_name, second_name], best = _count(is_exact, pairs)
        for image, other, correlation in zip(best.image, best.other, best.correlation, strict=True):
            names = (first.names[image], second.names[other])
            pixels = np.concatenate([first.images[image], second.images[other]], axis=1)
            near_duplicates[frozenset(names)] = NearDuplicate(float(correlation), names, pixels)
    return dict(sorted(counts.items())), sorted(near_duplicates.values(), key=lambda pair: pair.correlation)
