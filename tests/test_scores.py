import subprocess
import sys
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax
from scipy.stats import binom
from sklearn import metrics as sk

from fer_jax.data.labels import EMOTIONS, VOTES
from fer_jax.evaluation import metrics as metrics_lib

PER_CLASS = ("precision", "recall", "f1", "roc_auc")


def probabilities(first: dict[int, float]) -> list[float]:
    """A row with the given classes, the rest shared out among the others."""
    rest = (1 - sum(first.values())) / (8 - len(first))
    return [first.get(c, round(rest, 12)) for c in range(8)]  # rounded: equal shares tie


def always(first: dict[int, float], votes: np.ndarray, protocol: str = "argmax") -> metrics_lib.Predictions:
    """A model that says the same of every picture."""
    return metrics_lib.select(np.log([probabilities(first)] * len(votes)), votes, protocol)[0]


def random_judged(rng: np.random.Generator, n: int, *, classes: int = 8, tied: bool = False) -> metrics_lib.Predictions:
    """A model that is often right; `tied`: it has only ten answers."""
    votes = np.stack([rng.multinomial(10, rng.dirichlet(np.full(classes, 0.3))) for _ in range(n)])
    votes = np.pad(votes, ((0, 0), (0, 10 - classes)))
    if classes < 8:
        votes[: n // 4, 8:] = 3  # some votes for unknown and NF
    logits = rng.normal(size=(n, 8)) + 0.4 * votes[:, :8]
    if tied:
        logits = logits[rng.integers(0, 10, n)]
    return metrics_lib.select(log_softmax(logits, axis=1), votes, "argmax")[0]


def test_every_figure_by_hand() -> None:
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
    judged, keep = metrics_lib.select(np.log(p), votes, "argmax")
    assert keep.all()
    assert judged.label.tolist() == [0, 1, 1, 2]
    assert judged.prediction.tolist() == [0, 0, 1, 0]

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
    assert metrics_lib.compute(judged) == pytest.approx(expected, nan_ok=True)

    matrix = metrics_lib.confusion(judged)
    assert matrix.dtype == np.int64
    assert matrix[:3, :3].tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert matrix.sum() == 4


def test_oracle() -> None:
    judged = random_judged(np.random.default_rng(0), 300)
    oracle = judged._replace(log_probabilities=log_softmax(100.0 * np.eye(8)[judged.label], axis=1))
    got = metrics_lib.compute(oracle)
    for name in ("accuracy", "balanced_accuracy", "f1", "macro_f1", "roc_auc", "top2_accuracy", "f1/contempt"):
        assert got[name] == 1, name
    for name in ("nll", "brier", "ece"):
        assert got[name] == pytest.approx(0, abs=1e-12), name
    # It knows the label and not the taggers: no model has their agreement beyond this, and its divergence is large.
    assert got["agreement"] == got["label_agreement"] == pytest.approx((judged.votes.max(axis=1) / 10).mean())
    assert got["kl_from_votes"] > 10
    assert metrics_lib.confusion(oracle).sum() == np.trace(metrics_lib.confusion(oracle)) == 300


def test_uniform() -> None:
    judged = random_judged(np.random.default_rng(1), 300)
    uniform = always({}, judged.votes)
    got = metrics_lib.compute(uniform)
    neutral = (judged.label == 0).mean()  # the first of the eight-fold tie
    assert got["accuracy"] == pytest.approx(neutral)
    assert got["top2_accuracy"] == pytest.approx((judged.label <= 1).mean())
    assert got["nll"] == pytest.approx(log(8))
    assert got["brier"] == pytest.approx((7 / 8) ** 2 + 7 / 64)
    assert got["ece"] == pytest.approx(abs(neutral - 1 / 8))
    assert got["roc_auc"] == 0.5
    q = judged.votes[:, :8] / 10
    entropy = -np.sum(q * np.log(np.where(q > 0, q, 1)), axis=1)
    assert got["kl_from_votes"] == pytest.approx(log(8) - entropy.mean())


def test_always_happiness() -> None:
    judged = random_judged(np.random.default_rng(2), 300)
    got = metrics_lib.compute(always({1: 0.93}, judged.votes))
    share = (judged.label == 1).mean()
    assert got["accuracy"] == got["recall"] == got["precision/happiness"] == pytest.approx(share)
    assert got["recall/happiness"] == 1
    assert got["balanced_accuracy"] == got["macro_recall"] == pytest.approx(1 / 8)
    assert got["macro_f1"] == pytest.approx(2 * share / (1 + share) / 8)
    assert got["precision"] == pytest.approx(share**2)
    assert got["precision/anger"] == got["f1/anger"] == 0
    assert got["roc_auc"] == 0.5
    assert got["ece"] == pytest.approx(0.93 - share)
    assert got["nll"] == pytest.approx(-share * log(0.93) - (1 - share) * log(0.01))
    assert got["agreement"] == pytest.approx((judged.votes[:, 1] / 10).mean())


def test_figures_equal_scikit_learn() -> None:
    judged = random_judged(np.random.default_rng(3), 500)
    p, label = np.exp(judged.log_probabilities), judged.label
    got = metrics_lib.compute(judged)
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(label, judged.prediction))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(label, p, multi_class="ovr", average="macro"))
    assert got["top2_accuracy"] == pytest.approx(sk.top_k_accuracy_score(label, p, k=2))
    assert got["nll"] == pytest.approx(sk.log_loss(label, p))
    assert got["brier"] == pytest.approx(sk.brier_score_loss(label, p, scale_by_half=False))
    np.testing.assert_array_equal(metrics_lib.confusion(judged), sk.confusion_matrix(label, judged.prediction))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("classes", [8, 5, 1])  # below 8: classes without pictures, and votes for unknown and NF
