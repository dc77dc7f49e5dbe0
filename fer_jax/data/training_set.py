"""The data of a run: training images with their targets (label mode, duplicates, softening), and validation images."""

import hashlib
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from fer_jax.core.errors import UserError
from fer_jax.data import batching, duplicates, folders, labels
from fer_jax.data.batching import Examples

PART = 0x9A27  # a stream of random numbers of its own, which no epoch's is


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
    examples = training(config)
    valid = batching.select(folders.load(config.data.dir, "valid"), "majority")
    steps_per_epoch = len(examples.images) // config.train.batch_size
    if steps_per_epoch == 0 or len(valid.images) == 0:
        raise UserError(
            f"{config.data.dir} gives {len(examples.images)} training and {len(valid.images)} validation images; "
            f"train.batch_size={config.train.batch_size} needs at least as many training images, and one to validate"
        )
    return Inputs(examples, valid, digest(examples, valid), steps_per_epoch)


def training(config: ConfigDict) -> Examples:
    """The examples that a run trains on, before teacher predictions.

    Raises:
        UserError: the data cannot be read.
    """
    options = config.data
    split = folders.load(options.dir, "train")
    if options.drop_repeats:
        others = [
            folders.load(options.dir, name).images for name in ("valid", "test") if folders.has(options.dir, name)
        ]
        keep = duplicates.drop(split.images, *others)
        split = folders.Split(*(field[keep] for field in split))
    examples = batching.select(split, options.label_mode)
    if options.fraction < 1:
        rows = part(len(examples.images), options.fraction, config.seed)
        examples = Examples(*(field[rows] for field in examples))
    target = labels.soften(examples.target, options.temperature, options.smoothing)
    return examples._replace(target=target)


def part(count: int, fraction: float, seed: int) -> np.ndarray:
    """Return the rows of a random part of `count` images, ascending: i64. With one seed smaller parts lie in larger."""
    order = np.random.default_rng((seed, PART)).permutation(count)
    return np.sort(order[: round(fraction * count)])


def digest(*parts: Examples) -> str:
    """The SHA-256 of images and targets, by which a run recognises its data."""
    sha = hashlib.sha256()
    for examples in parts:
        sha.update(np.ascontiguousarray(examples.images).data)
        sha.update(np.ascontiguousarray(examples.target).data)
    return sha.hexdigest()
