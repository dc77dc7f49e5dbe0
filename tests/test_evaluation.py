from math import log

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import log_softmax

from fer_jax.core.cli import UserError
from fer_jax.data.folders import Split
from fer_jax.data.labels import EMOTIONS, VOTES
from fer_jax.evaluation import evaluator
from fer_jax.evaluation.result import Evaluation, evaluate

NEUTRAL, HAPPINESS, SURPRISE, SADNESS, ANGER = range(5)

# One row a picture: its votes, its most voted emotion, and whether majority and clean keep it; argmax keeps all.
PICTURES = [
    ({"happiness": 10}, HAPPINESS, True, True),
    ({"happiness": 8, "neutral": 2}, HAPPINESS, True, True),
    ({"neutral": 6, "sadness": 4}, NEUTRAL, True, True),
    ({"sadness": 7, "neutral": 2, "unknown": 1}, SADNESS, True, False),
    ({"surprise": 5, "fear": 5}, SURPRISE, False, True),
    ({"anger": 6, "unknown": 4}, ANGER, True, False),
    ({"unknown": 8, "neutral": 2}, NEUTRAL, False, False),
    ({"NF": 10}, NEUTRAL, False, False),
]
LABEL = np.array([label for _, label, _, _ in PICTURES])
KEPT = {"majority": [0, 1, 2, 3, 5], "clean": [0, 1, 2, 4], "argmax": list(range(8))}
ALL = {"all": np.ones(8, bool)}


def split_of(votes: list[dict[str, int]], seed: int = 0) -> Split:
    rows = np.array([[of.get(name, 0) for name in VOTES] for of in votes], np.int32)
    return Split(photographs(len(rows), seed), rows, np.array([f"fer{i:07}.png" for i in range(len(rows))]))


