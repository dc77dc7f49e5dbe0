import numpy as np
import pytest
from sklearn import metrics as sk

from fer_jax.data.labels import EMOTIONS
from fer_jax.training.confusion import confusion_metrics, ratio


def random_labels(rng: np.random.Generator, n: int, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    label = rng.integers(0, classes, n)
    return label, np.where(rng.random(n) < 0.6, label, rng.integers(0, classes, n))


def matrix_of(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return sk.confusion_matrix(label, prediction, labels=range(8))


def metrics_of(confusion: np.ndarray) -> dict[str, float]:
    """The metrics of one matrix [8, 8]."""
    values = confusion_metrics(confusion[..., None])
    assert {value.shape for value in values.values()} == {(1,)}
    return {name: float(value[0]) for name, value in values.items()}


@pytest.mark.parametrize("classes", [8, 6])  # 6: two classes are neither labelled nor predicted
def test_metrics_equal_scikit_learns(classes: int) -> None:
    label, prediction = random_labels(np.random.default_rng(0), 500, classes)
    metrics = metrics_of(matrix_of(label, prediction))
    assert metrics["accuracy"] == pytest.approx(sk.accuracy_score(label, prediction))
    assert metrics["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(label, prediction))
    names = ("precision", "recall", "f1")
    expected = sk.precision_recall_fscore_support(label, prediction, average="weighted", zero_division=0)
    assert [metrics[name] for name in names] == pytest.approx(list(expected[:3]))
    expected = sk.precision_recall_fscore_support(label, prediction, average="macro", zero_division=0)
    assert [metrics[f"macro_{name}"] for name in names] == pytest.approx(list(expected[:3]))
    per_class = sk.precision_recall_fscore_support(label, prediction, labels=range(classes), zero_division=0)
    for name, values in zip(names, per_class, strict=False):
        by_class = [metrics[f"{name}/{emotion}"] for emotion in EMOTIONS]
        assert by_class == pytest.approx([*values, *[np.nan] * (8 - classes)], nan_ok=True)


def test_metrics_by_hand() -> None:
    confusion = np.zeros((8, 8))
    confusion[0, :2] = [3, 1]  # of four examples of class 0 one is predicted as class 1
    confusion[1, :2] = [2, 4]
    metrics = metrics_of(confusion)
    assert metrics["accuracy"] == pytest.approx(7 / 10)
    assert metrics["balanced_accuracy"] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert metrics["precision"] == pytest.approx(0.4 * 3 / 5 + 0.6 * 4 / 5)
    assert metrics["recall"] == pytest.approx(0.7)  # weighted recall is accuracy
    assert metrics["f1"] == pytest.approx(0.4 * 2 / 3 + 0.6 * 8 / 11)
    assert metrics["macro_precision"] == pytest.approx((3 / 5 + 4 / 5) / 2)
    assert metrics["macro_recall"] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 8 / 11) / 2)
    assert metrics["recall/happiness"] == pytest.approx(4 / 6)
    assert np.isnan(metrics["f1/contempt"])


def test_a_class_that_is_only_predicted_counts_in_macro_averages_alone() -> None:
    confusion = np.zeros((8, 8))
    confusion[0, :2] = [3, 1]
    metrics = metrics_of(confusion)
    assert metrics["balanced_accuracy"] == metrics["recall"] == pytest.approx(3 / 4)
    assert metrics["macro_recall"] == pytest.approx(3 / 8)
    assert metrics["macro_precision"] == pytest.approx(1 / 2)
    assert metrics["precision/happiness"] == metrics["recall/happiness"] == 0


def test_an_empty_matrix_has_metrics_of_zero() -> None:
    metrics = metrics_of(np.zeros((8, 8)))
    assert {value for name, value in metrics.items() if "/" not in name} == {0.0}
    assert all(np.isnan(value) for name, value in metrics.items() if "/" in name)


def test_many_matrices_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(1)
    confusions = rng.poisson(1.0, (8, 8, 20)).astype(float)
    confusions[3, :, 5] = confusions[:, 3, 5] = 0  # a class is absent from one of them
    metrics = confusion_metrics(confusions)
    for replica in range(20):
        expected = metrics_of(confusions[..., replica])
        assert {name: values[replica] for name, values in metrics.items()} == pytest.approx(expected, nan_ok=True)


def test_ratio_replaces_a_denominator_of_zero() -> None:
    quotient = ratio(np.array([1, 2, 0]), np.array([2, 0, 0]))
    assert quotient.dtype == np.float64
    np.testing.assert_array_equal(quotient, [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(
        ratio(np.arange(4).reshape(2, 2), np.array([0, 2]), otherwise=-1), [[-1, 0.5], [-1, 1.5]]
    )