def test_weighted_figures_are_the_figures_of_repeated_pictures(classes: int, tied: bool) -> None:
    rng = np.random.default_rng(classes)
    judged = random_judged(rng, 60, classes=classes, tied=tied)
    judged.votes[:5, :8] = 0  # pictures without a vote for an emotion
    weights = rng.integers(0, 4, (60, 6)).astype(float)
    weights[:, 3] = 1
    weights[:, 4] = judged.label == judged.label[0]  # one class alone
    weights[:, 5] = np.arange(60) == 2  # one picture alone, without a vote for an emotion
    got = metrics_lib.weighted_metrics(judged, weights)
    for replica, weight in enumerate(weights.T):
        repeated = metrics_lib.take(judged, np.repeat(np.arange(60), weight.astype(int)))
        expected = metrics_lib.compute(repeated)
        assert {name: values[replica] for name, values in got.items()} == pytest.approx(expected, nan_ok=True)
        matrix = metrics_lib.weighted_confusion(judged, weights)[..., replica]
        np.testing.assert_array_equal(matrix, metrics_lib.confusion(repeated))


def test_weighted_figures_equal_scikit_learn_with_sample_weight() -> None:
    rng = np.random.default_rng(4)
    judged = random_judged(rng, 300)
    weight = rng.exponential(size=300)
    got = {name: values[0] for name, values in metrics_lib.weighted_metrics(judged, weight[:, None]).items()}
    p, label, prediction = np.exp(judged.log_probabilities), judged.label, judged.prediction
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


def test_intervals_are_percentiles_over_all_replicas_that_define_the_figure() -> None:
    judged = random_judged(np.random.default_rng(5), 30, tied=True)
    replicas = metrics_lib.BLOCK + 5
    weights = np.concatenate(list(metrics_lib.bootstrap_weights(30, 7, replicas)), axis=1)
    assert weights.shape == (30, replicas)
    assert set(weights.sum(axis=0)) == {30}
    assert len(np.unique(weights, axis=1).T) == replicas
    drawn = metrics_lib.weighted_metrics(judged, weights)
    assert np.isnan(drawn["roc_auc/contempt"]).any()  # a replica without the class says nothing of it
    assert not np.isnan(drawn["roc_auc/contempt"]).all()
    got = metrics_lib.with_intervals(judged, seed=7, replicas=replicas)
    assert list(got) == list(metrics_lib.compute(judged))
    assert {name: value for name, (value, _, _) in got.items()} == metrics_lib.compute(judged)
    for name, (_, low, high) in got.items():
        assert [low, high] == pytest.approx(np.nanpercentile(drawn[name], [2.5, 97.5])), name


def test_interval_of_accuracy_has_the_width_that_chance_gives() -> None:
    judged = random_judged(np.random.default_rng(6), 400)
    accuracy = metrics_lib.with_intervals(judged, replicas=4000)["accuracy"]
    assert accuracy.value == judged.correct.mean()
    # Drawn hits are binomial; at 4,000 replicas a percentile is a picture or two off.
    expected = binom.ppf([0.025, 0.975], 400, accuracy.value) / 400
    assert [accuracy.low, accuracy.high] == pytest.approx(expected, abs=2.5 / 400)
    again, other = (metrics_lib.with_intervals(judged, seed, replicas=200)["nll"] for seed in (0, 1))
    assert again == metrics_lib.with_intervals(judged, 0, replicas=200)["nll"]
    assert again.low != other.low


@pytest.mark.filterwarnings("error")
def test_undefined_figures_have_undefined_intervals() -> None:
    votes = np.zeros((20, 10), int)
    votes[:, 1] = 10
    got = metrics_lib.with_intervals(always({1: 0.93}, votes), replicas=20)
    assert got["accuracy"] == (1, 1, 1)
    assert np.isnan(got["roc_auc"]).all()
    assert np.isnan(got["recall/fear"]).all()


def test_judge_keeps_what_the_protocol_keeps() -> None:
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
        judged, keep = metrics_lib.select(logs.astype(np.float32), votes, protocol)
        assert np.flatnonzero(keep).tolist() == rows
        assert judged.label.tolist() == label
        assert judged.prediction.tolist() == rows
        np.testing.assert_array_equal(judged.votes, votes[rows])
        assert judged.log_probabilities.dtype == np.float64
        np.testing.assert_allclose(judged.confidence, 0.3, rtol=1e-6)


def test_take_chooses_rows() -> None:
    judged = random_judged(np.random.default_rng(8), 10)
    for rows in (np.array([3, 3, 1]), np.arange(10) > 7):
        for field, of in zip(metrics_lib.take(judged, rows), judged, strict=True):
            np.testing.assert_array_equal(field, of[rows])


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
    with pytest.raises(ValueError, match="no pictures"):
        metrics_lib.with_intervals(nothing)


def test_importing_scores_does_not_import_jax() -> None:
    code = "import sys, fer_jax.evaluation.comparison, fer_jax.evaluation.calibration, fer_jax.evaluation.metrics; sys.exit('jax' in sys.modules)"
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
