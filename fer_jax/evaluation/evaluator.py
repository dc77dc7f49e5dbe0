"""The evaluation of networks on a split: its data, their predictions, their metrics."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax import inference
from fer_jax.core.errors import UserError
from fer_jax.data import duplicates, folders
from fer_jax.data.folders import Split
from fer_jax.data.labels import EMOTIONS, PROTOCOLS
from fer_jax.evaluation import calibration
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.metrics import Predictions
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import Network


class Data(NamedTuple):
    """The images that models are evaluated on."""

    name: str  # "train", "valid" or "test"
    split: Split
    valid: Split  # for fitting temperatures
    subsets: dict[str, np.ndarray]  # see `subsets`


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
    split = folders.load(data_dir, name)
    valid = split if name == "valid" else folders.load(data_dir, "valid")
    others = []  # where the training images are missing, duplicates are unknown, and the report says so
    if name != "train" and folders.has(data_dir, "train"):
        train = folders.load(data_dir, "train")
        others = [train] if name == "valid" else [train, valid]
    return Data(name, split, valid, subsets(split, others))


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
    """The metrics of a model, with `protocol` as the main protocol; see `evaluate_predictions`."""
    temperature = fit_temperature(model.valid_log_probs, images.valid, protocol)
    return evaluate_predictions(
        model.name, model.log_probs, images.name, images.split, images.subsets, protocol, temperature
    )


def subsets(split: Split, used: list[Split]) -> dict[str, np.ndarray]:
    """Which pictures of a split belong to each of `SUBSETS`, as bool[N].

    Only "all" if `used`, the other splits that training or selection saw, is empty: nothing is known then.
    """
    found = {"all": np.ones(len(split.images), bool)}
    if used:
        seen = np.concatenate([other.images for other in used])
        found["without_exact_duplicates"] = ~duplicates.exact(split.images, seen)
        found["without_duplicates"] = duplicates.near(split.images, seen) < 0
    return found


def evaluate_predictions(
    name: str,
    log_probabilities: np.ndarray,
    split_name: str,
    split: Split,
    keep: Mapping[str, np.ndarray],
    main_protocol: str,
    temperature: float,
) -> Evaluation:
    """The figures of a model.

    Args:
        name: what tables call it.
        log_probabilities: f64[N, 8], of every picture of the split.
        split_name: "train", "valid" or "test".
        split: its pictures and votes.
        keep: of `subsets`.
        main_protocol: one of `labels.PROTOCOLS`.
        temperature: see `fit_temperature`.

    Raises:
        UserError: the main_protocol protocol keeps no picture of the split.
    """
    judged, kept = {}, {}
    for protocol in PROTOCOLS:
        judged[protocol], kept[protocol] = metrics_lib.select(log_probabilities, split.votes, protocol)
    main = _some(judged[main_protocol], split_name, main_protocol)
    cooled = main._replace(log_probabilities=calibration.apply_temperature(main.log_probabilities, temperature))
    parts = {
        protocol: {
            subset: metrics_lib.take(judged[protocol], chosen[kept[protocol]]) for subset, chosen in keep.items()
        }
        for protocol in PROTOCOLS
    }
    jobs = [(part, subset == "all") for of in parts.values() for subset, part in of.items()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy and scipy let other threads run while they compute
        found = pool.map(_intervals, [cooled, *(part for part, _ in jobs)], [False, *(auc for _, auc in jobs)])
        calibrated = next(found)
        names = [*calibrated, "roc_auc", *(f"roc_auc/{emotion}" for emotion in EMOTIONS)]
        undefined = dict.fromkeys(names, Interval(np.nan, np.nan, np.nan))
        figures = {protocol: {subset: next(found) or undefined for subset in of} for protocol, of in parts.items()}
    counts = {protocol: {subset: len(part.label) for subset, part in of.items()} for protocol, of in parts.items()}
    return Evaluation(
        name,
        split_name,
        main_protocol,
        judged,
        np.flatnonzero(kept[main_protocol]),
        figures,
        counts,
        temperature,
        calibrated,
    )


def _intervals(judged: Predictions, auc: bool) -> dict[str, Interval]:
    return metrics_lib.with_intervals(judged, auc=auc) if len(judged.label) else {}


def fit_temperature(log_probabilities: np.ndarray, valid: Split, protocol: str) -> float:
    """The temperature that gives the lowest negative log likelihood on validation, under a protocol.

    Raises:
        UserError: the protocol keeps no picture of validation.
    """
    judged = _some(metrics_lib.select(log_probabilities, valid.votes, protocol)[0], "valid", protocol)
    return calibration.fit_temperature(judged.log_probabilities, judged.label)


def _some(judged: Predictions, split_name: str, protocol: str) -> Predictions:
    if not len(judged.label):
        raise UserError(f"no picture of {split_name} is left under protocol {protocol}; choose another --protocol")
    return judged
