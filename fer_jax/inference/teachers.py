"""Teacher predictions as part of a run's training targets.

Born-again networks (Furlanello et al. 2018, https://arxiv.org/abs/1805.04770) are trained so, by one network or several
of their own kind.
"""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import inference
from fer_jax.core import atomic, run_folder
from fer_jax.core.cli import command
from fer_jax.core.errors import UserError
from fer_jax.data.batching import Examples
from fer_jax.data.labels import EMOTIONS
from fer_jax.training.history import ending

STORED = "taught.npz"  # in the run folder: the teacher predictions that the run started with


def with_soft_targets(
    examples: Examples, options: ConfigDict, run: Path, resumed: bool, say: Callable[[str], None]
) -> Examples:
    """The examples with the teacher predictions mixed into their targets; unchanged where there are no teachers.

    Args:
        examples: of `training_set.training`.
        options: the config's `data`.
        run: the run folder, which stores the predictions: a resumed run keeps the targets that it started with,
            whatever has become of its teachers.
        resumed: the run goes on from a checkpoint; a new run asks its teachers again.
        say: gets a line about what takes time.

    Raises:
        UserError: a teacher, or the stored predictions of a resumed run, cannot be read, or there are several
            processes.
    """
    if not options.teachers:
        return examples
    if jax.process_count() > 1:
        raise UserError("data.teachers: train in one process; several processes do not compute teacher predictions")
    if resumed:
        predictions = _stored(run / STORED, len(examples.images))
    else:
        count = len(examples.images)
        say(f"predicting {count:,} images with {len(options.teachers)} teacher(s), once for this run")
        predictions = mean_predictions(options.teachers, examples.images)
        with atomic.replacing(run / STORED) as partial, open(partial, "wb") as file:
            np.savez(file, said=predictions)  # the name of older versions
    target = (1 - options.teacher_share) * examples.target + options.teacher_share * predictions
    return examples._replace(target=target.astype(np.float32))


def _stored(path: Path, count: int) -> np.ndarray:
    try:
        with np.load(path) as file:
            predictions = file["said"]
        if predictions.shape != (count, len(EMOTIONS)):
            raise ValueError
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        reason = f"{path}, the teacher predictions that this run started with, is missing or damaged"
        raise UserError(f"{reason}; restore the file, or choose another --workdir") from None
    return predictions


def mean_predictions(teachers: Sequence[str], images: np.ndarray) -> np.ndarray:
    """The mean probabilities that teachers predict for images and their mirror images.

    Args:
        teachers: run folders or shipped networks; their best checkpoints are used.
        images: u8[N, 48, 48].

    Returns:
        f64[N, 8].

    Raises:
        UserError: a folder holds no network that can be read, or a run that is not fully trained.
    """
    networks = [inference.restore(run_folder.find(run), "best") for run in teachers]
    for network in networks:
        train, epochs = network.config.train, len(network.history)
        # A released network may be used at any epoch: somebody chose it.
        if not run_folder.is_released(network.run) and not ending(network.history, train.epochs, train.patience):
            raise UserError(
                f"data.teachers: {network.run} has trained {epochs} of its {train.epochs} epochs; let it finish, or "
                f"release it as it is ({command('release')})"
            )
    log_probs = [inference.log_probabilities(network, images, flip=True) for network in networks]
    return np.exp(inference.average(log_probs))
