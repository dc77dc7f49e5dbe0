"""The metrics of predictions, each with its bootstrap interval.

To add a metric, define it here once: `weighted_metrics` computes it for many bootstrap replicas, and `compute` for one
in which every image counts once.

- A mean over the images is an entry of `_per_image`.
- Any other metric is an entry of `weighted_metrics`.
- A metric of the confusion matrix alone belongs in `fer_jax.training.confusion`, so that training has it too.

Name it in the docstring of `compute`, test it by hand in tests/test_evaluation_metrics.py, and give it a row in
`fer_jax.reporting.tables.MAIN`. Intervals, JSON, reports and comparisons follow.

This module imports neither jax nor file formats.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import logsumexp, xlogy

from fer_jax.data import labels
from fer_jax.data.labels import EMOTIONS
from fer_jax.evaluation.intervals import Interval, bootstrap_weights, interval
from fer_jax.training.confusion import confusion_metrics, ratio

CLASSES = len(EMOTIONS)
BINS = 15  # of the expected calibration error, as in Guo et al. 2017


class Predictions(NamedTuple):
    """The images of a split that a protocol keeps, with a model's predictions."""

    log_probabilities: np.ndarray  # f64[N, 8], natural logarithm
    label: np.ndarray  # i64[N]
    votes: np.ndarray  # i64[N, 10], in the order of labels.VOTES

    @property
    def prediction(self) -> np.ndarray:
        """The most likely class, the first one of a tie: i64[N]."""
        return self.log_probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of `prediction`: f64[N], 1/8..1."""
        return np.exp(self.log_probabilities.max(axis=1))

    @property
    def correct(self) -> np.ndarray:
        """True where the prediction equals the label: bool[N]."""
        return self.prediction == self.label


def select(log_probabilities: np.ndarray, votes: np.ndarray, protocol: str) -> tuple[Predictions, np.ndarray]:
    """Return the predictions for the images that a protocol keeps, and the mask of these images.

    Args:
        log_probabilities: float[M, 8], natural logarithm, of all images of a split.
        votes: int[M, 10], in the order of `labels.VOTES`.
        protocol: one of `labels.PROTOCOLS`.

    Returns:
        The predictions for N images, and keep bool[M].

    Raises:
        ValueError: the protocol is unknown, the shapes do not fit, or a row is not finite or its probabilities do not
            sum to one.
    """
    log_probabilities = np.asarray(log_probabilities, np.float64)
    votes = np.asarray(votes)
    if log_probabilities.shape != (len(votes), CLASSES):
        raise ValueError(f"log probabilities must be [{len(votes)}, {CLASSES}], not {log_probabilities.shape}")
    if not np.isfinite(log_probabilities).all():
        raise ValueError("log probabilities must be finite")
    if not np.allclose(logsumexp(log_probabilities, axis=1), 0, atol=1e-3):
        raise ValueError("probabilities must sum to one: give log_softmax of the logits")
    target, keep = labels.targets(votes, protocol)
    return Predictions(log_probabilities[keep], target[keep].argmax(axis=1), votes[keep].astype(np.int64)), keep


def take(predictions: Predictions, rows: np.ndarray) -> Predictions:
    """Return the images of `rows`: int[K], in that order and with repetitions, or bool[N]."""
    return Predictions(*(field[rows] for field in predictions))


def compute(predictions: Predictions) -> dict[str, float]:
    """Return the metrics of at least one image, by name.

    Of the predicted class, all 0..1:
        accuracy; balanced_accuracy (mean recall of the labelled classes); precision, recall, f1 (weighted by label
        frequency); macro_precision, macro_recall, macro_f1 (plain mean). A precision, recall or F1 whose denominator
        is zero is 0. A class that is neither labelled nor predicted stays out, and its own metrics are nan.
    Of the probabilities:
        roc_auc: one class against the rest, mean over the classes that have both; nan if none has.
        top2_accuracy: 0..1, the label is among the two most likely classes, the first ones of a tie.
        nll: negative log likelihood of the label, in nats.
        brier: sum over the classes of the squared difference from the one-hot label, 0..2 (Brier 1950).
        ece: expected calibration error, 0..1: mean distance of accuracy from confidence over 15 bins of equal
            width, weighted by images (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2).
    Against the votes of the ten annotators:
        kl_from_votes: KL(votes for the eight emotions, normalised || probabilities), in nats, mean over the
            images that have such a vote; nan if none has.
        agreement: mean fraction of the ten votes that went to the predicted class, 0..1.
        label_agreement: the same for the label, which is the most that a model can reach.
    Per class, for example happiness:
        precision/happiness, recall/happiness, f1/happiness, roc_auc/happiness (nan without images on both sides).

    Raises:
        ValueError: no images.
    """
    return _compute(predictions, auc=True)


def _compute(predictions: Predictions, auc: bool) -> dict[str, float]:
    if not len(predictions.label):
        raise ValueError("no images to evaluate")
    once = np.ones((len(predictions.label), 1))
    return {name: float(values[0]) for name, values in weighted_metrics(predictions, once, auc).items()}


def with_intervals(
    predictions: Predictions, seed: int = 0, replicas: int = 1000, auc: bool = True
) -> dict[str, Interval]:
    """Return `compute`'s metrics with 95 % percentile bootstrap intervals over the images (Efron 1979).

    An interval is taken over the replicas that define the metric. Two kinds of interval need caution. A fraction of
    exactly 0 or 1 has an interval without width, however few the images. The interval of `ece` lies high: a replica
    adds noise to the bins, which counts as error.

    Args:
        predictions: N images.
        seed: fixes the replicas.
        replicas: their number.
        auc: False leaves out the `roc_auc` metrics, which take most of the time.

    Raises:
        ValueError: no images.
    """
    values = _compute(predictions, auc)
    weights = bootstrap_weights(len(predictions.label), seed, replicas)
    blocks = [weighted_metrics(predictions, block, auc) for block in weights]
    return {name: interval(value, np.concatenate([block[name] for block in blocks])) for name, value in values.items()}


def weighted_metrics(predictions: Predictions, weights: np.ndarray, auc: bool = True) -> dict[str, np.ndarray]:
    """Return the metrics of R replicas at once. Replica r contains image i weights[i, r] times.

    Args:
        predictions: N images.
        weights: f64[N, R], >= 0, each column with a sum above 0.
        auc: False leaves out the `roc_auc` metrics.

    Returns:
        The names of `compute`: f64[R] each.
    """
    result = confusion_metrics(weighted_confusion(predictions, weights))
    for name, values in _per_image(predictions).items():
        result[name] = ratio(np.nan_to_num(values) @ weights, ~np.isnan(values) @ weights)
    gap = _sums(confidence_bins(predictions), BINS, predictions.correct - predictions.confidence) @ weights
    result["ece"] = np.abs(gap).sum(axis=0) / weights.sum(axis=0)
    if not auc:
        return result
    areas = np.stack([_weighted_auc(predictions, c, weights) for c in range(CLASSES)])
    result["roc_auc"] = ratio(np.nansum(areas, axis=0), (~np.isnan(areas)).sum(axis=0))
    return result | {f"roc_auc/{emotion}": values for emotion, values in zip(EMOTIONS, areas, strict=True)}


def _per_image(predictions: Predictions) -> dict[str, np.ndarray]:
    """The metrics that are a mean over the images: f64[N] each, nan for an image that does not count."""
    rows = np.arange(len(predictions.label))
    log_probs, label, votes = predictions
    top2 = np.argsort(-log_probs, axis=1, kind="stable")[:, :2]
    emotions = votes[:, :CLASSES]
    q = ratio(emotions, emotions.sum(axis=1, keepdims=True))
    all_votes = np.maximum(votes.sum(axis=1), 1)
    return {
        "top2_accuracy": (top2 == label[:, None]).any(axis=1).astype(np.float64),
        "nll": -log_probs[rows, label],
        "brier": ((np.exp(log_probs) - np.eye(CLASSES)[label]) ** 2).sum(axis=1),
        "kl_from_votes": (xlogy(q, q) - q * log_probs).sum(axis=1),
        "agreement": votes[rows, predictions.prediction] / all_votes,
        "label_agreement": votes[rows, label] / all_votes,
    }


def confusion(predictions: Predictions) -> np.ndarray:
    """The counts of images by [label, prediction]: i64[8, 8]."""
    return np.bincount(_cells(predictions), minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def weighted_confusion(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """The `confusion` of R replicas at once: f64[8, 8, R] of weights f64[N, R]."""
    sums = _sums(_cells(predictions), CLASSES**2, np.ones(len(predictions.label)))
    return (sums @ weights).reshape(CLASSES, CLASSES, -1)


def _cells(predictions: Predictions) -> np.ndarray:
    return predictions.label * CLASSES + predictions.prediction


def confidence_bins(predictions: Predictions, bins: int = BINS) -> np.ndarray:
    """The bin of each image: i64[N]. Bin i holds confidences in (i / bins, (i + 1) / bins]."""
    return np.clip(np.ceil(predictions.confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _sums(group: np.ndarray, groups: int, values: np.ndarray) -> sparse.csr_array:
    """The matrix [groups, N] that sums values x weights over each group: weights f64[N, R] -> f64[groups, R]."""
    return sparse.csr_array((values.astype(np.float64), (group, np.arange(len(group)))), (groups, len(group)))


def _weighted_auc(predictions: Predictions, emotion: int, weights: np.ndarray) -> np.ndarray:
    """The ROC AUC of one class against the rest: f64[R].

    It is the fraction of pairs, one image of the class and one of the rest, whose scores are in the right order.
    Ties count half.
    """
    score, positive = predictions.log_probabilities[:, emotion], predictions.label == emotion
    distinct, group = np.unique(score[positive], return_inverse=True)
    # The rest by rank among the distinct scores of the class: 2g is below score g, 2g + 1 is level with it.
    rank = np.searchsorted(distinct, score, "left") + np.searchsorted(distinct, score, "right")
    below = np.cumsum(_sums(rank, 2 * len(distinct) + 1, ~positive) @ weights, axis=0)
    weight = weights[positive]
    ordered = (weight * (below[2 * group] + below[2 * group + 1])).sum(axis=0) / 2
    return ratio(ordered, weight.sum(axis=0) * below[-1])
