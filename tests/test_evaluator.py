from math import log

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import log_softmax

from fer_jax import inference
from fer_jax.core.errors import UserError
from fer_jax.data import digests
from fer_jax.data.folders import Split
from fer_jax.data.labels import EMOTIONS, VOTES
from fer_jax.evaluation import evaluator
from fer_jax.evaluation.evaluator import Model
from fer_jax.evaluation.result import SUBSETS, Evaluation

NEUTRAL, HAPPINESS, SURPRISE, SADNESS, ANGER = range(5)

# One row an image: its votes, its most voted emotion, and True if majority and clean keep it; argmax keeps all.
IMAGES = [
    ({"happiness": 10}, HAPPINESS, True, True),
    ({"happiness": 8, "neutral": 2}, HAPPINESS, True, True),
    ({"neutral": 6, "sadness": 4}, NEUTRAL, True, True),
    ({"sadness": 7, "neutral": 2, "unknown": 1}, SADNESS, True, False),
    ({"surprise": 5, "fear": 5}, SURPRISE, False, True),
    ({"anger": 6, "unknown": 4}, ANGER, True, False),
    ({"unknown": 8, "neutral": 2}, NEUTRAL, False, False),
    ({"NF": 10}, NEUTRAL, False, False),
]
LABEL = np.array([label for _, label, _, _ in IMAGES])
KEPT = {"majority": [0, 1, 2, 3, 5], "clean": [0, 1, 2, 4], "argmax": list(range(8))}
ALL = {"all": np.ones(8, bool)}


def split_of(votes: list[dict[str, int]], seed: int = 0) -> Split:
    rows = np.array([[counts.get(name, 0) for name in VOTES] for counts in votes], np.int32)
    images = photographs(len(rows), seed)
    return Split(images, rows, np.array([f"fer{i:07}.png" for i in range(len(rows))]), digests.of_images(images))


