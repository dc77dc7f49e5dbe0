"""The training pictures of a config with their targets: label mode, repeats, softening, and what teachers say."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import atomic, data, labels, loader, repeats
from fer_jax.cli import UserError
from fer_jax.config import WEIGHTS
from fer_jax.history import ending
from fer_jax.loader import Examples


def training(config: ConfigDict) -> Examples:
    """What a run trains on, but for what teachers say; see `teach`.

    Raises:
        UserError: the data cannot be read, or there are teachers and several processes.
    """
    options = config.data
    if options.teachers and jax.process_count() > 1:
        raise UserError("data.teachers: train in one process, the teachers' predictions are not made by several")
    split = data.load(options.dir, "train")
    if options.drop_repeats:
        others = [data.load(options.dir, name).images for name in ("valid", "test") if data.has(options.dir, name)]
        keep = repeats.drop(split.images, *others)
        split = data.Split(*(field[keep] for field in split))
    examples = loader.select(split, options.label_mode)
    target = labels.soften(examples.target, options.temperature, options.smoothing)
    return examples._replace(target=target)


def digest(*of: Examples) -> str:
    """What tells pictures and targets from others."""
    found = hashlib.sha256()
    for each in of:
        found.update(np.ascontiguousarray(each.images).data)
        found.update(np.ascontiguousarray(each.target).data)
    return found.hexdigest()


def teach(examples: Examples, options: ConfigDict, kept: Path, begun: bool, say: Callable[[str], None]) -> Examples:
    """The examples with the teachers' share in their targets; as they are where there are no teachers.

    Args:
        examples: of `training`.
        options: the config's `data`.
        kept: the file in which the run keeps what they say: it goes on with the targets that it began with, whatever
            has become of its teachers.
        begun: whether the run goes on; one that begins asks anew.
        say: is told what takes time.

    Raises:
        UserError: a teacher cannot be read, or what they said when the run began.
    """
    if not options.teachers:
        return examples
    if begun:
        said = _kept(kept, len(examples.images))
    else:
        say(f"asking {len(options.teachers)} teacher(s) about {len(examples.images):,} pictures, once for this run")
        said = taught(options.teachers, examples.images)
        with atomic.replacing(kept) as partial, open(partial, "wb") as file:
            np.savez(file, said=said)
    target = (1 - options.teacher_share) * examples.target + options.teacher_share * said
    return examples._replace(target=target.astype(np.float32))


def _kept(kept: Path, count: int) -> np.ndarray:
    try:
        with np.load(kept) as stored:
            said = stored["said"]
        if said.shape != (count, len(labels.EMOTIONS)):
            raise ValueError
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        reason = f"{kept} is missing or damaged, which holds what the teachers said when the run began"
        raise UserError(f"{reason}; bring it back, or choose another --workdir") from None
    return said


def taught(teachers: list[str] | tuple[str, ...], images: np.ndarray) -> np.ndarray:
    """The mean of what the networks of run folders say of pictures and of their mirror images.

    Born-again networks (Furlanello et al. 2018, https://arxiv.org/abs/1805.04770) are taught so, by one network or
    several of their own kind.

    Args:
        teachers: run folders, or released ones; their best checkpoints are used.
        images: u8[N, 48, 48].

    Returns:
        f64[N, 8], probabilities.

    Raises:
        UserError: a folder holds no network that can be read, or a run that is still to be trained.
    """
    from fer_jax import calibration, inference  # few runs need them, and they would make every start slower

    networks = [inference.restore(Path(run), "best") for run in teachers]
    for network in networks:
        of, epochs = network.config.train, len(network.history)
        released = (network.run / WEIGHTS).exists()  # as it is, which somebody wanted
        if not released and not ending(network.history, of.epochs, of.patience):
            raise UserError(
                f"data.teachers: {network.run} has trained {epochs} of its {of.epochs} epochs; let it end first, or "
                "release it as it is (python -m fer_jax.release)"
            )
    return np.exp(
        calibration.average([inference.log_probabilities(network, images, flip=True) for network in networks])
    )
