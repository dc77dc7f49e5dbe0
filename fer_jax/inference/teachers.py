"""Teacher predictions as part of a run's training targets.

Born-again networks (Furlanello et al. 2018, https://arxiv.org/abs/1805.04770) have teachers of their own architecture.
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
from fer_jax.data.selection import Images
from fer_jax.training.early_stopping import ending

STORED = "taught.npz"  # in the run folder: the teacher predictions of its first start


def with_soft_targets(
    examples: Examples, options: ConfigDict, run: Path, resumed: bool, say: Callable[[str], None]
) -> Examples:
    """Return the examples with teacher predictions mixed into their targets; unchanged without teachers.

    Args:
        examples: of `training_set.training`.
        options: the config's `data`.
        run: the run folder, which stores the predictions. A resumed run keeps its targets even if a teacher has changed
            or is gone.
        resumed: the run goes on from a checkpoint; otherwise teachers predict again.
        say: gets a line before slow work.

    Raises:
        UserError: a teacher, or the stored predictions of a resumed run, cannot be read, or there are several
            processes.
    """
    if not options.teachers:
        return examples
    if jax.process_count() > 1:
        raise UserError("data.teachers needs a run of one process: train in one, or leave the teachers out")
    if resumed:
        predictions = _stored(run / STORED, len(examples.images))
    else:
        count = len(examples.images)
        say(f"predicting {count:,} images with {len(options.teachers)} teacher(s), once for this run")
        predictions = mean_predictions(options.teachers, examples.images)
        with atomic.replacing(run / STORED) as partial, open(partial, "wb") as file:
            np.savez(file, said=predictions)  # the name in the file format
    target = (1 - options.teacher_share) * examples.target + options.teacher_share * predictions
    return examples._replace(target=target.astype(np.float32))


def _stored(path: Path, count: int) -> np.ndarray:
    try:
        with np.load(path) as file:
            predictions = file["said"]
        if predictions.shape != (count, len(EMOTIONS)):
            raise ValueError
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        reason = f"{path} is missing or damaged; it holds the teacher predictions of this run"
        raise UserError(f"{reason}: restore it from a copy, or choose another --workdir") from None
    return predictions


def mean_predictions(teachers: Sequence[str], images: Images) -> np.ndarray:
    """Return the mean probabilities of several networks, each averaged over images and mirror images: f64[N, 8].

    Args:
        teachers: run folders or names of shipped networks; the best checkpoints are used.
        images: u8[N, 48, 48].

    Raises:
        UserError: a network cannot be read, or its run is not fully trained.
    """
    networks = [inference.restore(run_folder.find(run), "best") for run in teachers]
    for network in networks:
        train, epochs = network.config.train, len(network.history)
        # A released network counts as trained: somebody chose its epoch.
        if not run_folder.is_released(network.run) and not ending(network.history, train.epochs, train.patience):
            raise UserError(
                f"data.teachers: {network.run} has trained {epochs} of its {train.epochs} epochs; let it finish, or "
                f"release it as it is ({command('release')})"
            )
    log_probs = [inference.log_probabilities(network, images, flip=True) for network in networks]
    return np.exp(inference.average(log_probs))
