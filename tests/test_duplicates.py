from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from changed_images import brighten, change_all, draw, highest_correlation, mirror, reduce_contrast, shift, split_of
from scipy.ndimage import gaussian_filter

from fer_jax.data import duplicates, folders


@pytest.mark.parametrize("change", [np.array, brighten, reduce_contrast, mirror, change_all])
def test_changed_copies_are_near_duplicates(change: Callable[[np.ndarray], np.ndarray]) -> None:
    others = draw(300, seed=0)
    rows = np.array([299, 0, 256, 255, 17])
    images = np.concatenate([draw(300, seed=1), change(others[rows])])
    assert duplicates.near(split_of(images), split_of(others)).tolist() == [-1] * 300 + rows.tolist()
    assert duplicates.exact(split_of(images), split_of(others)).tolist() == [False] * 300 + [change is np.array] * 5


def test_images_shifted_by_three_pixels_are_not_duplicates() -> None:
    others = draw(40, seed=3)
    for down, right in ((0, 3), (3, 0), (-3, 3)):
        assert (duplicates.near(split_of(shift(others, down, right)), split_of(others)) == -1).all()


def test_near_prefers_the_first_exact_duplicate_then_the_highest_correlation() -> None:
    image = draw(1, seed=7)
    blurred = gaussian_filter(image[0], 2)
    others = np.stack([draw(1, seed=8)[0], blurred, brighten(image)[0], image[0], image[0]])
    assert duplicates.near(split_of(image), split_of(others)).tolist() == [3]
    assert duplicates.near(split_of(image), split_of(others[:3])).tolist() == [2]
    assert duplicates.near(split_of(image), split_of(others[:2])).tolist() == [1]
    assert duplicates.near(split_of(image), split_of(others[:1])).tolist() == [-1]


def test_flat_images_have_exact_duplicates_only() -> None:
    flat = np.stack([np.full((48, 48), level, np.uint8) for level in (0, 90, 255)])
    edge = np.zeros((1, 48, 48), np.uint8)
    edge[0, 0, :] = 200  # flat as soon as it is shifted up
    others = np.concatenate([draw(4, seed=9), flat[1:2], edge])
    images = np.concatenate([flat, edge, edge // 2])
    assert duplicates.near(split_of(images), split_of(others)).tolist() == [-1, 4, -1, 5, 5]
    assert duplicates.exact(split_of(images), split_of(others)).tolist() == [False, True, False, True, False]
    assert duplicates.drop(split_of(others), split_of(flat)).tolist() == [True, True, True, True, False, True]


def test_drop_leaves_no_duplicate_of_another_split() -> None:
    train, valid, test = draw(50, seed=10), draw(20, seed=11), draw(20, seed=12)
    train[7], train[8] = valid[0], change_all(valid)[1]
    train[30], train[31] = brighten(test)[19], shift(test, 0, 1)[18]
    train[40] = brighten(train)[41]  # copies within training stay
    keep = duplicates.drop(split_of(train), split_of(valid), split_of(test))
    assert np.flatnonzero(~keep).tolist() == [7, 8, 30, 31]
    assert (duplicates.near(split_of(train[keep]), split_of(np.concatenate([valid, test]))) == -1).all()
    assert duplicates.drop(split_of(train)).all()


def test_an_empty_split_has_no_duplicates() -> None:
    empty, images = np.zeros((0, 48, 48), np.uint8), draw(3, seed=13)
    assert duplicates.near(split_of(images), split_of(empty)).tolist() == [-1, -1, -1]
    assert (
        duplicates.near(split_of(empty), split_of(images)).shape
        == duplicates.exact(split_of(empty), split_of(images)).shape
        == (0,)
    )
    assert duplicates.drop(split_of(images), split_of(empty)).all()


def test_real_validation_images_in_training(real_dir: Path) -> None:
    train, valid = folders.load(real_dir, "train").images, folders.load(real_dir, "valid").images
    is_exact = duplicates.exact(split_of(valid), split_of(train))
    assert (len(valid), is_exact.sum()) == (3579, 279)
    valid, is_exact = valid[:800], is_exact[:800]
    row = duplicates.near(split_of(valid), split_of(train))
    assert (valid[is_exact] == train[row[is_exact]]).all()
    only_near = np.flatnonzero((row >= 0) & ~is_exact)
    assert len(only_near) > 20
    assert all(highest_correlation(valid[i], train[row[i]]) >= duplicates.THRESHOLD - 1e-5 for i in only_near)
