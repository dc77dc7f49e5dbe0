"""The data of a run: training images with their targets (label mode, duplicates, softening), and validation images."""

import hashlib
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fer_jax.core.errors import UserError
from fer_jax.data import duplicates, folders, labels
from fer_jax.data.batching import Examples
from fer_jax.data.folders import Split
from fer_jax.data.selection import Selection

PART = 0x9A27  # a stream of random numbers of its own, which no epoch's is
_CHUNK = 4096  # images that are read at a time


class Inputs(NamedTuple):
    """The data of a run."""

    training: Examples
    valid: Examples
    digest: str  # of both
    steps_per_epoch: int


def read(config: ConfigDict) -> Inputs:
    """Return the data of a run.

    Raises:
        UserError: the data cannot be read, or are too few for one batch.
    """
    train, valid = folders.load(config.data.dir, "train"), folders.load(config.data.dir, "valid")
    rows, target = _select(config, train)
    valid_target, keep = labels.targets(valid.votes, "majority")
    valid_rows = np.flatnonzero(keep)
    steps_per_epoch = len(rows) // config.train.batch_size
    if steps_per_epoch == 0 or len(valid_rows) == 0:
        raise UserError(
            f"{config.data.dir} gives {len(rows)} training and {len(valid_rows)} validation images; "
            f"train.batch_size={config.train.batch_size} needs at least as many training images, and one to validate"
        )
    valid_target = valid_target[valid_rows]
    return Inputs(
        Examples(Selection(train.images, rows), target),
        Examples(Selection(valid.images, valid_rows), valid_target),
        digest((train.digests[rows], target), (valid.digests[valid_rows], valid_target)),
        steps_per_epoch,
    )


def training(config: ConfigDict) -> Examples:
    """The examples that a run trains on, before teacher predictions.

    Raises:
        UserError: the data cannot be read.
    """
    split = folders.load(config.data.dir, "train")
    rows, target = _select(config, split)
    return Examples(Selection(split.images, rows), target)


def _select(config: ConfigDict, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the training split that a run trains on, i64[N] ascending, and their targets f32[N, 8]."""
    options = config.data
    target, keep = labels.targets(split.votes, options.label_mode)
    if options.drop_repeats:
        others = [folders.load(options.dir, name) for name in ("valid", "test") if folders.has(options.dir, name)]
        keep &= duplicates.drop(split, *others)
    rows = np.flatnonzero(keep)
    if options.fraction < 1:
        rows = rows[part(len(rows), options.fraction, config.seed)]
    return rows, labels.soften(target[rows], options.temperature, options.smoothing)


def part(count: int, fraction: float, seed: int) -> np.ndarray:
    """Return the rows of a random part of `count` images, ascending: i64. With one seed smaller parts lie in larger."""
    order = np.random.default_rng((seed, PART)).permutation(count)
    return np.sort(order[: round(fraction * count)])


def digest(*parts: tuple[np.ndarray, np.ndarray]) -> str:
    """The SHA-256 by which a run recognises its data.

    It takes the place of `pixel_digest`, which reads 2.3 GB for a million images at each start.

    Args:
        parts: the digests of images, S16[N], and their targets, f32[N, 8].
    """
    sha = hashlib.sha256()
    for digests, target in parts:
        sha.update(np.ascontiguousarray(digests).view(np.uint8).data)
        sha.update(np.ascontiguousarray(target).data)
    return sha.hexdigest()


def pixel_digest(*parts: Examples) -> str:
    """The SHA-256 of images and targets, by which older runs recognise their data."""
    sha = hashlib.sha256()
    for examples in parts:
        for start in range(0, len(examples.images), _CHUNK):
            sha.update(np.ascontiguousarray(examples.images[start : start + _CHUNK]).data)
        sha.update(np.ascontiguousarray(examples.target).data)
    return sha.hexdigest()
