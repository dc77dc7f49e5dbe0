from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import log_softmax
from sklearn import metrics as sk

from fer_jax.evaluation import comparison, intervals
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.metrics import Predictions


def model(label: np.ndarray, prediction: np.ndarray, confidence: np.ndarray | float = 0.6) -> Predictions:
    """Predictions for images on which all ten annotators agree."""
    p = np.eye(8)[prediction]
    confidence = np.broadcast_to(confidence, len(label))[:, None]
    p = np.where(p > 0, confidence, (1 - confidence) / 7)
    return Predictions(np.log(p), label, np.pad(10 * np.eye(8, dtype=np.int64)[label], ((0, 0), (0, 2))))


def random_models(rng: np.random.Generator, n: int) -> tuple[Predictions, Predictions]:
    """Two models whose errors are mostly on the same images."""
    label = rng.integers(0, 8, n)
    hard = rng.random(n) < 0.3
    a, b = (np.where(hard | (rng.random(n) < wrong), rng.integers(0, 8, n), label) for wrong in (0.05, 0.1))
    return model(label, a), model(label, b)


def test_mcnemar_by_hand() -> None:
    label = np.zeros(30, int)
    a, b = np.zeros(30, int), np.zeros(30, int)
    b[:8] = 1  # a alone is correct
    a[8:10] = 1  # b alone is correct
    a[10:13] = b[10:13] = 2  # neither is
    result = comparison.compare(model(label, a), model(label, b))
    assert (result.only_a, result.only_b) == (8, 2)
    assert result.mcnemar_p == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # at most 2 heads or tails of 10 coins
    assert result.accuracy.value == pytest.approx((8 - 2) / 30)
    assert result.accuracy.low < result.accuracy.value < result.accuracy.high
    swapped = comparison.compare(model(label, b), model(label, a))
    assert swapped.accuracy == pytest.approx((-result.accuracy.value, -result.accuracy.high, -result.accuracy.low))
    assert swapped.mcnemar_p == result.mcnemar_p


def test_difference_intervals_are_those_of_a_slow_paired_bootstrap() -> None:
    a, b = random_models(np.random.default_rng(0), 80)
    result = comparison.compare(a, b, seed=3, replicas=120)

    def difference(rows: np.ndarray) -> list[float]:
        label = a.label[rows]
        f1 = [sk.f1_score(label, m.prediction[rows], average="macro", zero_division=0) for m in (a, b)]
        accuracy = [sk.accuracy_score(label, m.prediction[rows]) for m in (a, b)]
        return [accuracy[0] - accuracy[1], f1[0] - f1[1]]

    weights = np.concatenate(list(intervals.bootstrap_weights(80, 3, 120)), axis=1).astype(int)
    slow = np.percentile([difference(np.repeat(np.arange(80), w)) for w in weights.T], [2.5, 97.5], axis=0)
    assert [result.accuracy.value, result.macro_f1.value] == pytest.approx(difference(np.arange(80)))
    np.testing.assert_allclose([result.accuracy[1:], result.macro_f1[1:]], slow.T, atol=1e-12)


def test_a_paired_interval_is_narrower_than_that_of_two_separate_models() -> None:
    a, b = random_models(np.random.default_rng(1), 1000)
    paired = comparison.compare(a, b).accuracy
    separate = [metrics_lib.with_intervals(m, replicas=300)["accuracy"] for m in (a, b)]
    variance = sum((i.high - i.low) ** 2 for i in separate)
    assert paired.high - paired.low < 0.8 * variance**0.5
    # The variance of a difference of paired accuracies, by its formula.
    expected = 2 * 1.96 * np.std(a.correct.astype(float) - b.correct) / 1000**0.5
    assert paired.high - paired.low == pytest.approx(expected, rel=0.1)


def test_a_model_does_not_differ_from_itself() -> None:
    a, _ = random_models(np.random.default_rng(2), 100)
    assert comparison.compare(a, a, replicas=50) == ((0, 0, 0), (0, 0, 0), 0, 0, 1)


