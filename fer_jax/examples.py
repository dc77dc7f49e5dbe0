"""The training pictures of a config with their targets: label mode, repeats, softening, and what teachers say."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import data, labels, loader, repeats
from fer_jax.cli import UserError
from fer_jax.loader import Examples


def training(config: ConfigDict) -> Examples:
    """What a run trains on.

    Raises:
        UserError: the data or a teacher cannot be read.
    """
    options = config.data
    split = data.load(options.dir, "train")
    if options.drop_repeats:
        others = [data.load(options.dir, name).images for name in ("valid", "test") if data.has(options.dir, name)]
        keep = repeats.drop(split.images, *others)
        split = data.Split(*(field[keep] for field in split))
    examples = loader.select(split, options.label_mode)
    target = labels.soften(examples.target, options.temperature, options.smoothing)
    if options.teachers:
        said = taught(options.teachers, examples.images)
        target = ((1 - options.teacher_share) * target + options.teacher_share * said).astype(np.float32)
    return examples._replace(target=target)


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
        UserError: a folder holds no network that can be read, or there are several processes.
    """
    from fer_jax import calibration, inference  # few runs need them, and they would make every start slower

    if jax.process_count() > 1:
        raise UserError("data.teachers: train in one process, the teachers' predictions are not made by several")
    networks = [inference.restore(Path(run), "best") for run in teachers]
    said = [inference.log_probabilities(network, view) for network in networks for view in (images, images[:, :, ::-1])]
    return np.exp(calibration.average(said))