def photographs(count: int, seed: int) -> np.ndarray:
    """Soft random images: unlike each other, and like themselves after a shift by a pixel."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(count, 48, 48)), (0, 3, 3))
    low, high = noise.min(axis=(1, 2), keepdims=True), noise.max(axis=(1, 2), keepdims=True)
    return np.round(40 + 170 * (noise - low) / (high - low)).astype(np.uint8)


SPLIT = split_of([votes for votes, _, _, _ in IMAGES])


def oracle(label: np.ndarray = LABEL) -> np.ndarray:
    """A model that predicts the label."""
    return log_softmax(100.0 * np.eye(8)[label], axis=1)


def always_happiness(count: int) -> np.ndarray:
    p = np.full(8, 0.01)
    p[HAPPINESS] = 0.93
    return np.log(np.tile(p, (count, 1)))


def evaluated(
    log_probabilities: np.ndarray,
    subsets: dict[str, np.ndarray] = ALL,
    main_protocol: str = "majority",
    temperature: float = 1.0,
) -> Evaluation:
    return evaluator.evaluate_predictions(
        "model", log_probabilities, "valid", SPLIT, subsets, main_protocol, temperature
    )


def values(result: Evaluation, protocol: str = "majority", subset: str = "all") -> dict[str, float]:
    return {name: interval.value for name, interval in result.metrics[protocol][subset].items()}


def test_every_protocol_keeps_its_images() -> None:
    result = evaluated(oracle(), main_protocol="clean")
    for column, protocol in ((2, "majority"), (3, "clean")):
        assert KEPT[protocol] == [row for row, image in enumerate(IMAGES) if image[column]]
    assert result.counts == {protocol: {"all": len(rows)} for protocol, rows in KEPT.items()}
    for protocol, rows in KEPT.items():
        assert result.predictions[protocol].label.tolist() == LABEL[rows].tolist()
        np.testing.assert_array_equal(result.predictions[protocol].votes, SPLIT.votes[rows])
    assert result.rows.tolist() == KEPT["clean"]
    assert (result.name, result.split, result.main_protocol) == ("model", "valid", "clean")


def test_the_oracle_is_correct_and_has_the_votes_of_the_label() -> None:
    result = evaluated(oracle())
    agreement = {"majority": 3.7 / 5, "clean": 2.9 / 4, "argmax": 4.4 / 8}  # fractions of ten votes, summed by hand
    for protocol, fraction in agreement.items():
        got = values(result, protocol)
        for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "macro_f1", "top2_accuracy"):
            assert got[name] == 1, name
        assert got["roc_auc"] == 1
        assert [got[name] for name in ("nll", "brier", "ece")] == pytest.approx([0, 0, 0], abs=1e-12)
        assert got["agreement"] == got["label_agreement"] == pytest.approx(fraction)
        assert np.isnan(got["f1/contempt"])


def test_the_uniform_model() -> None:
    result = evaluated(np.full((8, 8), -log(8)))
    expected = {
        "accuracy": 1 / 5,  # it predicts neutral, the first of the tie
        "balanced_accuracy": 1 / 4,
        "f1": 1 / 3 / 5,
        "macro_f1": 1 / 3 / 4,
        "top2_accuracy": 3 / 5,
        "roc_auc": 0.5,
        "nll": log(8),
        "brier": 7 / 8,
        "ece": 1 / 5 - 1 / 8,
        "agreement": (0.2 + 0.6 + 0.2) / 5,
        "label_agreement": 3.7 / 5,
    }
    got = values(result)
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert values(result, "clean")["accuracy"] == 1 / 4
    assert values(result, "argmax")["accuracy"] == 3 / 8
    assert result.metrics["majority"]["all"]["nll"] == pytest.approx((log(8),) * 3)


def test_the_model_that_always_predicts_happiness() -> None:
    got = values(evaluated(always_happiness(8)))
    expected = {
        "accuracy": 2 / 5,
        "balanced_accuracy": 1 / 4,
        "precision": (2 / 5) ** 2,
        "macro_precision": 2 / 5 / 4,
        "macro_recall": 1 / 4,
        "macro_f1": 4 / 7 / 4,
        "roc_auc": 0.5,
        "nll": -(2 * log(0.93) + 3 * log(0.01)) / 5,
        "ece": 0.93 - 2 / 5,
        "agreement": 1.8 / 5,
        "recall/happiness": 1,
        "precision/happiness": 2 / 5,
        "recall/anger": 0,
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected)


def test_intervals_contain_the_value_and_narrow_with_more_images() -> None:
    many = split_of([votes for votes, _, _, _ in IMAGES] * 20)
    few = evaluated(always_happiness(8)).metrics["majority"]["all"]["accuracy"]
    result = evaluator.evaluate_predictions(
        "model", always_happiness(160), "test", many, {"all": np.ones(160, bool)}, "majority", temperature=1
    )
    accuracy = result.metrics["majority"]["all"]["accuracy"]
    assert accuracy.value == few.value == 2 / 5
    assert few.low < accuracy.low < accuracy.value < accuracy.high < few.high
    spread = (2 / 5 * 3 / 5 / 100) ** 0.5  # of the accuracy on 100 drawn images
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_duplicates_of_other_splits_are_left_out_and_counted() -> None:
    train = photographs(6, seed=1)
    images = SPLIT.images.copy()
    images[0] = train[3]  # the same pixels
    images[4] = train[0]
    images[1] = train[1, :, ::-1]  # mirrored
    images[5, 1:] = train[2, :-1]  # moved down by a pixel
    images[7] = np.round(0.7 * train[5] + 20)  # in another light
    valid = split_of([{"fear": 10}], seed=2)
    images[2] = valid.images[0]  # from the second of the other splits
    split = SPLIT._replace(images=images, digests=digests.of_images(images))
    others = Split(train, np.zeros((6, 10), np.int32), np.array(["a.png"] * 6), digests.of_images(train))

    subsets = evaluator.subset_masks(split, [others])
    assert list(subsets) == ["all", "without_exact_duplicates", "without_duplicates"] == list(SUBSETS)
    assert np.flatnonzero(~subsets["all"]).tolist() == []
    assert np.flatnonzero(~subsets["without_exact_duplicates"]).tolist() == [0, 4]
    assert np.flatnonzero(~subsets["without_duplicates"]).tolist() == [0, 1, 4, 5, 7]
    both = evaluator.subset_masks(split, [others, valid])
    assert np.flatnonzero(~both["without_exact_duplicates"]).tolist() == [0, 2, 4]
    assert np.flatnonzero(~both["without_duplicates"]).tolist() == [0, 1, 2, 4, 5, 7]
    assert list(evaluator.subset_masks(split, [])) == ["all"]

    # A model that has memorised the duplicates, and predicts fear for all other images.
    fear = EMOTIONS.index("fear")
    result = evaluated(oracle(np.where(subsets["without_duplicates"], fear, LABEL)), subsets)
    assert result.counts == {
        "majority": {"all": 5, "without_exact_duplicates": 4, "without_duplicates": 2},
        "clean": {"all": 4, "without_exact_duplicates": 2, "without_duplicates": 1},
        "argmax": {"all": 8, "without_exact_duplicates": 6, "without_duplicates": 3},
    }
    accuracy = {p: [values(result, p, subset)["accuracy"] for subset in subsets] for p in result.counts}
    assert accuracy == {"majority": [3 / 5, 2 / 4, 0], "clean": [3 / 4, 1 / 2, 0], "argmax": [5 / 8, 3 / 6, 0]}


@pytest.mark.filterwarnings("error")
def test_an_empty_subset_has_undefined_metrics() -> None:
    # The subset is empty under majority and clean; one image of argmax is left.
    subsets = {**ALL, "without_exact_duplicates": np.arange(8) == 6}
    result = evaluated(oracle(), subsets)
    counts = {p: {"all": len(rows), "without_exact_duplicates": int(6 in rows)} for p, rows in KEPT.items()}
    assert result.counts == counts
    assert values(result, "argmax", "without_exact_duplicates")["accuracy"] == 1
    for protocol in ("majority", "clean"):
        assert set(result.metrics[protocol]["without_exact_duplicates"]) == set(result.metrics[protocol]["all"])
        assert np.isnan(list(result.metrics[protocol]["without_exact_duplicates"].values())).all()


def test_a_protocol_that_keeps_nothing_gets_one_line() -> None:
    doubtful = split_of([{"surprise": 5, "fear": 5}, {"unknown": 10}])
    log_probs, subsets = always_happiness(2), {"all": np.ones(2, bool)}
    with pytest.raises(UserError, match=r"^no image of valid is left under protocol majority; .* --protocol$"):
        evaluator.fit_temperature(log_probs, doubtful, "majority")
    with pytest.raises(UserError, match="no image of test is left under protocol majority"):
        evaluator.evaluate_predictions("model", log_probs, "test", doubtful, subsets, "majority", 1.0)
    # Only the main protocol has to keep an image.
    result = evaluator.evaluate_predictions("model", log_probs, "test", doubtful, subsets, "clean", 1.0)
    assert result.counts["majority"] == {"all": 0}
    assert np.isnan(result.metrics["majority"]["all"]["accuracy"]).all()


def test_the_temperature_makes_confidence_equal_accuracy() -> None:
    # Happiness is correct 2 times of 5, so its probability must become 2/5, and that of the others 3/35.
    log_probs = always_happiness(8)
    temperature = evaluator.fit_temperature(log_probs, SPLIT, "majority")
    assert temperature == pytest.approx(log(93) / log(2 / 5 / (3 / 35)), rel=1e-3)
    assert evaluator.fit_temperature(log_probs, SPLIT, "clean") != pytest.approx(temperature, rel=0.1)  # 2 of 4

    result = evaluated(log_probs, temperature=temperature)
    assert result.temperature == temperature
    assert result.main_metrics is result.metrics["majority"]["all"]
    assert result.calibrated["nll"].value == pytest.approx(-(2 * log(2 / 5) + 3 * log(3 / 35)) / 5, rel=1e-4)
    assert result.calibrated["ece"].value == pytest.approx(0, abs=1e-3)
    assert result.calibrated["nll"].value < result.main_metrics["nll"].value
    assert result.calibrated["accuracy"] == result.main_metrics["accuracy"]


def test_average_is_the_mean_probability() -> None:
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(8), (3, 6))
    average = inference.average(list(np.log(p)))
    np.testing.assert_allclose(np.exp(average), p.mean(axis=0))
    np.testing.assert_allclose(inference.average([np.log(p[0])]), np.log(p[0]))
    confident = log_softmax(1e4 * np.eye(8, dtype=np.float32)[:2], axis=1)  # probabilities that underflow
    average = inference.average([confident[:1], confident[1:]])
    np.testing.assert_allclose(average[0, :2], -np.log(2))
    assert np.isfinite(average).all()
    with pytest.raises(ValueError, match="shape"):
        inference.average([confident, confident[:1]])


def test_the_ensemble_averages_both_splits() -> None:
    models = [Model("model", log_probs, log_probs[:3]) for log_probs in (oracle(), always_happiness(8))]
    ensemble = evaluator.ensemble(models, flip=True)
    mean = (np.exp(oracle()) + np.exp(always_happiness(8))) / 2
    assert ensemble.name == "ensemble of 2, flip"
    np.testing.assert_allclose(np.exp(ensemble.log_probs), mean)
    np.testing.assert_allclose(np.exp(ensemble.valid_log_probs), mean[:3])
