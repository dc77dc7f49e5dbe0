"""The evaluation of networks on a split: its data, their predictions, their metrics."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax import inference
from fer_jax.core.errors import UserError
from fer_jax.data import duplicates, folders
from fer_jax.data.folders import Split
from fer_jax.data.labels import PROTOCOLS
from fer_jax.evaluation import calibration
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.metrics import Predictions
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import Network


@dataclass(frozen=True, eq=False)
class Data:
    """The images that models are evaluated on."""

    name: str  # "train", "valid" or "test"
    split: Split
    valid: Split  # for fitting temperatures
    others: Sequence[Split]  # the other existing splits that training or selection uses

    @cached_property
    def subsets(self) -> dict[str, np.ndarray]:
        """The masks of `subset_masks`, computed at the first use: the search for duplicates takes seconds."""
        return subset_masks(self.split, self.others)


class Model(NamedTuple):
    """A network or an ensemble with its predictions."""

    name: str
    log_probs: np.ndarray  # f64[N, 8], of the split
    valid_log_probs: np.ndarray  # f64[M, 8], of validation


def load_data(data_dir: str, name: str) -> Data:
    """Load a split with validation, and the other splits in which duplicates are searched.

    If the training images are missing, duplicates are unknown, and the only subset is "all".

    Raises:
        UserError: the split or validation is missing.
    """
    split = folders.load(data_dir, name)
    valid = split if name == "valid" else folders.load(data_dir, "valid")
    others = []
    if name != "train" and folders.has(data_dir, "train"):
        train = folders.load(data_dir, "train")
        others = [train] if name == "valid" else [train, valid]
    return Data(name, split, valid, others)


def subset_masks(split: Split, others: Sequence[Split]) -> dict[str, np.ndarray]:
    """Return the images of a split that belong to each of `result.SUBSETS`: bool[N] each.

    Args:
        split: N images.
        others: the splits to find duplicates in; if there are none, the only subset is "all".
    """
    masks = {"all": np.ones(len(split.images), bool)}
    if others:
        masks["without_exact_duplicates"] = np.all([~duplicates.exact(split, other) for other in others], axis=0)
        near = [duplicates.near(split, other) < 0 for other in others]
        masks["without_duplicates"] = np.all(near, axis=0)
    return masks


def model_names(runs: Sequence[Path], flip: bool) -> list[str]:
    """Return the name of each run in tables: its folder's name, or the whole path if two runs share that name."""
    short = [run.resolve().name for run in runs]
    unique = [str(run) if short.count(name) > 1 else name for run, name in zip(runs, short, strict=True)]
    return [f"{name}, flip" if flip else name for name in unique]


def predict_splits(name: str, network: Network, data: Data, flip: bool) -> Model:
    """Return the predictions of a network for the evaluated split and for validation.

    Args:
        name: the model's name in tables.
        network: the network.
        data: the images.
        flip: average in the predictions for the mirrored images.
    """
    log_probs = inference.log_probabilities(network, data.split.images, flip)
    if data.valid is data.split:
        return Model(name, log_probs, log_probs)
    return Model(name, log_probs, inference.log_probabilities(network, data.valid.images, flip))


def ensemble(models: Sequence[Model], flip: bool) -> Model:
    """Return the model whose probabilities are the mean of several models' probabilities."""
    return Model(
        f"ensemble of {len(models)}{', flip' if flip else ''}",
        inference.average([model.log_probs for model in models]),
        inference.average([model.valid_log_probs for model in models]),
    )


def evaluate(model: Model, data: Data, protocol: str) -> Evaluation:
    """Return the metrics of a model, with `protocol` as the main protocol; see `evaluate_predictions`."""
    temperature = fit_temperature(model.valid_log_probs, data.valid, protocol)
    return evaluate_predictions(model.name, model.log_probs, data.name, data.split, data.subsets, protocol, temperature)


def fit_temperature(log_probabilities: np.ndarray, valid: Split, protocol: str) -> float:
    """Return the temperature of the lowest negative log likelihood on validation, under a protocol.

    Raises:
        UserError: the protocol keeps no image of validation.
    """
    predictions = metrics_lib.select(log_probabilities, valid.votes, protocol)[0]
    _check_images(predictions, "valid", protocol)
    return calibration.fit_temperature(predictions.log_probabilities, predictions.label)


def evaluate_predictions(
    name: str,
    log_probabilities: np.ndarray,
    split_name: str,
    split: Split,
    subsets: Mapping[str, np.ndarray],
    main_protocol: str,
    temperature: float,
) -> Evaluation:
    """Return the metrics of a model's predictions, by protocol and subset.

    Args:
        name: the model's name in tables.
        log_probabilities: f64[N, 8], of every image of the split.
        split_name: "train", "valid" or "test".
        split: its N images and votes.
        subsets: see `subset_masks`.
        main_protocol: one of `labels.PROTOCOLS`.
        temperature: see `fit_temperature`.

    Raises:
        UserError: the main protocol keeps no image of the split.
    """
    predictions, kept = {}, {}
    for protocol in PROTOCOLS:
        predictions[protocol], kept[protocol] = metrics_lib.select(log_probabilities, split.votes, protocol)
    main = predictions[main_protocol]
    _check_images(main, split_name, main_protocol)
    scaled = main._replace(log_probabilities=calibration.apply_temperature(main.log_probabilities, temperature))
    parts = {
        (protocol, subset): metrics_lib.take(predictions[protocol], mask[kept[protocol]])
        for protocol in PROTOCOLS
        for subset, mask in subsets.items()
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy and scipy let other threads run while they compute
        calibrated = pool.submit(metrics_lib.with_intervals, scaled, auc=False)
        jobs = {
            key: pool.submit(metrics_lib.with_intervals, part, auc=key[1] == "all")
            for key, part in parts.items()
            if len(part.label)
        }
    computed = {key: job.result() for key, job in jobs.items()}
    undefined = dict.fromkeys(computed[main_protocol, "all"], Interval(np.nan, np.nan, np.nan))
    return Evaluation(
        name,
        split_name,
        main_protocol,
        predictions,
        np.flatnonzero(kept[main_protocol]),
        {
            protocol: {subset: computed.get((protocol, subset), undefined) for subset in subsets}
            for protocol in PROTOCOLS
        },
        {protocol: {subset: len(parts[protocol, subset].label) for subset in subsets} for protocol in PROTOCOLS},
        temperature,
        calibrated.result(),
    )


def _check_images(predictions: Predictions, split_name: str, protocol: str) -> None:
    if not len(predictions.label):
        raise UserError(f"no image of {split_name} is left under protocol {protocol}; choose another --protocol")
