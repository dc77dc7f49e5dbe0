"""Corruptions: strengths and determinism of all, and each against values by hand or another library."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fer_jax.data import jpeg
from fer_jax.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupt

NOISE = np.random.default_rng(0).integers(0, 256, (30, 48, 48))
SMOOTH = np.clip(ndimage.gaussian_filter(NOISE.astype(float), (0, 3, 3)) * 12 - 1400, 5, 250).astype(np.uint8)
MIDDLE = (slice(None), slice(12, 36), slice(12, 36))


def flat(level: int, count: int = 30) -> np.ndarray:
    return np.full((count, 48, 48), level, np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_is_deterministic_and_grows_with_strength(name: str) -> None:
    assert len(CORRUPTIONS[name].values) == STRENGTHS == 5
    before = SMOOTH.copy()
    change = []
    for strength in range(1, STRENGTHS + 1):
        corrupted = corrupt(SMOOTH, name, strength)
        assert corrupted.dtype == np.uint8
        assert corrupted.shape == SMOOTH.shape
        np.testing.assert_array_equal(corrupt(SMOOTH, name, strength), corrupted)
        np.testing.assert_array_equal(corrupt(SMOOTH[:7], name, strength), corrupted[:7])  # by row alone
        change.append(np.abs(corrupted.astype(int) - SMOOTH).mean())
    np.testing.assert_array_equal(SMOOTH, before)
    assert change[0] > 0.1
    assert (np.diff(change) > 0).all(), change


@pytest.mark.parametrize("name", ["shift", "scale", "rotation", "blur", "down-sampling", "contrast", "jpeg"])
def test_an_even_grey_stays_what_it_is(name: str) -> None:
    np.testing.assert_array_equal(corrupt(flat(128), name, 3), flat(128))  # 128 is exact in JPEG at every quality


def ramps() -> np.ndarray:
    """Images that grow by 4 levels a pixel to the right, and others that grow so downwards."""
    across = np.broadcast_to(4 * np.arange(48) + 20, (48, 48)).astype(np.uint8)
    return np.stack([across, across.T])


def test_a_shift_has_its_length() -> None:
    """On a ramp of 4 levels a pixel, the change of grey is the shift: 10 % of 48 are 4.8 pixels, in any direction."""
    across = corrupt(np.repeat(ramps()[:1], 30, axis=0), "shift", 4).astype(int) - ramps()[0]
    down = corrupt(np.repeat(ramps()[1:], 30, axis=0), "shift", 4).astype(int) - ramps()[1]
    x, y = (moved[MIDDLE].mean(axis=(1, 2)) / 4 for moved in (across, down))
    np.testing.assert_allclose(np.hypot(x, y), 4.8, atol=0.15)
    assert {(a, b) for a, b in zip(x > 0, y > 0, strict=True)} == {(a, b) for a in (True, False) for b in (True, False)}


def test_a_scale_changes_the_slope() -> None:
    """A crop 25 % wider shows 1.25 times as many levels a pixel; one tighter by the inverse factor 0.8 times."""
    images = np.repeat(ramps()[:1], 30, axis=0)
    moved = corrupt(images, "scale", 5).astype(float)
    slope = (moved[:, 24, 32] - moved[:, 24, 16]) / 16 / 4
    assert set(np.round(slope, 1)) == {0.8, 1.2}
    np.testing.assert_allclose(np.sort(np.unique(np.round(slope, 2)))[[0, -1]], [0.8, 1.25], atol=0.02)


def test_a_rotation_turns_the_slope() -> None:
    """A ramp to the right turned by 30 degrees grows by cos 30 of its slope to the right, by sin 30 up or down."""
    moved = corrupt(np.repeat(ramps()[:1], 30, axis=0), "rotation", 5).astype(float)
    right = (moved[:, 24, 30] - moved[:, 24, 18]) / 12 / 4
    down = (moved[:, 30, 24] - moved[:, 18, 24]) / 12 / 4
    np.testing.assert_allclose(right, np.cos(np.pi / 6), atol=0.03)
    np.testing.assert_allclose(np.abs(down), 0.5, atol=0.03)
    assert (down > 0).any()
    assert (down < 0).any()


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    point = flat(0, 1)
    point[0, 24, 24] = 255
    blurred = corrupt(point, "blur", 4)[0].astype(float)
    weight = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.2**2))
    expected = 255 * np.outer(weight, weight) / weight.sum() ** 2
    np.testing.assert_allclose(blurred[19:30, 19:30], expected, atol=0.6)


def test_noise_has_its_standard_deviation() -> None:
    noise = corrupt(flat(128), "noise", 3).astype(float) - 128
    assert noise.std() == pytest.approx(12, rel=0.01)
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert abs(np.corrcoef(noise.reshape(30, -1))[np.triu_indices(30, 1)]).max() < 0.1  # each image has its own


def test_jpeg_is_compression_at_its_quality() -> None:
    expected = jpeg.compress(SMOOTH, np.full(30, 25, np.int32), np)  # equal to libjpeg's in tests/test_jpeg.py
    np.testing.assert_array_equal(corrupt(SMOOTH, "jpeg", 4), expected)


def test_downsampling_keeps_a_ramp_and_loses_a_chequerboard() -> None:
    chequerboard = (np.indices((48, 48)).sum(axis=0) % 2 * 200).astype(np.uint8)[None]
    np.testing.assert_allclose(corrupt(chequerboard, "down-sampling", 3)[0].astype(float), 100, atol=2)  # 24 pixels
    np.testing.assert_allclose(corrupt(ramps(), "down-sampling", 3)[MIDDLE].astype(int), ramps()[MIDDLE], atol=2)
    small = Image.fromarray(SMOOTH[0]).resize((16, 16), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((48, 48), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(corrupt(SMOOTH, "down-sampling", 5)[0], expected)


@pytest.mark.parametrize(
    ("name", "level", "results"),
    [
        ("brightness", 100, {150, 67}),  # x 1.5; / 1.5
        ("brightness", 200, {255, 133}),  # 300 is clipped
        ("gamma", 100, {43, 156}),  # 255 (100 / 255)^1.9; 255 (100 / 255)^(1 / 1.9)
    ],
)
def test_light_by_hand(name: str, level: int, results: set[int]) -> None:
    corrupted = corrupt(flat(level), name, 4)
    assert set(corrupted.ravel().tolist()) == results
    assert (corrupted == corrupted[:, :1, :1]).all()  # an image has one direction


def test_contrast_by_hand() -> None:
    halves = np.concatenate([flat(60, 2)[:, :24], flat(180, 2)[:, 24:]], axis=1)
    corrupted = corrupt(halves, "contrast", 3)  # the factor 0.5 about the mean, 120
    np.testing.assert_array_equal(corrupted[:, 0, 0], [90, 90])
    np.testing.assert_array_equal(corrupted[:, -1, -1], [150, 150])


def test_an_occlusion_is_one_square_of_its_area() -> None:
    corrupted = corrupt(flat(0), "occlusion", 5)
    levels, corners = set(), set()
    for image in corrupted:
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert len(rows) == len(columns) == 21  # 48 sqrt(0.2) = 21.5 -> 21, so 441 of 2304 pixels
        square = image[rows[0] : rows[0] + 21, columns[0] : columns[0] + 21]
        assert (square == square[0, 0]).all()
        levels.add(int(square[0, 0]))
        corners.add((int(rows[0]), int(columns[0])))
    assert len(levels) > 20
    assert len(corners) > 20
