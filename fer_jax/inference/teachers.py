"""Teacher predictions as part of a run's training targets.

Born-again networks (Furlanello et al. 2018, https://arxiv.org/abs/1805.04770) have teachers of their own architecture.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import inference
from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.core.run_folder import PREDICTIONS
from fer_jax.data import digests, soft_targets
from fer_jax.data.batching import Examples
from fer_jax.data.labels import EMOTIONS
from fer_jax.data.selection import Images
from fer_jax.data.soft_targets import SoftTargets


def with_soft_targets(
    examples: Examples, options: ConfigDict, run: Path, resumed: bool, say: Callable[[str], None]
) -> Examples:
    """Return the examples with teacher predictions mixed into their targets; unchanged without teachers.

    An image that no teacher knows, as a file of predictions may not, keeps its target.

    Args:
        examples: of `training_set.training`.
        options: the config's `data`.
        run: the run folder, which stores the predictions. A resumed run keeps its targets even if a teacher has changed
            or is gone.
        resumed: the run goes on from a checkpoint; otherwise teachers predict again.
        say: gets a line before slow work, and one about images that no teacher knows.

    Raises:
        UserError: a teacher, or the stored predictions of a resumed run, cannot be read, or networks are to predict in
            a run of several processes.
    """
    if not options.teachers:
        return examples
    if resumed:
        predictions = _stored(run / PREDICTIONS, len(examples.images))
    else:
        # As the file holds them, so that a resumed run has the same targets.
        predictions = mean_predictions(options.teachers, examples.images, say).astype(np.float16)
        if jax.process_index() == 0:
            stored = SoftTargets(digests.of_images(examples.images), predictions)
            soft_targets.save(run / PREDICTIONS, stored)
    known = ~np.isnan(predictions).any(axis=1)
    if count := len(known) - known.sum():
        say(f"no teacher knows {count:,} of the {len(known):,} training images; they keep their votes")
    soft, target, share = predictions[known].astype(np.float64), examples.target.copy(), options.teacher_share
    target[known] = (1 - share) * target[known] + share * soft / soft.sum(axis=1, keepdims=True)
    return examples._replace(target=target)


def _stored(path: Path, count: int) -> np.ndarray:
    try:
        predictions = soft_targets.load(path).probabilities
        if len(predictions) != count:
            raise ValueError(f"{path} is missing or damaged")
    except ValueError as error:
        reason = f"{error}; it holds the teacher predictions of this run"
        raise UserError(f"{reason}: restore it from a copy, or choose another --workdir") from None
    return predictions


def mean_predictions(teachers: Sequence[str], images: Images, say: Callable[[str], None]) -> np.ndarray:
    """Return the mean probabilities of those teachers that know an image: f64[N, 8], NaN where none does.

    Args:
        teachers: run folders or names of shipped networks, whose best checkpoints predict; or files of predictions.
        images: u8[N, 48, 48].
        say: gets a line before slow work.

    Raises:
        UserError: a network or a file cannot be read, or networks are to predict in a run of several processes.
    """
    files = [name for name in teachers if run_folder.is_predictions(name)]
    names = [name for name in teachers if name not in files]
    predictions = [_of_file(run_folder.find_predictions(name), images) for name in files]
    if names:
        if jax.process_count() > 1:
            raise UserError(
                f"data.teachers: {names[0]} is a network, and networks predict in runs of one process alone; start "
                f"with one process, stop, and name the {PREDICTIONS} of its run folder"
            )
        networks = [inference.restore(name) for name in names]
        say(f"predicting {len(images):,} images with {len(names)} teacher(s), once for this run")
        log_probs = [inference.log_probabilities(network, images, flip=True) for network in networks]
        predictions += [np.exp(rows) for rows in log_probs]
    known = sum(~np.isnan(rows) for rows in predictions)
    total = sum(np.nan_to_num(rows) for rows in predictions)
    return np.divide(total, known, out=np.full((len(images), len(EMOTIONS)), np.nan), where=known > 0)


def _of_file(path: Path, images: Images) -> np.ndarray:
    """The predictions in a file for the images: f64[N, 8]."""
    try:
        stored = soft_targets.load(path)
    except ValueError as error:
        raise UserError(f"data.teachers: {error}: name another file or the networks") from None
    if not len(stored.digests):
        raise UserError(f"data.teachers: {path} is of an older version and does not say whose predictions it has")
    return stored.find(digests.of_images(images))
