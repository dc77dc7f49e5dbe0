import jax
import numpy as np
import pytest
from scipy.special import softmax

from fer_jax.data import labels
from fer_jax.training import losses

LOGITS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


def test_cross_entropy_with_a_distribution() -> None:
    target = np.random.default_rng(1).dirichlet(np.ones(8), 5).astype(np.float32)
    expected = -(target * np.log(softmax(LOGITS, axis=1))).sum(axis=1)
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, target), expected, rtol=1e-5)


def test_multi_target_is_minus_log_of_the_largest_probability_in_the_target() -> None:
    votes = np.array([[5, 0, 0, 5, 0, 0, 0, 0, 0, 0]] * 5)
    target, _ = labels.targets(votes, "multi_target")
    p = softmax(LOGITS, axis=1)
    expected = -np.log(np.max(p * target, axis=1))
    np.testing.assert_allclose(losses.multi_target(LOGITS, target), expected, rtol=1e-5)
    # Either class of the target alone is right.
    logits = np.eye(8, dtype=np.float32)[[0, 3, 1]] * 20
    loss = losses.multi_target(logits, target[:3])
    assert float(loss[0]) == pytest.approx(0, abs=1e-3)
    assert float(loss[1]) == pytest.approx(0, abs=1e-3)
    assert float(loss[2]) > 6  # -log 0.001: a class outside the target


def test_logit_adjusted_loss_by_hand() -> None:
    """-log p y / (p . prior^tau): the adjusted softmax weighs each class by its prior (Menon et al., eq. 10)."""
    prior = np.array([0.35, 0.29, 0.13, 0.12, 0.08, 0.005, 0.02, 0.005])
    target = np.eye(8, dtype=np.float32)[[0, 5, 7, 1, 3]]
    p = softmax(LOGITS, axis=1) * prior**0.5
    expected = -np.log((p * target).sum(axis=1) / p.sum(axis=1))
    adjusted = losses.logit_adjusted(losses.cross_entropy, prior, 0.5)
    np.testing.assert_allclose(adjusted(LOGITS, target), expected, rtol=1e-5)
    scaled = losses.logit_adjusted(losses.cross_entropy, 30 * prior, 0.5)
    np.testing.assert_allclose(scaled(LOGITS, target), expected, rtol=1e-5)
    assert losses.logit_adjusted(losses.cross_entropy, prior, 0) is losses.cross_entropy


@pytest.mark.parametrize("name", losses.LOSSES)
def test_logit_adjustment_stays_finite_with_a_class_without_images(name: str) -> None:
    prior = np.array([0.5, 0.5, 0, 0, 0, 0, 0, 0])
    adjusted = losses.logit_adjusted(losses.LOSSES[name], prior, 1)
    value, gradient = jax.value_and_grad(lambda x: adjusted(x, np.eye(8, dtype=np.float32)[:5]).sum())(LOGITS)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_padded_rows_and_certain_predictions_have_finite_losses(name: str) -> None:
    logits = np.array([[1e4] + [0] * 7, [0] * 8], np.float32)
    target = np.zeros((2, 8), np.float32)
    value, gradient = jax.value_and_grad(lambda x: losses.LOSSES[name](x, target).sum())(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_every_label_mode_names_a_loss() -> None:
    assert {mode.loss for mode in labels.MODES.values()} == set(losses.LOSSES)
