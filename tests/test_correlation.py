import numpy as np
import pytest
from changed_images import change_all, draw, highest_correlation, mirror, shift

from fer_jax.data import correlation
from fer_jax.data.correlation import correlated_pairs


@pytest.mark.parametrize("down", [-1, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_images_shifted_by_one_pixel_are_pairs(down: int, right: int) -> None:
    others = draw(40, seed=2)
    shifted = shift(others, down, right)
    for images, is_mirrored in ((shifted, False), (mirror(shifted), True)):
        pairs = correlated_pairs(images, others, 0.92)
        assert pairs.image.tolist() == pairs.other.tolist() == list(range(40))
        assert pairs.shifted.tolist() == [bool(down or right)] * 40
        assert pairs.mirrored.tolist() == [is_mirrored] * 40


def test_correlations_equal_numpy_pair_by_pair() -> None:
    """Images with a part in common have correlations of all heights, down to the threshold and below."""
    rng = np.random.default_rng(4)
    weight = rng.uniform(0.3, 1, (20, 1, 1))
    images = (weight * change_all(draw(20, seed=5)) + (1 - weight) * draw(20, seed=6)).round().astype(np.uint8)
    others = draw(20, seed=5)
    others[:3] = 200 + (others[:3] > 190)  # hardly any contrast
    images[:3] = others[:3] + (images[:3] > 190)
    expected = np.array([[highest_correlation(image, other) for other in others] for image in images])
    threshold = 0.8
    pairs = correlated_pairs(images, others, threshold)
    assert 5 < len(pairs.image) < 20
    assert list(zip(pairs.image, pairs.other, strict=True)) == [
        tuple(pair) for pair in np.argwhere(expected >= threshold)
    ]
    np.testing.assert_allclose(pairs.correlation, expected[pairs.image, pairs.other], atol=1e-5)

    swapped = correlated_pairs(others, images, threshold)
    assert set(zip(swapped.other, swapped.image, strict=True)) == set(zip(pairs.image, pairs.other, strict=True))


def test_blocks_and_chunks_do_not_change_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.concatenate([draw(15, seed=8), change_all(draw(15, seed=9)), np.zeros((1, 48, 48), np.uint8)])
    others = np.concatenate([draw(30, seed=9), draw(15, seed=8), draw(3, seed=8)])
    whole = correlated_pairs(images, others, 0.92)
    expected = [(row, 30 + row) for row in range(15)] + [(row, 45 + row) for row in range(3)]
    expected += [(15 + row, row) for row in range(15)]
    assert list(zip(whole.image, whole.other, strict=True)) == sorted(expected)
    monkeypatch.setattr(correlation, "BLOCK", 8)
    monkeypatch.setattr(correlation, "CHUNK", 3)
    parts = correlated_pairs(images, others, 0.92)
    np.testing.assert_allclose(parts.correlation, whole.correlation, atol=1e-6)
    for name in ("image", "other", "mirrored", "shifted"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_no_images_have_no_pairs() -> None:
    for images, others in ((draw(0, seed=0), draw(3, seed=0)), (draw(3, seed=0), draw(0, seed=0))):
        assert [len(field) for field in correlated_pairs(images, others, 0.92)] == [0] * 5
