"""What is found out about a model on a split, from its predictions alone: no network, no files."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from fer_jax import calibration, duplicates, scores
from fer_jax.data import Split
from fer_jax.errors import UserError
from fer_jax.labels import EMOTIONS, PROTOCOLS
from fer_jax.scores import Interval, Judged

# Pictures by what training and selection saw of them in other splits (see fer_jax.duplicates), and what tables call them.
SUBSETS = {
    "all": "all pictures",
    "unseen": "without exact repeats",
    "unseen_near": "without exact and near repeats",
}


class Evaluation(NamedTuple):
    """A model's predictions on a split and the figures made of them."""

    name: str
    split: str
    headline: str  # the protocol of pictures and slices
    judged: dict[str, Judged]  # by protocol
    rows: np.ndarray  # i64[N], where the headline's pictures stand in the split
    # by protocol, subset and name; roc_auc of "all" alone; nan where there is no picture
    figures: dict[str, dict[str, dict[str, Interval]]]
    counts: dict[str, dict[str, int]]  # pictures, by protocol and subset
    temperature: float  # fitted on validation under the headline protocol
    calibrated: dict[str, Interval]  # the headline's figures at that temperature


def subsets(split: Split, used: list[Split]) -> dict[str, np.ndarray]:
    """Which pictures of a split belong to each of `SUBSETS`, as bool[N].

    Only "all" if `used`, the other splits that training or selection saw, is empty: nothing is known then.
    """
    found = {"all": np.ones(len(split.images), bool)}
    if used:
        seen = np.concatenate([other.images for other in used])
        found["unseen"] = ~duplicates.exact(split.images, seen)
        found["unseen_near"] = duplicates.near(split.images, seen) < 0
    return found


def evaluate(
    name: str,
    log_probabilities: np.ndarray,
    split_name: str,
    split: Split,
    keep: Mapping[str, np.ndarray],
    headline: str,
    temperature: float,
) -> Evaluation:
    """The figures of a model.

    Args:
        name: what tables call it.
        log_probabilities: f64[N, 8], of every picture of the split.
        split_name: "train", "valid" or "test".
        split: its pictures and votes.
        keep: of `subsets`.
        headline: one of `labels.PROTOCOLS`.
        temperature: see `fit_temperature`.

    Raises:
        UserError: the headline protocol keeps no picture of the split.
    """
    judged, kept = {}, {}
    for protocol in PROTOCOLS:
        judged[protocol], kept[protocol] = scores.judge(log_probabilities, split.votes, protocol)
    main = _some(judged[headline], split_name, headline)
    cooled = main._replace(log_probabilities=calibration.apply_temperature(main.log_probabilities, temperature))
    parts = {
        protocol: {subset: scores.take(judged[protocol], chosen[kept[protocol]]) for subset, chosen in keep.items()}
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
        headline,
        judged,
        np.flatnonzero(kept[headline]),
        figures,
        counts,
        temperature,
        calibrated,
    )


def _intervals(judged: Judged, auc: bool) -> dict[str, Interval]:
    return scores.with_intervals(judged, auc=auc) if len(judged.label) else {}


def fit_temperature(log_probabilities: np.ndarray, valid: Split, protocol: str) -> float:
    """The temperature that gives the lowest negative log likelihood on validation, under a protocol.

    Raises:
        UserError: the protocol keeps no picture of validation.
    """
    judged = _some(scores.judge(log_probabilities, valid.votes, protocol)[0], "valid", protocol)
    return calibration.fit_temperature(judged.log_probabilities, judged.label)


def _some(judged: Judged, split_name: str, protocol: str) -> Judged:
    if not len(judged.label):
        raise UserError(f"no picture of {split_name} is left under protocol {protocol}; choose another --protocol")
    return judged
