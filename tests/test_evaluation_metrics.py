import subprocess
import sys
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax, xlogy
from sklearn import metrics as sk

from fer_jax.data.labels import EMOTIONS, VOTES
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.metrics import Predictions

PER_CLASS = ("precision", "recall", "f1", "roc_auc")


def probabilities(first: dict[int, float]) -> list[float]:
    """A row with the given classes, the rest in equal parts for the others."""
    rest = (1 - sum(first.values())) / (8 - len(first))
    return [first.get(c, round(rest, 12)) for c in range(8)]  # rounded: equal parts tie


def always(first: dict[int, float], votes: np.ndarray, protocol: str = "argmax") -> Predictions:
    """A model with the same probabilities for every image."""
    return metrics_lib.select(np.log([probabilities(first)] * len(votes)), votes, protocol)[0]


def random_predictions(rng: np.random.Generator, n: int, *, classes: int = 8, tied: bool = False) -> Predictions:
    """A model that is often correct; `tied`: it has only ten different outputs."""
    votes = np.stack([rng.multinomial(10, rng.dirichlet(np.full(classes, 0.3))) for _ in range(n)])
    votes = np.pad(votes, ((0, 0), (0, 10 - classes)))
    if classes < 8:
        votes[: n // 4, 8:] = 3  # some votes for unknown and NF
    logits = rng.normal(size=(n, 8)) + 0.4 * votes[:, :8]
    if tied:
        logits = logits[rng.integers(0, 10, n)]
    return metrics_lib.select(log_softmax(logits, axis=1), votes, "argmax")[0]


def by_scikit_learn(predictions: Predictions) -> dict[str, float]:
    """The metrics by scikit-learn if it has them, else image by image or bin by bin."""
    label, prediction, log_probs = predictions.label, predictions.prediction, predictions.log_probabilities
    p, labelled, present = np.exp(log_probs), np.unique(label), np.union1d(label, prediction)
    result = {
        "accuracy": sk.accuracy_score(label, prediction),
        "balanced_accuracy": sk.recall_score(label, prediction, labels=labelled, average="macro"),
        "nll": np.mean([-row[c] for row, c in zip(log_probs, label, strict=True)]),
        "brier": np.mean([((row - np.eye(8)[c]) ** 2).sum() for row, c in zip(p, label, strict=True)]),
        "top2_accuracy": np.mean(
            [c in np.argsort(-row, kind="stable")[:2] for row, c in zip(log_probs, label, strict=True)]
        ),
    }
    for average, prefix in (("weighted", ""), ("macro", "macro_")):
        means = sk.precision_recall_fscore_support(label, prediction, average=average, zero_division=0)
        result |= {prefix + name: value for name, value in zip(PER_CLASS[:3], means, strict=False)}
    auc = {c: sk.roc_auc_score(label == c, log_probs[:, c]) for c in labelled if len(labelled) > 1}
    result["roc_auc"] = np.mean(list(auc.values())) if auc else np.nan
    per_class = sk.precision_recall_fscore_support(label, prediction, labels=range(8), zero_division=0)
    for i, emotion in enumerate(EMOTIONS):
        for name, values in zip(PER_CLASS[:3], per_class, strict=False):
            result[f"{name}/{emotion}"] = values[i] if i in present else np.nan
        result[f"roc_auc/{emotion}"] = auc.get(i, np.nan)
    bins = np.minimum(np.ceil(p.max(axis=1) * 15), 15)
    gaps = [(predictions.correct - p.max(axis=1))[bins == i].sum() for i in range(1, 16)]
    result["ece"] = np.abs(gaps).sum() / len(label)
    rows = zip(predictions.votes, log_probs, prediction, label, strict=True)
    of_votes = []
    for votes, row, predicted, labelled_as in rows:
        q = votes[:8] / votes[:8].sum() if votes[:8].sum() else np.full(8, np.nan)
        fractions = votes / max(votes.sum(), 1)
        of_votes.append([(xlogy(q, q) - q * row).sum(), fractions[predicted], fractions[labelled_as]])
    divergence, agreement, label_agreement = np.array(of_votes).T
    result["kl_from_votes"] = np.nan if np.isnan(divergence).all() else np.nanmean(divergence)
    return result | {"agreement": agreement.mean(), "label_agreement": label_agreement.mean()}


def test_every_metric_by_hand() -> None:
    p = [
        probabilities({0: 0.5, 1: 0.2}),  # the others 0.05 each
        probabilities({0: 0.5, 1: 0.2}),
        probabilities({1: 0.65}),
        probabilities({0: 0.65}),
    ]
    votes = np.zeros((4, 10), int)
    votes[0, [0, 1]] = 8, 2
    votes[1, [1, 0, 8]] = 6, 2, 2
    votes[2, 1] = 10
    votes[3, [2, 0, 9]] = 4, 3, 3
    predictions, keep = metrics_lib.select(np.log(p), votes, "argmax")
    assert keep.all()
    assert predictions.label.tolist() == [0, 1, 1, 2]
    assert predictions.prediction.tolist() == [0, 0, 1, 0]

    kl = [
        0.8 * log(0.8 / 0.5),  # + 0.2 log (0.2 / 0.2)
        0.75 * log(0.75 / 0.2) + 0.25 * log(0.25 / 0.5),  # unknown is left out
        log(1 / 0.65),
        4 / 7 * log(4 / 7 / 0.05) + 3 / 7 * log(3 / 7 / 0.65),
    ]
    expected = {
        "accuracy": 2 / 4,
        "balanced_accuracy": (1 + 1 / 2 + 0) / 3,
        "precision": (1 * 1 / 3 + 2 * 1 + 1 * 0) / 4,
        "recall": 2 / 4,
        "f1": (1 * 1 / 2 + 2 * 2 / 3 + 1 * 0) / 4,
        "macro_precision": (1 / 3 + 1 + 0) / 3,
        "macro_recall": (1 + 1 / 2 + 0) / 3,
        "macro_f1": (1 / 2 + 2 / 3 + 0) / 3,
        "roc_auc": (1 / 2 + 3.5 / 4 + 1 / 2) / 3,
        "top2_accuracy": 3 / 4,  # the fourth has seven classes in second place: the first one of them counts
        "nll": -(log(0.5) + log(0.2) + log(0.65) + log(0.05)) / 4,
        "brier": (0.305 + 0.905 + 0.14 + 1.34) / 4,  # the first: 0.5^2 + 0.2^2 + 6 x 0.05^2
        "kl_from_votes": sum(kl) / 4,
        "agreement": (0.8 + 0.2 + 1 + 0.3) / 4,
        "label_agreement": (0.8 + 0.6 + 1 + 0.4) / 4,
        "ece": 2 / 4 * abs(1 / 2 - 0.5) + 2 / 4 * abs(1 / 2 - 0.65),
    }
    by_class = {
        "neutral": (1 / 3, 1, 1 / 2, 1.5 / 3),
        "happiness": (1, 1 / 2, 2 / 3, 3.5 / 4),
        "surprise": (0, 0, 0, 0.5),
    }
    for emotion in EMOTIONS:
        values = by_class.get(emotion, [np.nan] * 4)
        expected |= {f"{name}/{emotion}": value for name, value in zip(PER_CLASS, values, strict=True)}
    assert metrics_lib.compute(predictions) == pytest.approx(expected, nan_ok=True)
    assert by_scikit_learn(predictions) == pytest.approx(expected, nan_ok=True)

    matrix = metrics_lib.confusion(predictions)
    assert matrix.dtype == np.int64
    assert matrix[:3, :3].tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert matrix.sum() == 4


def test_oracle() -> None:
    predictions = random_predictions(np.random.default_rng(0), 300)
    oracle = predictions._replace(log_probabilities=log_softmax(100.0 * np.eye(8)[predictions.label], axis=1))
    got = metrics_lib.compute(oracle)
    for name in ("accuracy", "balanced_accuracy", "f1", "macro_f1", "roc_auc", "top2_accuracy", "f1/contempt"):
        assert got[name] == 1, name
    for name in ("nll", "brier", "ece"):
        assert got[name] == pytest.approx(0, abs=1e-12), name
    # It knows the label and not the votes: no model agrees with more of them, and its divergence is large.
    assert got["agreement"] == got["label_agreement"] == pytest.approx((predictions.votes.max(axis=1) / 10).mean())
    assert got["kl_from_votes"] > 10
    assert metrics_lib.confusion(oracle).sum() == np.trace(metrics_lib.confusion(oracle)) == 300


def test_uniform() -> None:
    predictions = random_predictions(np.random.default_rng(1), 300)
    uniform = always({}, predictions.votes)
    got = metrics_lib.compute(uniform)
    neutral = (predictions.label == 0).mean()  # the first of the eight-fold tie
    assert got["accuracy"] == pytest.approx(neutral)
    assert got["top2_accuracy"] == pytest.approx((predictions.label <= 1).mean())
    assert got["nll"] == pytest.approx(log(8))
    assert got["brier"] == pytest.approx((7 / 8) ** 2 + 7 / 64)
    assert got["ece"] == pytest.approx(abs(neutral - 1 / 8))
    assert got["roc_auc"] == 0.5
    q = predictions.votes[:, :8] / 10
    entropy = -np.sum(q * np.log(np.where(q > 0, q, 1)), axis=1)
    assert got["kl_from_votes"] == pytest.approx(log(8) - entropy.mean())


def test_always_happiness() -> None:
    predictions = random_predictions(np.random.default_rng(2), 300)
    got = metrics_lib.compute(always({1: 0.93}, predictions.votes))
    frequency = (predictions.label == 1).mean()
    assert got["accuracy"] == got["recall"] == got["precision/happiness"] == pytest.approx(frequency)
    assert got["recall/happiness"] == 1
    assert got["balanced_accuracy"] == got["macro_recall"] == pytest.approx(1 / 8)
    assert got["macro_f1"] == pytest.approx(2 * frequency / (1 + frequency) / 8)
    assert got["precision"] == pytest.approx(frequency**2)
    assert got["precision/anger"] == got["f1/anger"] == 0
    assert got["roc_auc"] == 0.5
    assert got["ece"] == pytest.approx(0.93 - frequency)
    assert got["nll"] == pytest.approx(-frequency * log(0.93) - (1 - frequency) * log(0.01))
    assert got["agreement"] == pytest.approx((predictions.votes[:, 1] / 10).mean())


def test_metrics_equal_scikit_learn() -> None:
    predictions = random_predictions(np.random.default_rng(3), 500)
    p, label = np.exp(predictions.log_probabilities), predictions.label
    got = metrics_lib.compute(predictions)
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(label, predictions.prediction))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(label, p, multi_class="ovr", average="macro"))
    assert got["top2_accuracy"] == pytest.approx(sk.top_k_accuracy_score(label, p, k=2))
    assert got["nll"] == pytest.approx(sk.log_loss(label, p))
    assert got["brier"] == pytest.approx(sk.brier_score_loss(label, p, scale_by_half=False))
    np.testing.assert_array_equal(
        metrics_lib.confusion(predictions), sk.confusion_matrix(label, predictions.prediction)
    )
    assert got == pytest.approx(by_scikit_learn(predictions), nan_ok=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("classes", [8, 5, 1])  # below 8: classes without images, and votes for unknown and NF
def test_weighted_metrics_are_the_metrics_of_repeated_images(classes: int, tied: bool) -> None:
    rng = np.random.default_rng(classes)
    predictions = random_predictions(rng, 60, classes=classes, tied=tied)
    predictions.votes[:5, :8] = 0  # images without a vote for an emotion
    weights = rng.integers(0, 4, (60, 6)).astype(float)
    weights[:, 3] = 1
    weights[:, 4] = predictions.label == predictions.label[0]  # one class alone
    weights[:, 5] = np.arange(60) == 2  # one image alone, without a vote for an emotion
    got = metrics_lib.weighted_metrics(predictions, weights)
    for replica, weight in enumerate(weights.T):
        repeated = metrics_lib.take(predictions, np.repeat(np.arange(60), weight.astype(int)))
        expected = by_scikit_learn(repeated)
        assert metrics_lib.compute(repeated) == pytest.approx(expected, nan_ok=True)
        assert {name: values[replica] for name, values in got.items()} == pytest.approx(expected, nan_ok=True)
        matrix = metrics_lib.weighted_confusion(predictions, weights)[..., replica]
        np.testing.assert_array_equal(matrix, metrics_lib.confusion(repeated))


def test_weighted_metrics_equal_scikit_learn_with_sample_weight() -> None:
    rng = np.random.default_rng(4)
    predictions = random_predictions(rng, 300)
    weight = rng.exponential(size=300)
    got = {name: values[0] for name, values in metrics_lib.weighted_metrics(predictions, weight[:, None]).items()}
    p, label, prediction = np.exp(predictions.log_probabilities), predictions.label, predictions.prediction
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(label, prediction, sample_weight=weight))
    assert got["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(label, prediction, sample_weight=weight)
    )
    for average, prefix in (("weighted", ""), ("macro", "macro_")):
        means = sk.precision_recall_fscore_support(label, prediction, average=average, sample_weight=weight)
        assert [got[prefix + name] for name in PER_CLASS[:3]] == pytest.approx(list(means[:3]))
    for i, emotion in enumerate(EMOTIONS):
        expected = sk.roc_auc_score(label == i, p[:, i], sample_weight=weight)
        assert got[f"roc_auc/{emotion}"] == pytest.approx(expected)
    assert got["top2_accuracy"] == pytest.approx(sk.top_k_accuracy_score(label, p, k=2, sample_weight=weight))
    assert got["nll"] == pytest.approx(sk.log_loss(label, p, sample_weight=weight))
    assert got["brier"] == pytest.approx(sk.brier_score_loss(label, p, sample_weight=weight, scale_by_half=False))


