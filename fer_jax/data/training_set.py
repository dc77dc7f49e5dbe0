"""The training images of a config with their targets: label mode, duplicates, softening."""

import hashlib

import numpy as np
from ml_collections import ConfigDict

from fer_jax.data import batching, duplicates, folders, labels
from fer_jax.data.batching import Examples


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
    target = labels.soften(examples.target, options.temperature, options.smoothing)
    return examples._replace(target=target)


def digest(*parts: Examples) -> str:
    """The SHA-256 of images and targets, by which a run recognises its data."""
    sha = hashlib.sha256()
    for examples in parts:
        sha.update(np.ascontiguousarray(examples.images).data)
        sha.update(np.ascontiguousarray(examples.target).data)
    return sha.hexdigest()
