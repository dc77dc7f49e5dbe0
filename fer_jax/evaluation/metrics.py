"""What a model's probabilities are worth: the figures of a report, each with its bootstrap interval.

`figures` is the definition, by scikit-learn where it has the figure; `weighted_metrics` gives the same for many
bootstrap replicas at once, from sparse matrix products. This module needs no jax and no files.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import logsumexp, xlogy
from sklearn import metrics as sk

from fer_jax.data import labels
from fer_jax.data.labels import EMOTIONS
from fer_jax.evaluation.intervals import Interval, bootstrap_weights, interval
from fer_jax.training.confusion import confusion_metrics, ratio

CLASSES = len(EMOTIONS)
BINS = 15  # of the expected calibration error, as in Guo et al. 2017


class Predictions(NamedTuple):
    """The pictures of a split that a protocol keeps, with what a model says of them."""

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
        """Whether the prediction is the label: bool[N]."""
        return self.prediction == self.label


def select(log_probabilities: np.ndarray, votes: np.ndarray, protocol: str) -> tuple[Predictions, np.ndarray]:
    """The pictures that a protocol keeps, and which they are.

    Args:
        log_probabilities: float[M, 8], natural logarithm, of all pictures of a split.
        votes: int[M, 10], in the order of `labels.VOTES`.
        protocol: one of `labels.PROTOCOLS`.

    Returns:
        The N judged pictures, and keep bool[M].

    Raises:
        ValueError: unknown protocol, shapes that do not fit, or rows that are not finite logarithms of
            probabilities that sum to one.
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


def take(judged: Predictions, rows: np.ndarray) -> Predictions:
    """The pictures of `rows`, int[K] (in that order, repeats allowed) or bool[N]."""
    return Predictions(*(field[rows] for field in judged))


def compute(judged: Predictions) -> dict[str, float]:
    """The figures of at least one picture, by name.

    Of the predicted class, all 0..1:
        accuracy; balanced_accuracy (mean recall of the labelled classes); precision, recall, f1 (weighted by label
        frequency) and macro_precision, macro_recall, macro_f1 (plain mean). A precision, recall or F1 whose
        denominator is zero is 0; a class neither labelled nor predicted stays out, and its own are nan.
    Of the probabilities:
        roc_auc: one class against the rest, mean over the classes that have both; nan if none has.
        top2_accuracy: 0..1, the label is among the two most likely classes, the first ones of a tie.
        nll: negative log likelihood of the label, in nats.
        brier: sum over the classes of the squared difference from the one-hot label, 0..2 (Brier 1950).
        ece: expected calibration error, 0..1: mean distance of accuracy from confidence over 15 bins of equal
            width, weighted by pictures (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2).
    Against the votes of the ten taggers:
        kl_from_votes: KL(votes for the eight emotions, normalised || probabilities), in nats, mean over the
            pictures that have such a vote; nan if none has.
        agreement: mean share of the ten votes that went to the predicted class, 0..1.
        label_agreement: the same for the label: how well a model can do that knows it.
    Per class, for example happiness:
        precision/happiness, recall/happiness, f1/happiness, roc_auc/happiness (nan without pictures on both sides).

    Raises:
        ValueError: no pictures.
    """
    if not len(judged.label):
        raise ValueError("no pictures to judge")
    label, prediction = judged.label, judged.prediction
    labelled = np.unique(label)
    result = {
        "accuracy": sk.accuracy_score(label, prediction),
        "balanced_accuracy": sk.recall_score(label, prediction, labels=labelled, average="macro"),
    }
    for average, prefix in (("weighted", ""), ("macro", "macro_")):
        means = sk.precision_recall_fscore_support(label, prediction, average=average, zero_division=0)
        result |= {prefix + name: value for name, value in zip(("precision", "recall", "f1"), means, strict=False)}
    auc = {c: sk.roc_auc_score(label == c, judged.log_probabilities[:, c]) for c in labelled if len(labelled) > 1}
    result["roc_auc"] = np.mean(list(auc.values())) if auc else np.nan
    result |= {name: ratio(np.nansum(term), (~np.isnan(term)).sum()) for name, term in _per_picture(judged).items()}
    gap = np.bincount(confidence_bins(judged), judged.correct - judged.confidence)
    result["ece"] = np.abs(gap).sum() / len(label)

    seen = np.union1d(label, prediction)
    per_class = sk.precision_recall_fscore_support(label, prediction, labels=range(CLASSES), zero_division=0)
    for i, emotion in enumerate(EMOTIONS):
        for name, values in zip(("precision", "recall", "f1"), per_class, strict=False):
            result[f"{name}/{emotion}"] = values[i] if i in seen else np.nan
        result[f"roc_auc/{emotion}"] = auc.get(i, np.nan)
    return {name: float(value) for name, value in result.items()}


