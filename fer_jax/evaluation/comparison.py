"""Comparisons: two models on the same images, one model on different images, and the images to look at."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from fer_jax.evaluation.intervals import Interval, bootstrap_weights, interval
from fer_jax.evaluation.metrics import Predictions, weighted_confusion
from fer_jax.training.confusion import confusion_metrics


class Comparison(NamedTuple):
    """Model a against model b; differences are a - b."""

    accuracy: Interval
    macro_f1: Interval
    only_a: int  # images that a alone classifies correctly
    only_b: int
    mcnemar_p: float  # probability by chance of this split of these images, or of a more uneven one


class Slice(NamedTuple):
    """The images whose property lies in low..high, both included."""

    low: float
    high: float
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    accuracy: Interval


def compare(a: Predictions, b: Predictions, seed: int = 0, replicas: int = 1000) -> Comparison:
    """Compare two models on the same images: paired bootstrap, and McNemar's exact test of the accuracies.

    Args:
        a: the predictions of one model.
        b: those of the other, for the same images in the same order.
        seed: fixes the replicas, which both models share.
        replicas: their number; the intervals are the 95 % percentile intervals over them.

    Raises:
        ValueError: no images, or labels or votes that differ.
    """
    if not len(a.label):
        raise ValueError("no images to compare on")
    if not (np.array_equal(a.label, b.label) and np.array_equal(a.votes, b.votes)):
        raise ValueError("models can only be compared on the same images in the same order")

    def difference(weights: np.ndarray) -> np.ndarray:
        first, second = (confusion_metrics(weighted_confusion(model, weights)) for model in (a, b))
        return np.stack([first[name] - second[name] for name in ("accuracy", "macro_f1")])

    count = len(a.label)
    value = difference(np.ones((count, 1)))[:, 0]
    replicates = np.concatenate([difference(w) for w in bootstrap_weights(count, seed, replicas)], axis=1)
    accuracy, macro_f1 = (interval(float(v), r) for v, r in zip(value, replicates, strict=True))
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Comparison(accuracy, macro_f1, only_a, only_b, float(p))


def slices(predictions: Predictions, values: np.ndarray, parts: int = 4) -> list[Slice]:
    """Return the accuracy by a property of the images, in `parts` parts of about equal size, from low to high.

    Every image is in exactly one slice. Images of equal value are in the same slice, so there can be fewer slices than
    parts. Intervals are Wilson's (1927).

    Args:
        predictions: N images.
        values: float[N], finite.
        parts: >= 1.
    """
    edges = np.quantile(values, np.arange(1, parts) / parts) if len(values) else []
    return _slices(predictions, values, np.searchsorted(edges, values))


def slices_by_value(predictions: Predictions, values: np.ndarray) -> list[Slice]:
    """Return `slices` with one slice for each distinct value, for properties with few such as annotator agreement."""
    return _slices(predictions, values, np.unique(values, return_inverse=True)[1])


def _slices(predictions: Predictions, values: np.ndarray, part: np.ndarray) -> list[Slice]:
    result = []
    for rows in (part == p for p in np.unique(part)):
        count, correct = int(rows.sum()), int(predictions.correct[rows].sum())
        wilson = binomtest(correct, count).proportion_ci(method="wilson")
        accuracy = Interval(correct / count, float(wilson.low), float(wilson.high))
        result.append(Slice(float(values[rows].min()), float(values[rows].max()), count, accuracy))
    return result


def sharpness(images: np.ndarray) -> np.ndarray:
    """The variance of the Laplacian (four neighbours, without the border): u8[N, 48, 48] -> f64[N].

    Pech-Pacheco et al. 2000. An even grey has 0. It grows with the square of the contrast.
    """
    x = images.astype(np.int16)
    neighbours = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return (neighbours - 4 * x[:, 1:-1, 1:-1]).var(axis=(1, 2))


def brightness(images: np.ndarray) -> np.ndarray:
    """The mean grey level: u8[N, 48, 48] -> f64[N], 0 (black)..255 (white)."""
    return images.mean(axis=(1, 2))


def contrast(images: np.ndarray) -> np.ndarray:
    """The standard deviation of the grey levels: u8[N, 48, 48] -> f64[N], 0..127.5."""
    return images.std(axis=(1, 2))


def annotator_agreement(predictions: Predictions) -> np.ndarray:
    """The fraction of an image's ten votes that went to its label: f64[N], 0..1.

    Rounded to tenths: the one image of FER+ with nine votes joins its neighbours.
    """
    votes = predictions.votes[np.arange(len(predictions.label)), predictions.label]
    return np.round(votes / np.maximum(predictions.votes.sum(axis=1), 1), 1)


def most_confident_errors(predictions: Predictions, count: int) -> np.ndarray:
    """The rows, at most `count`, of the wrong predictions with the highest confidence, highest first: i64."""
    rows = np.flatnonzero(~predictions.correct)
    return rows[np.argsort(-predictions.confidence[rows], kind="stable")][:count]


def least_confident_correct(predictions: Predictions, count: int) -> np.ndarray:
    """The rows, at most `count`, of the correct predictions with the lowest confidence, lowest first: i64."""
    rows = np.flatnonzero(predictions.correct)
    return rows[np.argsort(predictions.confidence[rows], kind="stable")][:count]
