import numpy as np
import pytest
from scipy.stats import binom
from test_evaluation_metrics import always, random_predictions

from fer_jax.evaluation import intervals
from fer_jax.evaluation import metrics as metrics_lib


def test_intervals_are_percentiles_over_all_replicas_that_define_the_metric() -> None:
    predictions = random_predictions(np.random.default_rng(5), 30, tied=True)
    replicas = intervals.BLOCK + 5
    weights = np.concatenate(list(intervals.bootstrap_weights(30, 7, replicas)), axis=1)
    assert weights.shape == (30, replicas)
    assert set(weights.sum(axis=0)) == {30}
    assert len(np.unique(weights, axis=1).T) == replicas
    replicates = metrics_lib.weighted_metrics(predictions, weights)
    assert np.isnan(replicates["roc_auc/contempt"]).any()  # a replica without the class does not define it
    assert not np.isnan(replicates["roc_auc/contempt"]).all()
    got = metrics_lib.with_intervals(predictions, seed=7, replicas=replicas)
    assert list(got) == list(metrics_lib.compute(predictions))
    assert {name: value for name, (value, _, _) in got.items()} == metrics_lib.compute(predictions)
    for name, (_, low, high) in got.items():
        assert [low, high] == pytest.approx(np.nanpercentile(replicates[name], [2.5, 97.5])), name


def test_many_images_have_fewer_replicas_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [block.shape[1] for block in intervals.bootstrap_weights(100_000, 0, 101)] == [100, 1]
    monkeypatch.setattr(intervals, "LARGEST", 70)
    for count, sizes in ((30, [2, 2, 1]), (100, [1] * 5)):
        blocks = list(intervals.bootstrap_weights(count, 7, 5))
        assert [block.shape for block in blocks] == [(count, size) for size in sizes]
        weights = np.concatenate(blocks, axis=1)
        assert set(weights.sum(axis=0)) == {count}
        assert len(np.unique(weights, axis=1).T) == 5


def test_interval_of_accuracy_has_the_width_that_chance_gives() -> None:
    predictions = random_predictions(np.random.default_rng(6), 400)
    accuracy = metrics_lib.with_intervals(predictions, replicas=4000)["accuracy"]
    assert accuracy.value == predictions.correct.mean()
    # The drawn number of correct predictions is binomial; at 4,000 replicas a percentile is an image or two off.
    expected = binom.ppf([0.025, 0.975], 400, accuracy.value) / 400
    assert [accuracy.low, accuracy.high] == pytest.approx(expected, abs=2.5 / 400)
    again, other = (metrics_lib.with_intervals(predictions, seed, replicas=200)["nll"] for seed in (0, 1))
    assert again == metrics_lib.with_intervals(predictions, 0, replicas=200)["nll"]
    assert again.low != other.low


@pytest.mark.filterwarnings("error")
def test_undefined_metrics_have_undefined_intervals() -> None:
    votes = np.zeros((20, 10), int)
    votes[:, 1] = 10
    got = metrics_lib.with_intervals(always({1: 0.93}, votes), replicas=20)
    assert got["accuracy"] == (1, 1, 1)
    assert np.isnan(got["roc_auc"]).all()
    assert np.isnan(got["recall/fear"]).all()


def test_the_interval_is_the_middle_of_the_defined_replicates() -> None:
    replicates = np.concatenate([np.arange(101.0), [np.nan] * 9])
    assert intervals.interval(40.0, replicates) == (40, 2.5, 97.5)
    np.testing.assert_array_equal(intervals.interval(1.0, np.full(3, np.nan)), (1, np.nan, np.nan))
