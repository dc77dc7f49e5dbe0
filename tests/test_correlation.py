import numpy as np
import pytest
from changed_pictures import all_at_once, draw, highest_correlation, mirrored, moved

from fer_jax.data.correlation import correlating


@pytest.mark.parametrize("down", [-1, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_shifts_by_one_pixel_are_undone(down: int, right: int) -> None:
    others = draw(40, seed=2)
    for images in (moved(others, down, right), mirrored(moved(others, down, right))):
        pairs = correlating(images, others, 0.92)
        assert pairs.image.tolist() == pairs.other.tolist() == list(range(40))
        assert pairs.shifted.all() == pairs.shifted.any() == bool(down or right)
        assert pairs.mirrored.all() == pairs.mirrored.any() == (images[0, 0, 0] != moved(others, down, right)[0, 0, 0])


def test_equals_numpy_correlation_pair_by_pair() -> None:
    """Pictures with a common part, so that correlations of all heights occur, down to the threshold and below."""
    rng = np.random.default_rng(4)
    share = rng.uniform(0.3, 1, (20, 1, 1))
    images = (share * all_at_once(draw(20, seed=5)) + (1 - share) * draw(20, seed=6)).round().astype(np.uint8)
    others = draw(20, seed=5)
    others[:3] = 200 + (others[:3] > 190)  # hardly any contrast
    images[:3] = others[:3] + (images[:3] > 190)
    expected = np.array([[highest_correlation(image, other) for other in others] for image in images])
    threshold = 0.8
    pairs = correlating(images, others, threshold)
    assert 5 < len(pairs.image) < 20
    assert list(zip(pairs.image, pairs.other, strict=True)) == [
        tuple(pair) for pair in np.argwhere(expected >= threshold)
    ]
    np.testing.assert_allclose(pairs.correlation, expected[pairs.image, pairs.other], atol=1e-5)

    swapped = correlating(others, images, threshold)
    assert set(zip(swapped.other, swapped.image, strict=True)) == set(zip(pairs.image, pairs.other, strict=True))
