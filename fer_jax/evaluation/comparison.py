"""Comparisons: two models on the same pictures, one model on different pictures, and the pictures worth a look."""

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
    only_a: int  # pictures that a alone has right
    only_b: int
    mcnemar_p: float  # how likely is so uneven a split of these pictures, or a more uneven one, by chance


class Slice(NamedTuple):
    """Pictures whose property lies in low..high, both included."""

    low: float
    high: float
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    accuracy: Interval


def compare(a: Predictions, b: Predictions, seed: int = 0, replicas: int = 1000) -> Comparison:
    """Two models on the same pictures: paired bootstrap, and McNemar's exact test of the accuracies.

    Args:
        a: one model's pictures.
        b: the other's, the same in the same order.
        seed: fixes the replicas; both models have the same ones.
        replicas: of the pictures, from which the 95 % percentile intervals are.

    Raises:
        ValueError: no pictures, or labels or votes that differ.
    """
    if not len(a.label):
        raise ValueError("no pictures to compare on")
    if not (np.array_equal(a.label, b.label) and np.array_equal(a.votes, b.votes)):
        raise ValueError("models can only be compared on the same pictures in the same order")

    def difference(weights: np.ndarray) -> np.ndarray:
        of_a, of_b = (confusion_metrics(weighted_confusion(model, weights)) for model in (a, b))
        return np.stack([of_a[name] - of_b[name] for name in ("accuracy", "macro_f1")])

    count = len(a.label)
    value = difference(np.ones((count, 1)))[:, 0]
    replicates = np.concatenate([difference(w) for w in bootstrap_weights(count, seed, replicas)], axis=1)
    accuracy, macro_f1 = (interval(float(v), r) for v, r in zip(value, replicates, strict=True))
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Comparison(accuracy, macro_f1, only_a, only_b, float(p))


def slices(judged: Predictions, values: np.ndarray, parts: int = 4) -> list[Slice]:
    """Accuracy by a property of the pictures, in `parts` about equal parts, from low to high.

    Every picture is in exactly one slice, and pictures of equal value are in the same one, so that there can be
    fewer slices than parts. Intervals are Wilson's (1927).

    Args:
        judged: N pictures.
        values: float[N], finite.
        parts: >= 1.
    """
    edges = np.quantile(values, np.arange(1, parts) / parts) if len(values) else []
    return _slices(judged, values, np.searchsorted(edges, values))


def slices_by_value(judged: Predictions, values: np.ndarray) -> list[Slice]:
    """`slices` with one for each distinct value; for properties with few, such as `annotator_agreement`."""
    return _slices(judged, values, np.unique(values, return_inverse=True)[1])


def _slices(judged: Predictions, values: np.ndarray, part: np.ndarray) -> list[Slice]:
    result = []
    for rows in (part == p for p in np.unique(part)):
        count, hits = int(rows.sum()), int(judged.correct[rows].sum())
        wilson = binomtest(hits, count).proportion_ci(method="wilson")
        accuracy = Interval(hits / count, float(wilson.low), float(wilson.high))
        result.append(Slice(float(values[rows].min()), float(values[rows].max()), count, accuracy))
    return result


def sharpness(images: np.ndarray) -> np.ndarray:
    """Variance of the Laplacian (four neighbours, without the border): u8[N, 48, 48] -> f64[N]; 0 is even grey.

    Pech-Pacheco et al. 2000. It grows with contrast too, as its square.
    """
    x = images.astype(np.int16)
    neighbours = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return (neighbours - 4 * x[:, 1:-1, 1:-1]).var(axis=(1, 2))


def brightness(images: np.ndarray) -> np.ndarray:
    """Mean grey: u8[N, 48, 48] -> f64[N], 0 (black)..255 (white)."""
    return images.mean(axis=(1, 2))


def contrast(images: np.ndarray) -> np.ndarray:
    """Standard deviation of grey: u8[N, 48, 48] -> f64[N], 0..127.5."""
    return images.std(axis=(1, 2))


def annotator_agreement(judged: Predictions) -> np.ndarray:
    """Share of a picture's ten votes that went to its label: f64[N], 0..1.

    Rounded to tenths: the one picture of FER+ with nine votes joins its neighbours.
    """
    votes = judged.votes[np.arange(len(judged.label)), judged.label]
    return np.round(votes / np.maximum(judged.votes.sum(axis=1), 1), 1)


def most_confident_errors(judged: Predictions, count: int) -> np.ndarray:
    """The rows, at most `count`, of the wrong predictions with the highest confidence, highest first: i64."""
    rows = np.flatnonzero(~judged.correct)
    return rows[np.argsort(-judged.confidence[rows], kind="stable")][:count]


def least_confident_correct(judged: Predictions, count: int) -> np.ndarray:
    """The rows, at most `count`, of the right predictions with the lowest confidence, lowest first: i64."""
    rows = np.flatnonzero(judged.correct)
    return rows[np.argsort(judged.confidence[rows], kind="stable")][:count]
