"""Groups of images that belong together (one person, one photograph), and their division into parts."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from fer_jax.data import digests
from fer_jax.data.correlation import correlated_pairs
from fer_jax.data.duplicates import THRESHOLD


def find(images: np.ndarray, persons: Sequence[str] | None = None) -> np.ndarray:
    """Return the group of each image: i64[N], 0..G-1.

    Images of a person are in one group, and so are duplicates and near-duplicates (`fer_jax.data.duplicates`).

    Args:
        images: u8[N, 48, 48].
        persons: the person of each image, "" where unknown.
    """
    count = len(images)
    pairs = correlated_pairs(images, images, THRESHOLD)
    first, second = [pairs.image], [pairs.other]
    keys = [digests.of_images(images).tolist()]  # correlation leaves out flat images
    keys += [list(persons)] if persons else []
    for column in keys:
        leader: dict[object, int] = {}
        first.append(np.arange(count))
        second.append(np.array([leader.setdefault(key, row) if key else row for row, key in enumerate(column)], int))
    edges = np.concatenate(first), np.concatenate(second)
    graph = sparse.coo_matrix((np.ones(len(edges[0]), bool), edges), (count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def divide(groups: np.ndarray, classes: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """Divide whole groups into parts with about the same frequencies of classes: i64[N], the part of each image.

    Groups come in random order, the largest first. Each goes to the part that lacks its classes most.

    Args:
        groups: i64[N], 0..G-1.
        classes: i64[N], 0..7.
        fractions: the sizes of the parts, of sum 1; a part of size 0 stays empty.
        seed: fixes the random order.
    """
    counts = np.zeros((groups.max(initial=-1) + 1, 8))
    np.add.at(counts, (groups, classes), 1)
    expected = np.outer(fractions, counts.sum(axis=0))
    missing = expected.copy()
    weight = 1 / np.maximum(expected, 1e-9)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    part = np.zeros(len(counts), np.int64)
    for group in order:
        added = counts[group]
        # The change of the sum of (missing images)^2 / expected images.
        cost = (added * (added - 2 * missing) * weight).sum(axis=1)
        part[group] = cost.argmin()
        missing[part[group]] -= added
    return part[groups]