def test_different_images_are_not_compared() -> None:
    a, b = random_models(np.random.default_rng(3), 20)
    with pytest.raises(ValueError, match="same images"):
        comparison.compare(a, metrics_lib.take(b, np.arange(19)))
    with pytest.raises(ValueError, match="same images"):
        comparison.compare(a, metrics_lib.take(b, np.arange(20)[::-1]))
    with pytest.raises(ValueError, match="same images"):
        comparison.compare(a, b._replace(votes=b.votes // 2))  # the labels are equal
    with pytest.raises(ValueError, match="no images"):
        comparison.compare(metrics_lib.take(a, np.arange(0)), metrics_lib.take(b, np.arange(0)))


def test_slices_by_hand() -> None:
    prediction = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    predictions = model(np.zeros(8, int), prediction)
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    parts = comparison.slices(predictions, values)
    assert [(s.low, s.high, s.count, s.accuracy.value) for s in parts] == [
        (1, 2, 2, 1),
        (3, 4, 2, 0.5),
        (5, 6, 2, 0.5),
        (7, 8, 2, 0),
    ]
    # Wilson 1927: (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    z2 = 1.959964**2
    centre, half = (0.5 + z2 / 4) / (1 + z2 / 2), (z2 * (0.25 / 2 + z2 / 16)) ** 0.5 / (1 + z2 / 2)
    assert parts[1].accuracy[1:] == pytest.approx((centre - half, centre + half), rel=1e-5)
    assert comparison.slices(predictions, values[::-1])[0].accuracy.value == 0
    assert [s.count for s in comparison.slices(predictions, values, parts=1)] == [8]


@pytest.mark.parametrize("distinct", [1, 2, 3, 5, 1000])
def test_every_image_is_in_one_slice_and_ties_are_not_split(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    a, _ = random_models(rng, 503)
    values = rng.integers(0, distinct, 503) / 10
    for parts in (comparison.slices(a, values), comparison.slices_by_value(a, values)):
        assert sum(s.count for s in parts) == 503
        assert sum(s.count * s.accuracy.value for s in parts) == pytest.approx(a.correct.sum())
        assert all(s.high < t.low for s, t in pairwise(parts))
        for s in parts:
            inside = (values >= s.low) & (values <= s.high)
            assert inside.sum() == s.count
            assert a.correct[inside].mean() == pytest.approx(s.accuracy.value)
    assert len(comparison.slices(a, values)) <= 4
    if distinct == 1000:
        assert all(abs(s.count - 503 / 4) < 5 for s in comparison.slices(a, values))
    by_value = comparison.slices_by_value(a, values)
    assert [s.low for s in by_value] == [s.high for s in by_value] == sorted(set(values))
    assert comparison.slices(metrics_lib.take(a, np.arange(0)), values[:0]) == []


def test_image_properties_by_hand() -> None:
    images = np.zeros((4, 48, 48), np.uint8)
    images[0] = 77
    images[1, :, 24:] = 255
    images[2, 20, 30] = 255
    images[3] = np.indices((48, 48)).sum(axis=0) % 2 * 255
    assert comparison.brightness(images) == pytest.approx([77, 127.5, 255 / 48**2, 127.5])
    p = 1 / 48**2
    assert comparison.contrast(images) == pytest.approx([0, 127.5, 255 * (p * (1 - p)) ** 0.5, 127.5])
    # An edge has a column of 255 and one of -255; a point -4 x 255 with 255 around; a chequerboard +-4 x 255.
    assert comparison.sharpness(images) == pytest.approx([0, 2 / 46 * 255**2, 20 / 46**2 * 255**2, 16 * 255**2])


def test_sharpness_is_the_variance_of_scipys_laplacian() -> None:
    images = np.random.default_rng(5).integers(0, 256, (6, 48, 48), dtype=np.uint8)
    expected = [ndimage.laplace(image.astype(float))[1:-1, 1:-1].var() for image in images]
    np.testing.assert_allclose(comparison.sharpness(images), expected)
    blurred = ndimage.gaussian_filter(images, (0, 1, 1))
    assert (comparison.sharpness(blurred) < comparison.sharpness(images)).all()


def test_annotator_agreement_is_the_labels_fraction_of_the_votes() -> None:
    votes = np.zeros((4, 10), int)
    votes[0, 3] = 10
    votes[1, [0, 8]] = 4, 6  # unknown leads
    votes[2] = 1
    votes[3, [0, 1]] = 5, 4  # nine votes
    predictions = Predictions(np.full((4, 8), -np.log(8)), np.array([3, 0, 7, 0]), votes)
    assert comparison.annotator_agreement(predictions).tolist() == [1.0, 0.4, 0.1, 0.6]


def test_confident_errors_and_doubtful_correct_predictions() -> None:
    prediction = np.array([0, 1, 0, 2, 0, 3])
    confidence = np.array([0.5, 0.6, 0.3, 0.9, 0.4, 0.6])
    predictions = model(np.zeros(6, int), prediction, confidence)
    assert comparison.most_confident_errors(predictions, 2).tolist() == [3, 1]
    assert comparison.most_confident_errors(predictions, 9).tolist() == [3, 1, 5]
    assert comparison.least_confident_correct(predictions, 2).tolist() == [2, 4]
    perfect = predictions._replace(log_probabilities=log_softmax(np.eye(8)[[0] * 6], axis=1))
    assert comparison.most_confident_errors(perfect, 3).tolist() == []
