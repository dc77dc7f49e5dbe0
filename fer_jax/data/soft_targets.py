"""Predictions of training images in a file: a run's targets when it is resumed, and the teachers of other runs."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax.core import atomic
from fer_jax.data.labels import EMOTIONS


class SoftTargets(NamedTuple):
    """The predictions of images."""

    digests: np.ndarray  # S16[N]: see `fer_jax.data.digests`
    probabilities: np.ndarray  # f[N, 8]: NaN for an image that no teacher knows

    def find(self, digests: np.ndarray) -> np.ndarray:
        """Return the probabilities of the images with these digests, S16[M] -> f64[M, 8]: NaN for those not found."""
        found = np.full((len(digests), len(EMOTIONS)), np.nan)
        if len(self.digests):
            order = np.argsort(self.digests)
            places = order[np.minimum(np.searchsorted(self.digests, digests, sorter=order), len(order) - 1)]
            known = self.digests[places] == digests
            found[known] = self.probabilities[places[known]]
        return found


def save(path: Path, targets: SoftTargets) -> None:
    """Write a file of predictions."""
    with atomic.replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, digests=targets.digests, said=targets.probabilities)  # "said" is an older name


def load(path: Path) -> SoftTargets:
    """Return the predictions in a file; the oldest files have no digests, S16[0].

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        with np.load(path) as file:
            probabilities = file["said"]
            digests = file["digests"] if "digests" in file else np.zeros(0, "S16")
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is missing or damaged") from error
    if probabilities.shape != (len(probabilities), len(EMOTIONS)) or len(digests) not in (0, len(probabilities)):
        raise ValueError(f"{path} is missing or damaged")
    return SoftTargets(digests, probabilities)
