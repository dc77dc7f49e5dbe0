"""Bootstrap intervals of metrics."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 100  # replicas at a time, at most
LARGEST = 10_000_000  # weights at a time: fewer replicas of more than 100,000 images; bounds memory


class Interval(NamedTuple):
    """A metric with its 95 % interval."""

    value: float
    low: float
    high: float


def interval(value: float, replicates: np.ndarray) -> Interval:
    """Return the value with the middle 95 % of its replicates; nan replicates are left out.

    The ends are nan if no replicate is left.
    """
    defined = replicates[~np.isnan(replicates)]
    low, high = np.percentile(defined, (2.5, 97.5)) if len(defined) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def bootstrap_weights(count: int, seed: int, replicas: int) -> Iterator[np.ndarray]:
    """Yield the number of times that each of `count` images is drawn in each replica.

    Yields:
        Blocks f64[count, R] with R <= BLOCK. Every column sums to `count`.
    """
    rng = np.random.default_rng(seed)
    block = min(BLOCK, max(LARGEST // count, 1))
    for start in range(0, replicas, block):
        columns = min(block, replicas - start)
        drawn = rng.integers(0, count, (count, columns)) * columns + np.arange(columns)
        yield np.bincount(drawn.ravel(), minlength=count * columns).reshape(count, columns).astype(np.float64)
