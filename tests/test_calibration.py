import numpy as np
import pytest
from scipy.special import log_softmax

from fer_jax.evaluation import calibration
from fer_jax.evaluation import metrics as metrics_lib


def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities that mean what they say, and labels drawn from them."""
    logs = log_softmax(2 * rng.normal(size=(n, 8)), axis=1)
    label = np.argmax(logs + rng.gumbel(size=(n, 8)), axis=1)
    return logs, label


def judged(logs: np.ndarray, label: np.ndarray) -> metrics_lib.Predictions:
    return metrics_lib.Predictions(logs, label, np.pad(10 * np.eye(8, dtype=np.int64)[label], ((0, 0), (0, 2))))


def test_reliability_by_hand() -> None:
    p = np.full((5, 8), 0.05)
    p[[0, 1, 2], 0] = 0.65
    p[3:] = 1 / 8
    label = np.array([0, 0, 1, 0, 3])
    got = calibration.reliability(judged(np.log(p), label), bins=5)
    # 1/8 is in the first of five bins, 0.65 in the fourth
    np.testing.assert_allclose(got.confidence, [1 / 8, np.nan, np.nan, 0.65, np.nan])
    np.testing.assert_allclose(got.accuracy, [1 / 2, np.nan, np.nan, 2 / 3, np.nan])
    assert got.count.tolist() == [2, 0, 0, 3, 0]


def test_a_confidence_on_an_edge_belongs_below_and_one_in_the_last_bin() -> None:
    p = np.zeros((2, 8)) + 1e-12
    p[0, :4] = 0.25
    p[1, 0] = 1
    assert calibration.reliability(judged(np.log(p), np.zeros(2, int)), bins=4).count.tolist() == [1, 0, 0, 1]


def test_reliability_makes_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    logs, label = drawn(rng, 2000)
    overconfident = judged(calibration.apply_temperature(logs, 0.4), label)
    bins = calibration.reliability(overconfident)
    gap = np.nansum(bins.count * np.abs(bins.accuracy - bins.confidence)) / bins.count.sum()
    assert bins.count.sum() == 2000
    assert gap == pytest.approx(metrics_lib.compute(overconfident)["ece"])
    assert gap > 0.1
    assert metrics_lib.compute(judged(logs, label))["ece"] < 0.03  # labels are drawn from these probabilities


@pytest.mark.parametrize("distortion", [0.3, 1.0, 2.5])
def test_temperature_undoes_a_distortion(distortion: float) -> None:
    logs, label = drawn(np.random.default_rng(1), 20_000)
    distorted = calibration.apply_temperature(logs, 1 / distortion)
    temperature = calibration.fit_temperature(distorted, label)
    assert temperature == pytest.approx(distortion, rel=0.03)  # 20,000 labels: a standard error of 0.7 %
    mended = calibration.apply_temperature(distorted, temperature)
    np.testing.assert_array_equal(mended.argmax(axis=1), logs.argmax(axis=1))
    np.testing.assert_allclose(np.exp(mended).sum(axis=1), 1)

    def nll(t: float) -> float:
        return metrics_lib.compute(judged(calibration.apply_temperature(distorted, t), label))["nll"]

    assert nll(temperature) < min(nll(temperature * 1.01), nll(temperature / 1.01), nll(1) + 1e-9)


def test_temperature_by_hand() -> None:
    # Two of three right at log odds of 2 log 2 should be log odds of log 2: the temperature is 2.
    logs = log_softmax(np.tile([2 * np.log(2), 0] + [-1e3] * 6, (3, 1)), axis=1)
    assert calibration.fit_temperature(logs, np.array([0, 0, 1])) == pytest.approx(2, rel=1e-4)
    assert calibration.fit_temperature(logs, np.zeros(3, int)) == pytest.approx(1 / 20, rel=1e-3)  # never too sure
    assert calibration.fit_temperature(logs, np.ones(3, int)) == pytest.approx(20, rel=1e-3)
    with pytest.raises(ValueError, match="no pictures"):
        calibration.fit_temperature(logs[:0], np.zeros(0, int))


def test_average_is_the_mean_probability() -> None:
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(8), (3, 6))
    got = calibration.average(list(np.log(p)))
    np.testing.assert_allclose(np.exp(got), p.mean(axis=0))
    np.testing.assert_allclose(calibration.average([np.log(p[0])]), np.log(p[0]))
    sure = log_softmax(1e4 * np.eye(8, dtype=np.float32)[:2], axis=1)  # probabilities that underflow
    got = calibration.average([sure[:1], sure[1:]])
    np.testing.assert_allclose(got[0, :2], -np.log(2))
    assert np.isfinite(got).all()
    with pytest.raises(ValueError, match="shape"):
        calibration.average([sure, sure[:1]])