def photographs(count: int, seed: int) -> np.ndarray:
    """Soft random pictures: unlike each other, and like themselves after a shift by a pixel."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(count, 48, 48)), (0, 3, 3))
    low, high = noise.min(axis=(1, 2), keepdims=True), noise.max(axis=(1, 2), keepdims=True)
    return np.round(40 + 170 * (noise - low) / (high - low)).astype(np.uint8)


SPLIT = split_of([votes for votes, _, _, _ in PICTURES])


def oracle(label: np.ndarray = LABEL) -> np.ndarray:
    """It copies the label."""
    return log_softmax(100.0 * np.eye(8)[label], axis=1)


def always_happiness(count: int) -> np.ndarray:
    p = np.full(8, 0.01)
    p[HAPPINESS] = 0.93
    return np.log(np.tile(p, (count, 1)))


def evaluated(
    log_probabilities: np.ndarray,
    keep: dict[str, np.ndarray] = ALL,
    main_protocol: str = "majority",
    temperature: float = 1.0,
) -> Evaluation:
    return evaluate("model", log_probabilities, "valid", SPLIT, keep, main_protocol, temperature)


def values(result: Evaluation, protocol: str = "majority", subset: str = "all") -> dict[str, float]:
    return {name: of.value for name, of in result.metrics[protocol][subset].items()}


def test_every_protocol_keeps_its_pictures() -> None:
    result = evaluated(oracle(), main_protocol="clean")
    for column, protocol in ((2, "majority"), (3, "clean")):
        assert KEPT[protocol] == [row for row, picture in enumerate(PICTURES) if picture[column]]
    assert result.counts == {protocol: {"all": len(rows)} for protocol, rows in KEPT.items()}
    for protocol, rows in KEPT.items():
        assert result.predictions[protocol].label.tolist() == LABEL[rows].tolist()
        np.testing.assert_array_equal(result.predictions[protocol].votes, SPLIT.votes[rows])
    assert result.rows.tolist() == KEPT["clean"]
    assert (result.name, result.split, result.main_protocol) == ("model", "valid", "clean")


def test_the_oracle_is_right_and_no_more_agreed_with_than_the_label() -> None:
    result = evaluated(oracle())
    agreement = {"majority": 3.7 / 5, "clean": 2.9 / 4, "argmax": 4.4 / 8}  # shares of ten taggers, summed by hand
    for protocol, share in agreement.items():
        got = values(result, protocol)
        for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "macro_f1", "top2_accuracy"):
            assert got[name] == 1, name
        assert got["roc_auc"] == 1
        assert [got[name] for name in ("nll", "brier", "ece")] == pytest.approx([0, 0, 0], abs=1e-12)
        assert got["agreement"] == got["label_agreement"] == pytest.approx(share)
        assert np.isnan(got["f1/contempt"])


def test_the_uniform_model_knows_nothing() -> None:
    result = evaluated(np.full((8, 8), -log(8)))
    expected = {
        "accuracy": 1 / 5,  # it says neutral, the first of the tie
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


def test_the_model_that_always_says_happiness() -> None:
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


def test_intervals_hold_the_value_and_narrow_with_the_pictures() -> None:
    many = split_of([votes for votes, _, _, _ in PICTURES] * 20)
    few = evaluated(always_happiness(8)).figures["majority"]["all"]["accuracy"]
    result = evaluate(
        "model", always_happiness(160), "test", many, {"all": np.ones(160, bool)}, "majority", temperature=1
    )
    accuracy = result.metrics["majority"]["all"]["accuracy"]
    assert accuracy.value == few.value == 2 / 5
    assert few.low < accuracy.low < accuracy.value < accuracy.high < few.high
    spread = (2 / 5 * 3 / 5 / 100) ** 0.5  # of the share of hits in 100 drawn pictures
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_repeats_of_other_splits_are_left_out_and_counted() -> None:
    train = photographs(6, seed=1)
    images = SPLIT.images.copy()
    images[0] = train[3]  # the same pixels
    images[4] = train[0]
    images[1] = train[1, :, ::-1]  # mirrored
    images[5, 1:] = train[2, :-1]  # moved down by a pixel
    images[7] = np.round(0.7 * train[5] + 20)  # in another light
    valid = split_of([{"fear": 10}], seed=2)
    images[2] = valid.images[0]  # of another split
    split = SPLIT._replace(images=images)
    others = Split(train, np.zeros((6, 10), np.int32), np.array(["a.png"] * 6))

    keep = evaluator.subsets(split, [others])
    assert list(keep) == ["all", "without_exact_duplicates", "without_duplicates"] == list(evaluator.SUBSETS)
    assert np.flatnonzero(~keep["all"]).tolist() == []
    assert np.flatnonzero(~keep["without_exact_duplicates"]).tolist() == [0, 4]
    assert np.flatnonzero(~keep["without_duplicates"]).tolist() == [0, 1, 4, 5, 7]
    both = evaluator.subsets(split, [others, valid])
    assert np.flatnonzero(~both["without_exact_duplicates"]).tolist() == [0, 2, 4]
    assert np.flatnonzero(~both["without_duplicates"]).tolist() == [0, 1, 2, 4, 5, 7]
    assert list(evaluator.subsets(split, [])) == ["all"]

    # A model that knows the pictures that it has seen, and says fear of all others.
    fear = EMOTIONS.index("fear")
    result = evaluated(oracle(np.where(keep["without_duplicates"], fear, LABEL)), keep)
    assert result.counts == {
        "majority": {"all": 5, "without_exact_duplicates": 4, "without_duplicates": 2},
        "clean": {"all": 4, "without_exact_duplicates": 2, "without_duplicates": 1},
        "argmax": {"all": 8, "without_exact_duplicates": 6, "without_duplicates": 3},
    }
    accuracy = {p: [values(result, p, subset)["accuracy"] for subset in keep] for p in result.counts}
    assert accuracy == {"majority": [3 / 5, 2 / 4, 0], "clean": [3 / 4, 1 / 2, 0], "argmax": [5 / 8, 3 / 6, 0]}


@pytest.mark.filterwarnings("error")
def test_a_subset_without_pictures_has_undefined_figures() -> None:
    # Nothing is unseen under majority and clean, a picture of argmax is.
    keep = {**ALL, "without_exact_duplicates": np.arange(8) == 6}
    result = evaluated(oracle(), keep)
    assert result.counts == {p: {"all": len(rows), "without_exact_duplicates": int(6 in rows)} for p, rows in KEPT.items()}
    assert values(result, "argmax", "without_exact_duplicates")["accuracy"] == 1
    for protocol in ("majority", "clean"):
        assert set(result.metrics[protocol]["without_exact_duplicates"]) == set(result.metrics[protocol]["all"])
        assert np.isnan(list(result.metrics[protocol]["without_exact_duplicates"].values())).all()


def test_a_protocol_that_keeps_nothing_gets_one_line() -> None:
    doubtful = split_of([{"surprise": 5, "fear": 5}, {"unknown": 10}])
    said, keep = always_happiness(2), {"all": np.ones(2, bool)}
    with pytest.raises(UserError, match=r"^no picture of valid is left under protocol majority; .* --protocol$"):
        evaluator.fit_temperature(said, doubtful, "majority")
    with pytest.raises(UserError, match="no picture of test is left under protocol majority"):
        evaluate("model", said, "test", doubtful, keep, "majority", 1.0)
    other = evaluate("model", said, "test", doubtful, keep, "clean", 1.0)  # of the main_protocol alone it is asked
    assert other.counts["majority"] == {"all": 0}
    assert np.isnan(other.figures["majority"]["all"]["accuracy"]).all()


def test_the_temperature_makes_confidence_what_is_right() -> None:
    # Happiness is right 2 times of 5, so its probability must become 2/5, and that of the others 3/35.
    said = always_happiness(8)
    temperature = evaluator.fit_temperature(said, SPLIT, "majority")
    assert temperature == pytest.approx(log(93) / log(2 / 5 / (3 / 35)), rel=1e-3)
    assert evaluator.fit_temperature(said, SPLIT, "clean") != pytest.approx(temperature, rel=0.1)  # 2 of 4

    result = evaluated(said, temperature=temperature)
    assert result.temperature == temperature
    own = result.metrics["majority"]["all"]
    assert result.calibrated["nll"].value == pytest.approx(-(2 * log(2 / 5) + 3 * log(3 / 35)) / 5, rel=1e-4)
    assert result.calibrated["ece"].value == pytest.approx(0, abs=1e-3)
    assert result.calibrated["nll"].value < own["nll"].value
    assert result.calibrated["accuracy"] == own["accuracy"]
