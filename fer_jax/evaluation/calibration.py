"""Calibration of probabilities: reliability, and temperature scaling.

All of it works on log probabilities, which are their own logits.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fer_jax.evaluation.metrics import BINS, Predictions, confidence_bins

TEMPERATURES = (1 / 20, 20)


class Reliability(NamedTuple):
    """Pictures by confidence, in bins of equal width over 0..1; the means of an empty bin are nan."""

    confidence: np.ndarray  # f64[bins], mean
    accuracy: np.ndarray  # f64[bins]
    count: np.ndarray  # type: ignore[assignment]  # i64[bins]; hides tuple.count, which nobody needs


def reliability(judged: Predictions, bins: int = BINS) -> Reliability:
    """Accuracy against confidence, for a reliability diagram (Guo et al. 2017, section 2).

    The mean distance of the two, weighted by `count`, is the figure `ece`, if `bins` is `scores.BINS`.
    """
    places = confidence_bins(judged, bins)
    count = np.bincount(places, minlength=bins)
    confidence, hits = (np.bincount(places, of, minlength=bins) for of in (judged.confidence, judged.correct))
    empty = np.where(count > 0, count, np.nan)
    return Reliability(confidence / empty, hits / empty, count)


def fit_temperature(log_probabilities: np.ndarray, label: np.ndarray) -> float:
    """The temperature T in 1/20..20 that makes `apply_temperature` the likeliest (Guo et al. 2017, section 4.2).

    Above 1 the model was too sure of itself. Fit it on validation pictures and apply it to others: on the pictures
    it was fitted on it flatters.

    Args:
        log_probabilities: float[N, 8].
        label: int[N].

    Raises:
        ValueError: no pictures.
    """
    if not len(label):
        raise ValueError("no pictures to fit a temperature to")
    rows = np.arange(len(label))

    def nll(log_temperature: float) -> float:
        return -apply_temperature(log_probabilities, np.exp(log_temperature))[rows, label].mean()

    # One minimum only: in 1 / T the likelihood is that of a logistic regression with one weight.
    return float(np.exp(minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded").x))


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Log probabilities, f64[N, 8], flatter for a temperature above 1, sharper below; never another prediction."""
    return log_softmax(np.asarray(log_probabilities, np.float64) / temperature, axis=1)
