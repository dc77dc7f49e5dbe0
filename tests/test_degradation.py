import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fer_jax.data import degradation

NOISE = np.random.default_rng(0).integers(0, 256, (4, 48, 48), dtype=np.uint8)
SMOOTH = ndimage.gaussian_filter(NOISE.astype(np.float32), (0, 3, 3)) * 4 - 380


@pytest.mark.parametrize("deviation", [0.8, 1.7])
def test_blur_equals_scipy(deviation: float) -> None:
    expected = ndimage.gaussian_filter(SMOOTH, (0, deviation, deviation), mode="reflect", truncate=8)
    blurred = degradation.blurred(SMOOTH, np.full(4, deviation, np.float32), np)
    assert abs(expected - SMOOTH).max() > 2  # the blur changes the images
    np.testing.assert_allclose(blurred, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("size", [48, 64])
def test_blur_scales_a_wave_by_hand(size: int) -> None:
    """A wave of 12 pixels of 48 has a quarter of its amplitude left where (2 pi sigma / 12)^2 / 2 is the log of 4."""
    wave = np.cos(8 * np.pi * (np.arange(size) + 0.5) / size).astype(np.float32)
    deviation = 12 / (2 * np.pi) * np.sqrt(2 * np.log(4))
    images = np.broadcast_to(wave, (1, size, size))
    blurred = degradation.blurred(images, np.array([deviation], np.float32), np)
    np.testing.assert_allclose(blurred, images / 4, rtol=0, atol=1e-5)


def test_noise_has_its_deviation_and_is_independent() -> None:
    grey = np.full((300, 48, 48), 128, np.uint8)
    deviation = np.repeat(np.array([5, 20, 30], np.float32), 100)
    noise = degradation.noisy(grey, deviation, np.arange(300, dtype=np.uint32), np).astype(float) - 128
    for group, expected in zip(np.split(noise, 3), (5, 20, 30), strict=True):
        assert abs(group.mean()) < 0.2
        assert abs(group.std() - expected) < 0.1
    unit = noise / deviation[:, None, None]
    assert 2.6 < (unit**4).mean() < 3  # 3 for a normal distribution, 1.8 for a uniform one
    for pair in (unit[:, :, 1:], unit[:, :, :-1]), (unit[:, 1:], unit[:, :-1]), (unit[1:], unit[:-1]):
        assert abs(np.corrcoef(pair[0].reshape(-1), pair[1].reshape(-1))[0, 1]) < 0.01


def test_noise_is_clipped_and_follows_from_its_seed() -> None:
    ends = np.stack([np.zeros((48, 48), np.uint8), np.full((48, 48), 255, np.uint8)])
    noisy = degradation.noisy(ends, np.full(2, 20, np.float32), np.array([7, 7], np.uint32), np)
    assert (noisy[0] == 0).mean() > 0.45
    assert (noisy[1] == 255).mean() > 0.45
    again = degradation.noisy(ends, np.full(2, 20, np.float32), np.array([7, 8], np.uint32), np)
    np.testing.assert_array_equal(again[0], noisy[0])
    assert (again[1] != noisy[1]).any()


def test_numpy_and_xla_are_equal_and_keep_the_images_that_are_not_chosen() -> None:
    deviation, quality = np.array([0, 9, 0, 25], np.float32), np.array([0, 0, 30, 30], np.int32)
    seed = np.array([1, 2, 3, 2**32 - 1], np.uint32)
    host = degradation.degraded(NOISE, quality, deviation, seed, np)
    np.testing.assert_array_equal(host[0], NOISE[0])
    assert (host[1:] != NOISE[1:]).any(axis=(1, 2)).all()
    device = jax.jit(lambda *arrays: degradation.degraded(*arrays, jnp))(NOISE, quality, deviation, seed)
    np.testing.assert_array_equal(device, host)
    np.testing.assert_array_equal(degradation.blurred(SMOOTH, deviation * 0, np), SMOOTH)