def test_select_keeps_the_images_of_the_protocol() -> None:
    votes = np.zeros((4, 10), int)
    votes[0, 3] = 10
    votes[1, [2, 4]] = 5  # no majority
    votes[2, [6, 8]] = 7, 3  # not clean
    votes[3, [9, 5]] = 9, 1  # not a face, and a slip
    logs = np.log([probabilities({c: 0.3}) for c in range(4)])
    for protocol, rows, label in (
        ("majority", [0, 2], [3, 6]),
        ("clean", [0, 1], [3, 2]),
        ("argmax", [0, 1, 2, 3], [3, 2, 6, 5]),
    ):
        predictions, keep = metrics_lib.select(logs.astype(np.float32), votes, protocol)
        assert np.flatnonzero(keep).tolist() == rows
        assert predictions.label.tolist() == label
        assert predictions.prediction.tolist() == rows
        np.testing.assert_array_equal(predictions.votes, votes[rows])
        assert predictions.log_probabilities.dtype == np.float64
        np.testing.assert_allclose(predictions.confidence, 0.3, rtol=1e-6)


def test_take_selects_rows() -> None:
    predictions = random_predictions(np.random.default_rng(8), 10)
    for rows in (np.array([3, 3, 1]), np.arange(10) > 7):
        for taken, field in zip(metrics_lib.take(predictions, rows), predictions, strict=True):
            np.testing.assert_array_equal(taken, field[rows])


