import jax
import numpy as np
import pytest
from scipy.special import softmax

from fer_jax import labels, losses

LOGITS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


def test_cross_entropy_with_a_distribution() -> None:
    target = np.random.default_rng(1).dirichlet(np.ones(8), 5).astype(np.float32)
    expected = -(target * np.log(softmax(LOGITS, axis=1))).sum(axis=1)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, target), expected, rtol=1e-5)


def test_multi_target_is_minus_log_of_the_largest_marked_probability() -> None:
    votes = np.array([[5, 0, 0, 5, 0, 0, 0, 0, 0, 0]] * 5)
    target, _ = labels.targets(votes, "multi_target")
    p = softmax(LOGITS, axis=1)
    expected = -np.log(np.max(p * target, axis=1))
    np.testing.assert_allclose(losses.multi_target(LOGITS, target), expected, rtol=1e-5)
    # either marked class alone is as good as right
    sure = np.eye(8, dtype=np.float32)[[0, 3, 1]] * 20
    loss = losses.multi_target(sure, target[:3])
    assert float(loss[0]) == pytest.approx(0, abs=1e-3)
    assert float(loss[1]) == pytest.approx(0, abs=1e-3)
    assert float(loss[2]) > 6  # -log 0.001: an unmarked class


@pytest.mark.parametrize("name", losses.LOSSES)
def test_empty_rows_and_sure_predictions_stay_finite(name: str) -> None:
    logits = np.array([[1e4] + [0] * 7, [0] * 8], np.float32)
    target = np.zeros((2, 8), np.float32)
    value, gradient = jax.value_and_grad(lambda x: losses.LOSSES[name](x, target).sum())(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_every_label_mode_names_a_loss() -> None:
    assert {mode.loss for mode in labels.MODES.values()} == set(losses.LOSSES)