def _per_picture(judged: Predictions) -> dict[str, np.ndarray]:
    """The figures that are a mean over pictures: f64[N] each, nan for a picture that has none."""
    rows = np.arange(len(judged.label))
    logs, label, votes = judged.log_probabilities, judged.label, judged.votes
    top2 = np.argsort(-logs, axis=1, kind="stable")[:, :2]
    emotions = votes[:, :CLASSES]
    q = ratio(emotions, emotions.sum(axis=1, keepdims=True))
    all_votes = np.maximum(votes.sum(axis=1), 1)
    return {
        "top2_accuracy": (top2 == label[:, None]).any(axis=1).astype(np.float64),
        "nll": -logs[rows, label],
        "brier": ((np.exp(logs) - np.eye(CLASSES)[label]) ** 2).sum(axis=1),
        "kl_from_votes": (xlogy(q, q) - q * logs).sum(axis=1),
        "agreement": votes[rows, judged.prediction] / all_votes,
        "label_agreement": votes[rows, label] / all_votes,
    }


def confusion(judged: Predictions) -> np.ndarray:
    """Counts of pictures by [label, prediction]: i64[8, 8]."""
    return np.bincount(_cells(judged), minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def _cells(judged: Predictions) -> np.ndarray:
    return judged.label * CLASSES + judged.prediction


def confidence_bins(judged: Predictions, bins: int = BINS) -> np.ndarray:
    """The bin of each picture: i64[N]; bin i holds confidences in (i / bins, (i + 1) / bins]."""
    return np.clip(np.ceil(judged.confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def with_intervals(judged: Predictions, seed: int = 0, replicas: int = 1000, auc: bool = True) -> dict[str, Interval]:
    """`figures`, each with its 95 % percentile bootstrap interval over pictures (Efron 1979); the seed fixes it.

    A figure's interval is over the replicas that define it. Two intervals deserve a caution: that of a share of
    exactly 0 or 1 has no width, however few the pictures; and that of `ece` lies high, as the noise that a replica
    adds to its bins counts as error.

    Args:
        judged: N pictures.
        seed: of the replicas.
        replicas: how many.
        auc: False leaves out the `roc_auc` figures, which take most of the time.

    Raises:
        ValueError: no pictures.
    """
    values = compute(judged)
    blocks = [
        weighted_metrics(judged, weights, auc) for weights in bootstrap_weights(len(judged.label), seed, replicas)
    ]
    replicates = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return {name: interval(value, replicates[name]) for name, value in values.items() if name in replicates}


def weighted_metrics(judged: Predictions, weights: np.ndarray, auc: bool = True) -> dict[str, np.ndarray]:
    """`figures` of R replicas at once, replica r having picture i weights[i, r] times.

    Args:
        judged: N pictures.
        weights: f64[N, R], >= 0, each column with a sum above 0.
        auc: False leaves out `roc_auc`.

    Returns:
        The names of `figures`: f64[R] each.
    """
    result = confusion_metrics(weighted_confusion(judged, weights))
    for name, term in _per_picture(judged).items():
        result[name] = ratio(np.nan_to_num(term) @ weights, ~np.isnan(term) @ weights)
    gap = _sums(confidence_bins(judged), BINS, judged.correct - judged.confidence) @ weights
    result["ece"] = np.abs(gap).sum(axis=0) / weights.sum(axis=0)
    if not auc:
        return result
    areas = np.stack([_weighted_auc(judged, c, weights) for c in range(CLASSES)])
    result["roc_auc"] = ratio(np.nansum(areas, axis=0), (~np.isnan(areas)).sum(axis=0))
    return result | {f"roc_auc/{emotion}": values for emotion, values in zip(EMOTIONS, areas, strict=True)}


def _sums(group: np.ndarray, groups: int, values: np.ndarray) -> sparse.csr_array:
    """The matrix [groups, N] that sums values x weights over each group: weights f64[N, R] -> f64[groups, R]."""
    return sparse.csr_array((values.astype(np.float64), (group, np.arange(len(group)))), (groups, len(group)))


def weighted_confusion(judged: Predictions, weights: np.ndarray) -> np.ndarray:
    """`confusion` of R replicas at once: f64[8, 8, R] of weights f64[N, R]."""
    sums = _sums(_cells(judged), CLASSES**2, np.ones(len(judged.label)))
    return (sums @ weights).reshape(CLASSES, CLASSES, -1)


def _weighted_auc(judged: Predictions, which: int, weights: np.ndarray) -> np.ndarray:
    """One class against the rest: the share of pairs (of it, of the rest) in the right order, ties half; f64[R]."""
    score, positive = judged.log_probabilities[:, which], judged.label == which
    distinct, group = np.unique(score[positive], return_inverse=True)
    # The rest by where they stand among the distinct scores of the class: 2g below score g, 2g + 1 level with it.
    place = np.searchsorted(distinct, score, "left") + np.searchsorted(distinct, score, "right")
    below = np.cumsum(_sums(place, 2 * len(distinct) + 1, ~positive) @ weights, axis=0)
    weight = weights[positive]
    won = (weight * (below[2 * group] + below[2 * group + 1])).sum(axis=0) / 2
    return ratio(won, weight.sum(axis=0) * below[-1])