def test_errors_name_what_is_wrong() -> None:
    votes = np.full((2, 10), 1)
    uniform = np.full((2, 8), -log(8))
    with pytest.raises(ValueError, match=r"\[2, 8\]"):
        metrics_lib.select(uniform[:1], votes, "majority")
    with pytest.raises(ValueError, match="log_softmax"):
        metrics_lib.select(np.zeros((2, 8)), votes, "majority")
    with pytest.raises(ValueError, match="finite"):
        metrics_lib.select(np.where(np.eye(2, 8) > 0, 0, -np.inf), votes, "majority")
    with pytest.raises(ValueError, match="unknown label mode"):
        metrics_lib.select(uniform, votes, "median")
    nothing = metrics_lib.select(uniform, votes, "majority")[0]  # single votes do not count
    with pytest.raises(ValueError, match="no images"):
        metrics_lib.with_intervals(nothing)


def test_importing_metrics_imports_neither_jax_nor_scikit_learn() -> None:
    modules = "comparison, calibration, metrics"
    code = (
        f"import sys; from fer_jax.evaluation import {modules}; sys.exit(bool({{'jax', 'sklearn'}} & {{*sys.modules}}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_models_of_known_behaviour_on_the_real_votes(real_csvs: Path) -> None:
    table = pd.read_csv(real_csvs / "fer2013new.csv")
    table = table[table["Image name"].notna() & (table["Usage"] == "PublicTest")].drop_duplicates("Image name")
    votes = table[list(VOTES)].to_numpy()
    happy = metrics_lib.with_intervals(always({1: 0.93}, votes, "majority"))
    assert happy["accuracy"].value == pytest.approx(865 / 3199)
    assert happy["accuracy"].low < 865 / 3199 < happy["accuracy"].high
    assert happy["balanced_accuracy"].value == pytest.approx(1 / 8)
    assert metrics_lib.compute(always({}, votes, "majority"))["accuracy"] == pytest.approx(1182 / 3199)
