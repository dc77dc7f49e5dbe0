import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from fer_jax.data import labels


def reference(votes: list[int], mode: str) -> list[float] | None:
    """The target of one image, step by step as in the paper's text; None where the image is dropped."""
    counts = [0 if count == 1 else count for count in votes]
    total = sum(counts)
    selection = [0] * 10
    if mode == "majority":
        top = max(counts)
        if 2 * top <= total:
            return None
        selection[counts.index(top)] = top
    elif mode == "crossentropy":
        classes, finished = 0, False
        while sum(selection) < 0.75 * total and classes < 3 and not finished:
            top = max(counts)
            for column in range(10):
                if counts[column] != top:
                    continue
                if column >= 8:
                    finished = True
                    if sum(selection) == 0:
                        selection[column] = top
                    break
                selection[column], counts[column] = top, 0
                classes += 1
        if 2 * sum(selection) <= total or classes > 3:
            return None
    elif mode == "multi_target":
        selection = [count if count >= 0.3 * total - 1e-9 else 0 for count in counts]
        if 2 * sum(selection) <= total:
            return None
    if selection.index(max(selection)) >= 8:
        return None
    emotions = selection[:8]
    if mode == "multi_target":
        return [1.0 if count else 0.001 for count in emotions]
    return [count / sum(emotions) for count in emotions]


@pytest.mark.parametrize("mode", ["majority", "crossentropy", "multi_target"])
def test_targets_equal_the_reference_on_many_vote_rows(mode: str) -> None:
    rng = np.random.default_rng(0)
    votes = np.stack([rng.multinomial(n, rng.dirichlet(np.full(10, 0.3))) for n in rng.integers(1, 12, 4000)])
    target, keep = labels.targets(votes, mode)
    expected = [reference(row.tolist(), mode) for row in votes]
    assert keep.tolist() == [row is not None for row in expected]
    assert 0.3 < keep.mean() < 1  # some are kept, some dropped
    np.testing.assert_allclose(target[keep], [row for row in expected if row is not None], rtol=1e-6)
    assert not target[~keep].any()


