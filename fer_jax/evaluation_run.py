"""The evaluation of networks on a split: its data, their predictions, their metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax import data, evaluation, inference
from fer_jax.data import Split
from fer_jax.evaluation import Evaluation
from fer_jax.inference import Network


class Data(NamedTuple):
    """The images that models are evaluated on."""

    name: str  # "train", "valid" or "test"
    split: Split
    valid: Split  # for fitting temperatures
    subsets: dict[str, np.ndarray]  # see `evaluation.subsets`


class Model(NamedTuple):
    """The predictions of a network, or of several as one."""

    name: str
    log_probs: np.ndarray  # f64[N, 8], of the split
    valid_log_probs: np.ndarray  # f64[M, 8], of validation


def load(data_dir: str, name: str) -> Data:
    """The split `name` with validation, and the images that training or selection saw in another split.

    Raises:
        UserError: the split or validation is missing.
    """
    split = data.load(data_dir, name)
    valid = split if name == "valid" else data.load(data_dir, "valid")
    others = []  # where the training images are missing, duplicates are unknown, and the report says so
    if name != "train" and data.has(data_dir, "train"):
        train = data.load(data_dir, "train")
        others = [train] if name == "valid" else [train, valid]
    return Data(name, split, valid, evaluation.subsets(split, others))


def names(runs: Sequence[Path], flip: bool) -> list[str]:
    """The name of each run in tables: its folder's name, or the whole path where two share that name."""
    short = [run.resolve().name for run in runs]
    unique = [str(run) if short.count(name) > 1 else name for run, name in zip(runs, short, strict=True)]
    return [f"{name}, flip" if flip else name for name in unique]


def predict(name: str, network: Network, images: Data, flip: bool) -> Model:
    """The predictions of a network for the split and for validation."""
    log_probs = inference.log_probabilities(network, images.split.images, flip)
    if images.valid is images.split:
        return Model(name, log_probs, log_probs)
    return Model(name, log_probs, inference.log_probabilities(network, images.valid.images, flip))


def ensemble(models: Sequence[Model], flip: bool) -> Model:
    """The mean probabilities of several models."""
    name = f"ensemble of {len(models)}{', flip' if flip else ''}"
    return Model(
        name,
        inference.average([model.log_probs for model in models]),
        inference.average([model.valid_log_probs for model in models]),
    )


def evaluate(model: Model, images: Data, protocol: str) -> Evaluation:
    """The metrics of a model, with `protocol` as the main protocol; see `evaluation.evaluate`."""
    temperature = evaluation.fit_temperature(model.valid_log_probs, images.valid, protocol)
    return evaluation.evaluate(
        model.name, model.log_probs, images.name, images.split, images.subsets, protocol, temperature
    )
