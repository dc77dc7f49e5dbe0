import numpy as np
import pytest
from scipy.special import log_softmax

from fer_jax.evaluation import calibration
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.metrics import Predictions


def calibrated_model(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities, and labels drawn from them."""
    log_probs = log_softmax(2 * rng.normal(size=(n, 8)), axis=1)
    label = np.argmax(log_probs + rng.gumbel(size=(n, 8)), axis=1)
    return log_probs, label


def predictions(log_probs: np.ndarray, label: np.ndarray) -> Predictions:
    return Predictions(log_probs, label, np.pad(10 * np.eye(8, dtype=np.int64)[label], ((0, 0), (0, 2))))


def test_reliability_by_hand() -> None:
    p = np.full((5, 8), 0.05)
    p[[0, 1, 2], 0] = 0.65
    p[3:] = 1 / 8
    label = np.array([0, 0, 1, 0, 3])
    result = calibration.reliability(predictions(np.log(p), label), bins=5)
    # 1/8 is in the first of five bins, 0.65 in the fourth
    np.testing.assert_allclose(result.confidence, [1 / 8, np.nan, np.nan, 0.65, np.nan])
    np.testing.assert_allclose(result.accuracy, [1 / 2, np.nan, np.nan, 2 / 3, np.nan])
    assert result.count.tolist() == [2, 0, 0, 3, 0]


def test_a_confidence_on_an_edge_belongs_below_and_one_in_the_last_bin() -> None:
    p = np.zeros((2, 8)) + 1e-12
    p[0, :4] = 0.25
    p[1, 0] = 1
    assert calibration.reliability(predictions(np.log(p), np.zeros(2, int)), bins=4).count.tolist() == [1, 0, 0, 1]


def test_reliability_makes_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    log_probs, label = calibrated_model(rng, 2000)
    overconfident = predictions(calibration.apply_temperature(log_probs, 0.4), label)
    bins = calibration.reliability(overconfident)
    gap = np.nansum(bins.count * np.abs(bins.accuracy - bins.confidence)) / bins.count.sum()
    assert bins.count.sum() == 2000
    assert gap == pytest.approx(metrics_lib.compute(overconfident)["ece"])
    assert gap > 0.1
    assert metrics_lib.compute(predictions(log_probs, label))["ece"] < 0.03  # labels are drawn from these probabilities


@pytest.mark.slow
@pytest.mark.parametrize("distortion", [0.3, 1.0, 2.5])
def test_the_temperature_undoes_a_distortion(distortion: float) -> None:
    log_probs, label = calibrated_model(np.random.default_rng(1), 20_000)
    distorted = calibration.apply_temperature(log_probs, 1 / distortion)
    temperature = calibration.fit_temperature(distorted, label)
    assert temperature == pytest.approx(distortion, rel=0.03)  # 20,000 labels: a standard error of 0.7 %
    restored = calibration.apply_temperature(distorted, temperature)
    np.testing.assert_array_equal(restored.argmax(axis=1), log_probs.argmax(axis=1))
    np.testing.assert_allclose(np.exp(restored).sum(axis=1), 1)

    def nll(t: float) -> float:
        return metrics_lib.compute(predictions(calibration.apply_temperature(distorted, t), label))["nll"]

    assert nll(temperature) < min(nll(temperature * 1.01), nll(temperature / 1.01), nll(1) + 1e-9)


def test_temperature_by_hand() -> None:
    # Two of three right at log odds of 2 log 2 should be log odds of log 2: the temperature is 2.
    log_probs = log_softmax(np.tile([2 * np.log(2), 0] + [-1e3] * 6, (3, 1)), axis=1)
    assert calibration.fit_temperature(log_probs, np.array([0, 0, 1])) == pytest.approx(2, rel=1e-4)
    assert calibration.fit_temperature(log_probs, np.zeros(3, int)) == pytest.approx(
        1 / 20, rel=1e-3
    )  # the most confident allowed
    assert calibration.fit_temperature(log_probs, np.ones(3, int)) == pytest.approx(20, rel=1e-3)
    with pytest.raises(ValueError, match="no images to fit"):
        calibration.fit_temperature(log_probs[:0], np.zeros(0, int))
