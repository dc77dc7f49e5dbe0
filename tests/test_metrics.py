import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from fer_jax.training import metrics


def random_labels(rng: np.random.Generator, n: int, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    label = rng.integers(0, classes, n)
    return label, np.where(rng.random(n) < 0.6, label, rng.integers(0, classes, n))


@pytest.mark.parametrize("classes", [8, 6])  # 6: two classes are neither labelled nor predicted
def test_scores_equal_scikit_learn(classes: int) -> None:
    label, prediction = random_labels(np.random.default_rng(0), 500, classes)
    scores = metrics.scores(sk.confusion_matrix(label, prediction, labels=range(8)))
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(label, prediction))
    expected = sk.precision_recall_fscore_support(label, prediction, average="weighted", zero_division=0)
    assert [scores[name] for name in ("precision", "recall", "f1")] == pytest.approx(list(expected[:3]))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(label, prediction, average="macro", zero_division=0))


def test_scores_by_hand() -> None:
    confusion = np.zeros((8, 8))
    confusion[0, :2] = [3, 1]  # four of class 0, one called class 1
    confusion[1, :2] = [2, 4]
    scores = metrics.scores(confusion)
    assert scores["accuracy"] == pytest.approx(7 / 10)
    assert scores["precision"] == pytest.approx(0.4 * 3 / 5 + 0.6 * 4 / 5)
    assert scores["recall"] == pytest.approx(0.7)  # weighted recall is accuracy
    assert scores["f1"] == pytest.approx(0.4 * 2 / 3 + 0.6 * 8 / 11)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 8 / 11) / 2)


def test_merged_batches_equal_one_batch_and_masked_rows_count_nothing() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(10, 8)).astype(np.float32)
    target = rng.dirichlet(np.ones(8), 10).astype(np.float32)
    loss = rng.random(10).astype(np.float32)
    whole = metrics.count_batch(loss, logits, target, np.ones(10, np.float32))

    first = metrics.count_batch(loss[:6], logits[:6], target[:6], np.ones(6, np.float32))
    mask = np.array([1, 1, 1, 1, 0, 0], np.float32)
    padded = np.concatenate([loss[6:], [np.nan, np.inf]])
    rest = metrics.count_batch(padded, np.pad(logits[6:], ((0, 2), (0, 0))), np.pad(target[6:], ((0, 2), (0, 0))), mask)
    merged = metrics.merge(first, rest)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(merged), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    expected = sk.confusion_matrix(target.argmax(1), logits.argmax(1), labels=range(8))
    np.testing.assert_array_equal(merged.confusion, expected)
    assert metrics.summary(merged)["loss"] == pytest.approx(loss.mean(), rel=1e-6)


def test_merge_keeps_the_first_bad_step() -> None:
    bad = metrics.zeros()._replace(bad_step=jnp.int32(7))
    worse = metrics.zeros()._replace(bad_step=jnp.int32(5))
    assert int(metrics.merge(metrics.merge(metrics.zeros(), bad), worse).bad_step) == 5
    assert int(metrics.zeros().bad_step) == metrics.NEVER
