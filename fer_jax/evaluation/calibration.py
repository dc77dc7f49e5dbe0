"""Calibration of probabilities: reliability, and temperature scaling.

All functions take log probabilities, which are their own logits.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fer_jax.evaluation.metrics import BINS, Predictions, confidence_bins

TEMPERATURES = (1 / 20, 20)


class Reliability(NamedTuple):
    """The images by confidence, in bins of equal width over 0..1. The means of an empty bin are nan."""

    confidence: np.ndarray  # f64[bins], mean
    accuracy: np.ndarray  # f64[bins]
    count: np.ndarray  # type: ignore[assignment]  # i64[bins]; hides tuple.count, which nobody needs


def reliability(predictions: Predictions, bins: int = BINS) -> Reliability:
    """Return accuracy against confidence, for a reliability diagram (Guo et al. 2017, section 2).

    The mean distance of the two, weighted by `count`, is the metric `ece` if `bins` is `metrics.BINS`.
    """
    rows = confidence_bins(predictions, bins)
    count = np.bincount(rows, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    confidence, accuracy = (
        np.bincount(rows, values, minlength=bins) / divisor for values in (predictions.confidence, predictions.correct)
    )
    return Reliability(confidence, accuracy, count)


def fit_temperature(log_probabilities: np.ndarray, label: np.ndarray) -> float:
    """Return the temperature in 1/20..20 of the lowest negative log likelihood (Guo et al. 2017, section 4.2).

    A value above 1 means that the model was overconfident. Fit it on validation images and apply it to others: on the
    images that it was fitted on it flatters the model.

    Args:
        log_probabilities: float[N, 8].
        label: int[N].

    Raises:
        ValueError: no images.
    """
    if not len(label):
        raise ValueError("no images to fit a temperature to")
    rows = np.arange(len(label))

    def nll(log_temperature: float) -> float:
        return -apply_temperature(log_probabilities, np.exp(log_temperature))[rows, label].mean()

    # One minimum only: in 1 / T the likelihood is that of a logistic regression with one weight.
    return float(np.exp(minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded").x))


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the temperature-scaled log probabilities, f64[N, 8].

    They are flatter for a temperature above 1 and sharper below 1. The predicted class does not change.
    """
    return log_softmax(np.asarray(log_probabilities, np.float64) / temperature, axis=1)
