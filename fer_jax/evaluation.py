"""What is found out about a model on a split, from its predictions alone: no network, no files."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fer_jax import calibration, repeats, scores
from fer_jax.cli import UserError
from fer_jax.data import Split
from fer_jax.labels import PROTOCOLS
from fer_jax.scores import Interval, Judged

# Pictures by what training and selection saw of them in other splits (see fer_jax.repeats), and what tables call them.
SUBSETS = {
    "all": "all pictures",
    "unseen": "without exact repeats",
    "unseen_near": "without exact and near repeats",
}

UNDEFINED = Interval(np.nan, np.nan, np.nan)


class Evaluation(NamedTuple):
    """A model's predictions on a split and the figures made of them."""

    name: str
    split: str
    headline: str  # the protocol of pictures and slices
    judged: dict[str, Judged]  # by protocol
    rows: np.ndarray  # i64[N], where the headline's pictures stand in the split
    figures: dict[str, dict[str, dict[str, Interval]]]  # by protocol, subset and name; nan where there is no picture
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
        found["unseen"] = ~repeats.exact(split.images, seen)
        found["unseen_near"] = repeats.near(split.images, seen) < 0
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
    calibrated = scores.with_intervals(cooled)
    undefined = dict.fromkeys(calibrated, UNDEFINED)
    figures: dict[str, dict[str, dict[str, Interval]]] = {}
    counts: dict[str, dict[str, int]] = {}
    for protocol in PROTOCOLS:
        rows = {subset: np.flatnonzero(chosen[kept[protocol]]) for subset, chosen in keep.items()}
        counts[protocol] = {subset: len(chosen) for subset, chosen in rows.items()}
        figures[protocol] = {
            subset: scores.with_intervals(scores.take(judged[protocol], chosen)) if len(chosen) else undefined
            for subset, chosen in rows.items()
        }
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