@pytest.mark.parametrize(
    ("mode", "votes", "expected"),
    [
        # neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
        ("majority", [6, 0, 4, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),
        ("majority", [5, 0, 5, 0, 0, 0, 0, 0, 0, 0], None),
        ("majority", [5, 1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),  # single votes are dropped
        ("majority", [4, 0, 0, 0, 0, 0, 0, 0, 6, 0], None),
        ("crossentropy", [6, 0, 0, 4, 0, 0, 0, 0, 0, 0], [0.6, 0, 0, 0.4, 0, 0, 0, 0]),
        ("crossentropy", [8, 0, 0, 2, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),  # 75 % at once: the tail is dropped
        ("crossentropy", [4, 0, 0, 0, 0, 2, 0, 2, 0, 2], [0.5, 0, 0, 0, 0, 0.25, 0, 0.25]),  # a tie, without NF
        ("crossentropy", [4, 2, 2, 2, 0, 0, 0, 0, 0, 0], None),  # a tie that makes four classes
        ("crossentropy", [7, 0, 0, 0, 0, 0, 0, 0, 3, 0], [1, 0, 0, 0, 0, 0, 0, 0]),  # unknown is dropped
        ("crossentropy", [5, 0, 0, 0, 0, 0, 0, 0, 5, 0], None),  # only half is left
        ("crossentropy", [4, 0, 0, 0, 0, 0, 0, 0, 0, 6], None),
        ("mixture", [6, 0, 0, 4, 0, 0, 0, 0, 0, 0], [0.8, 0, 0, 0.2, 0, 0, 0, 0]),
        ("mixture", [4, 0, 0, 0, 0, 2, 0, 2, 0, 2], [0.5, 0, 0, 0, 0, 0.25, 0, 0.25]),  # no majority
        ("mixture", [4, 0, 0, 0, 0, 0, 0, 0, 0, 6], None),
        ("multi_target", [5, 0, 0, 3, 0, 2, 0, 0, 0, 0], [1, 0.001, 0.001, 1, 0.001, 0.001, 0.001, 0.001]),
        ("multi_target", [2, 2, 2, 2, 2, 0, 0, 0, 0, 0], None),
        ("clean", [5, 4, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),
        ("clean", [9, 0, 0, 0, 0, 0, 0, 0, 1, 0], None),
        ("clean", [9, 0, 0, 0, 0, 0, 0, 0, 0, 1], None),
        ("argmax", [0, 1, 0, 0, 0, 0, 0, 0, 8, 1], [0, 1, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_targets_by_hand(mode: str, votes: list[int], expected: list[float] | None) -> None:
    target, keep = labels.targets(np.array([votes]), mode)
    assert target.dtype == np.float32
    assert keep.tolist() == [expected is not None]
    np.testing.assert_allclose(target[0], expected or [0] * 8, atol=1e-6)


def test_many_vote_rows_have_the_targets_of_each_alone() -> None:
    votes = np.random.default_rng(0).multinomial(10, np.full(10, 0.1), 7)
    some, keep = labels.targets(votes, "crossentropy")
    target, kept = labels.targets(np.tile(votes, (20_000, 1)), "crossentropy")
    np.testing.assert_array_equal(target, np.tile(some, (20_000, 1)))
    np.testing.assert_array_equal(kept, np.tile(keep, 20_000))
    assert [part.shape for part in labels.targets(votes[:0], "crossentropy")] == [(0, 8), (0,)]


def test_probability_draws_labels_from_the_crossentropy_target() -> None:
    votes = np.array([[6, 0, 0, 4, 0, 0, 0, 0, 0, 0]] * 20_000)
    target, _ = labels.targets(votes, "probability")
    np.testing.assert_array_equal(target, labels.targets(votes, "crossentropy")[0])
    assert labels.MODES["probability"].sampled
    assert not labels.MODES["crossentropy"].sampled
    drawn = labels.draw_labels(np.random.default_rng(1), target)
    assert set(drawn.sum(axis=1)) == {1.0}
    # 20,000 draws: the standard error is 0.0035
    np.testing.assert_allclose(drawn.mean(axis=0), [0.6, 0, 0, 0.4, 0, 0, 0, 0], atol=0.014)


def test_wrong_modes_and_votes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown label mode 'median'.*majority"):
        labels.targets(np.zeros((1, 10), int), "median")
    with pytest.raises(ValueError, match=r"\[N, 10\]"):
        labels.targets(np.zeros((1, 8), int), "majority")
    with pytest.raises(ValueError, match="whole numbers"):
        labels.targets(np.zeros((1, 10)), "majority")
    with pytest.raises(ValueError, match="negative"):
        labels.targets(np.full((1, 10), -1), "majority")


def test_softened_targets_by_hand() -> None:
    target = np.array([[0.8, 0.2, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]], np.float32)
    root = [2 / 3, 1 / 3, 0, 0, 0, 0, 0, 0]  # the ratio of the square roots is 2
    np.testing.assert_allclose(labels.soften(target, 2, 0), [root, target[1]], rtol=1e-6)
    np.testing.assert_allclose(labels.soften(target, 0.5, 0)[0, :2], [16 / 17, 1 / 17], rtol=1e-6)
    smooth = [0.8 * 0.8 + 0.025, 0.8 * 0.2 + 0.025] + [0.025] * 6
    np.testing.assert_allclose(labels.soften(target, 1, 0.2)[0], smooth, rtol=1e-6)
    both = [0.8 * 2 / 3 + 0.025, 0.8 / 3 + 0.025] + [0.025] * 6  # temperature first
    np.testing.assert_allclose(labels.soften(target, 2, 0.2)[0], both, rtol=1e-6)
    np.testing.assert_array_equal(labels.soften(target, 1, 0), target)


@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.5, 100])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_softened_targets_are_distributions_with_the_same_order(temperature: float, smoothing: float) -> None:
    target = np.random.default_rng(0).dirichlet(np.full(8, 0.3), 200).astype(np.float32)
    softened = labels.soften(target, temperature, smoothing)
    assert softened.dtype == np.float32
    np.testing.assert_allclose(softened.sum(axis=1), 1, rtol=1e-6)
    assert softened.argmax(axis=1).tolist() == target.argmax(axis=1).tolist()
    assert softened.min() >= smoothing / 8 - 1e-9
    order = np.argsort(target, axis=1)
    assert (np.diff(np.take_along_axis(softened, order, axis=1), axis=1) >= 0).all()


def test_modes_that_need_agreement_drop_images_without_votes() -> None:
    for mode in ("majority", "probability", "crossentropy", "multi_target", "mixture"):
        assert not labels.targets(np.zeros((1, 10), int), mode)[1].any()
    assert labels.targets(np.zeros((0, 10), int), "majority")[0].shape == (0, 8)


def test_importing_labels_does_not_import_jax() -> None:
    code = "import sys, fer_jax.data.labels; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


KEPT = {  # images of the published fer2013new.csv; of rows with the same file name the first counts
    "Training": {
        "majority": 25_057,
        "crossentropy": 27_953,
        "mixture": 27_953,
        "multi_target": 27_668,
        "clean": 18_977,
        "argmax": 28_558,
    },
    "PublicTest": {
        "majority": 3_199,
        "crossentropy": 3_505,
        "multi_target": 3_472,
        "clean": 2_668,
        "argmax": 3_579,
    },
}
MAJORITY_CLASSES = {
    "Training": [8739, 7287, 3149, 3013, 2099, 119, 532, 119],
    "PublicTest": [1182, 865, 415, 351, 287, 24, 62, 13],
}


@pytest.mark.parametrize("usage", ["Training", "PublicTest"])
def test_counts_on_the_real_votes(real_csvs, usage: str) -> None:
    table = pd.read_csv(real_csvs / "fer2013new.csv")
    table = table[table["Image name"].notna() & (table["Usage"] == usage)].drop_duplicates("Image name")
    votes = table[list(labels.VOTES)].to_numpy()
    for mode, kept in KEPT[usage].items():
        assert labels.targets(votes, mode)[1].sum() == kept, mode
    target, keep = labels.targets(votes, "majority")
    assert np.bincount(target[keep].argmax(axis=1), minlength=8).tolist() == MAJORITY_CLASSES[usage]
