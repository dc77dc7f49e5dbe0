import math

import numpy as np
import pytest

from fer_jax.data import augment, recipes
from fer_jax.data.recipes import RECIPES


def rotate(point: np.ndarray, degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    return np.array(
        [
            math.cos(angle) * point[0] - math.sin(angle) * point[1],
            math.sin(angle) * point[0] + math.cos(angle) * point[1],
        ]
    )


def test_emotion_cnn_map_inverts_the_steps_one_by_one() -> None:
    rng = np.random.default_rng(0)
    flip, turn, tilt = rng.random(20) < 0.5, rng.uniform(-10, 10, 20), rng.uniform(-10, 10, 20)
    side, centre, shift = rng.uniform(0.9, 1, 20), rng.uniform(-0.1, 0.1, (2, 20)), rng.uniform(-0.2, 0.2, (2, 20))
    maps = recipes.emotion_cnn_map(flip, turn, side, centre, tilt, shift)
    for k in range(20):
        start = rng.uniform(0, 48, 2)  # in pixels from the top left corner of a 48x48 image
        point = np.array([48 - start[0], start[1]]) if flip[k] else start
        point = rotate(point - 24, turn[k]) + 24
        corner = (centre[:, k] + 1) * 24 - side[k] * 24
        point = (point - corner) * 40 / (side[k] * 48)  # the crop, resized to 40x40
        point = rotate(point - 20, tilt[k]) + 20
        point = point + shift[:, k] / 2 * 40
        end = point * 48 / 40
        np.testing.assert_allclose(maps[k] @ (*(end / 24 - 1), 1), (*(start / 24 - 1), 1), atol=1e-12)


def test_ferplus_map_equals_the_published_code() -> None:
    """FERPlus/src/img_util.py maps row vectors (y, x) by p T + s, then mirrors the result."""
    rng = np.random.default_rng(0)
    scale, skew, turn = rng.uniform(0.95, 1.05, (2, 20)), rng.uniform(-0.05, 0.05, (2, 20)), rng.uniform(-20, 20, 20)
    shift, flip = rng.uniform(-0.16, 0.16, (2, 20)), rng.random(20) < 0.5
    maps = recipes.ferplus_map(scale, skew, turn, shift, flip)
    for k in range(20):
        angle = math.radians(-turn[k])  # theirs is counterclockwise
        transform = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        transform = transform @ [[1, skew[0, k]], [0, 1]] @ [[1, 0], [skew[1, k], 1]] @ np.diag(scale[::-1, k])
        x, y = rng.uniform(-1, 1, 2)
        source = (np.array([y, -x if flip[k] else x]) - shift[::-1, k]) @ transform
        np.testing.assert_allclose(maps[k] @ (x, y, 1), (*source[::-1], 1), atol=1e-12)


def test_emotion_cnn_changes_half_of_the_images_within_its_ranges() -> None:
    drawn = augment.sample(np.random.default_rng(0), 100_000, "emotion_cnn", 48)
    augmented = (drawn.matrix != np.eye(2, 3, dtype=np.float32)).any(axis=(1, 2))
    assert abs(augmented.mean() - 0.5) < 0.01
    for factor in (drawn.brightness, drawn.contrast):
        assert (factor[~augmented] == 1).all()
        assert 0.95 <= factor.min() < 0.9501
        assert 1.0499 < factor.max() <= 1.05
        assert abs(factor[augmented].mean() - 1) < 0.001
    assert abs(np.corrcoef(drawn.brightness[augmented], drawn.contrast[augmented])[0, 1]) < 0.02
    matrix = drawn.matrix[augmented].astype(float)
    determinant = np.linalg.det(matrix[:, :, :2])
    assert abs((determinant < 0).mean() - 0.5) < 0.01  # mirrored
    area = abs(determinant)
    assert 0.9 - 1e-6 <= area.min() < 0.9001
    assert 0.9999 < area.max() <= 1 + 1e-6
    assert abs(area.mean() - 0.95) < 0.001
    angle = np.degrees(np.arctan2(matrix[:, 1, 0], matrix[:, 1, 1]))  # of two rotations of up to 10 degrees
    assert 19.5 < abs(angle).max() <= 20 + 1e-4
    assert abs(angle.std() - math.sqrt(2 / 3) * 10) < 0.1
    # The source point in the middle of the output: a shift of up to 4.8 pixels in the crop, and the crop's own shift.
    squared_distance = ((matrix @ (23.5, 23.5, 1) - 23.5) ** 2).sum(axis=1).mean()
    mean_side = (1 - 0.9**1.5) / 0.15
    expected = 2 / 3 * (4.8**2 * 0.95 + 24**2 * (1 - 2 * mean_side + 0.95))
    assert abs(squared_distance / expected - 1) < 0.01


def test_ferplus_keeps_to_its_ranges() -> None:
    drawn = augment.sample(np.random.default_rng(0), 50_000, "ferplus", 48)
    assert (drawn.brightness == 1).all()
    assert (drawn.contrast == 1).all()
    linear = drawn.matrix[:, :, :2].astype(float)
    flip = np.linalg.det(linear) < 0
    assert abs(flip.mean() - 0.5) < 0.01
    centre = drawn.matrix @ (23.5, 23.5, 1) - 23.5
    shift = np.linalg.solve(linear, centre[:, :, None])  # in the output
    assert 3.83 < abs(shift).max() <= 0.08 * 48 + 1e-3
    assert abs(shift.std() - 0.08 * 48 / math.sqrt(3)) < 0.02
    upright = np.where(flip[:, None, None], linear * (-1, 1), linear)
    area = np.linalg.det(upright)  # rotation and skew keep it: the product of both scales
    assert 1.05**-2 - 1e-6 <= area.min() < 0.912
    assert 1.098 < area.max() <= 1.05**2 + 1e-6
    assert abs((area > 1).mean() - 0.5) < 0.01
    skew = (upright @ upright.transpose(0, 2, 1))[:, 0, 1] / area  # rotation cancels: about the sum of both skews
    assert 0.095 < abs(skew).max() < 0.11
    assert abs(skew.std() - 0.05 * math.sqrt(2 / 3)) < 0.001
    angle = np.degrees(np.arctan2(upright[:, 1, 0] - upright[:, 0, 1], upright[:, 0, 0] + upright[:, 1, 1]))
    from_skew = math.degrees(0.05) / math.sqrt(6)  # standard deviation of half the skews' difference
    assert abs(angle.std() - math.hypot(20 / math.sqrt(3), from_skew)) < 0.15
    assert 20 < abs(angle).max() < 23


def changed_fields(params: recipes.RecipeParams) -> set[str]:
    """The names of the fields that a recipe draws."""
    neutral = recipes.unchanged(len(params.brightness))
    return {name for name in params._fields if not np.array_equal(getattr(neutral, name), getattr(params, name))}


STEPS = {
    "zoom": {"to_source"},
    "light": {"to_source", "brightness", "contrast", "gamma"},
    "blur": {"to_source", "blur"},
    "jpeg": {"to_source", "jpeg"},
    "strong": {"to_source", "brightness", "contrast"},
    "photo": {"to_source", "brightness", "contrast", "gamma", "blur"},
    "camera": {"to_source", "brightness", "contrast", "blur", "jpeg", "noise", "noise_seed"},
}


def assert_camera(drawn: recipes.RecipeParams) -> None:
    for values, low, high in ((drawn.blur, 0.3, 1.8), (drawn.jpeg, 10, 95), (drawn.noise, 2, 30)):
        changed = values[values > 0]
        assert abs(len(changed) / len(values) - 0.35) < 0.01
        assert low <= changed.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < changed.max() <= high
        assert abs(changed.mean() - (low + high) / 2) < 0.01 * (high - low)
    assert len(np.unique(drawn.noise_seed)) > 0.999 * len(drawn.noise_seed)


@pytest.mark.parametrize("recipe", STEPS)
def test_steps_after_ferplus(recipe: str) -> None:
    drawn = RECIPES[recipe](np.random.default_rng(0), 50_000)
    ferplus = RECIPES["ferplus"](np.random.default_rng(0), 50_000)
    assert changed_fields(drawn) == STEPS[recipe]
    independent = []
    ratio = drawn.to_source[:, :2] @ np.linalg.inv(ferplus.to_source)  # the map after ferplus's
    if recipe in ("zoom", "strong", "photo", "camera"):
        zoom = ratio[:, 0, 0]
        np.testing.assert_allclose(ratio, zoom[:, None, None] * np.eye(2, 3), atol=1e-12)
        assert 1 / 1.2 <= zoom.min() < 0.834
        assert 1.199 < zoom.max() <= 1.2
        assert abs((zoom > 1).mean() - 0.5) < 0.01
        assert abs(zoom[zoom > 1].mean() - 1.1) < 0.001
        independent.append(zoom)
    else:
        np.testing.assert_array_equal(drawn.to_source, ferplus.to_source)
    if recipe in ("light", "strong", "photo", "camera"):
        for factor in (drawn.brightness, drawn.contrast):
            assert 0.8 <= factor.min() < 0.801
            assert 1.199 < factor.max() <= 1.2
            assert abs(factor.std() - 0.4 / math.sqrt(12)) < 0.001
        independent += [drawn.brightness, drawn.contrast]
    if drawn.gamma is not None:
        exponent = np.log(drawn.gamma) / np.log(0.7)
        assert -1 <= exponent.min() < -0.999
        assert 0.999 < exponent.max() <= 1
        assert abs(exponent.mean()) < 0.01
        assert abs(exponent.std() - 1 / math.sqrt(3)) < 0.005
        independent.append(drawn.gamma)
    if recipe == "camera":
        assert_camera(drawn)
        independent += [drawn.blur, drawn.jpeg, drawn.noise, drawn.noise_seed]
    elif drawn.blur is not None:
        blurred = drawn.blur > 0
        assert abs(blurred.mean() - 0.5) < 0.01
        variance = 2 * drawn.blur**2
        assert 0 <= variance.min() < 0.999 < variance.max() <= 1
        assert abs(variance[blurred].mean() - 0.5) < 0.01
        assert abs(variance[blurred].std() - 1 / math.sqrt(12)) < 0.005
        independent.append(drawn.blur)
    if recipe == "jpeg":
        compressed = drawn.jpeg > 0
        assert abs(compressed.mean() - 0.5) < 0.01
        np.testing.assert_array_equal(np.unique(drawn.jpeg[compressed]), np.arange(25, 96))
        assert abs(drawn.jpeg[compressed].mean() - 60) < 0.5
        independent += [drawn.jpeg, np.linalg.det(drawn.to_source) < 0]
    assert abs(np.corrcoef(independent) - np.eye(len(independent))).max() < 0.02


@pytest.mark.parametrize(
    ("recipe", "minimum"), [("emotion_cnn", 0.65), ("ferplus", 0.65), ("zoom", 0.5), ("strong", 0.5), ("photo", 0.5)]
)
def test_faces_stay_upright_and_in_the_frame(recipe: str, minimum: float) -> None:
    drawn = augment.sample(np.random.default_rng(0), 5_000, recipe, 48)
    downwards = drawn.matrix[:, :, 1]
    tilt = np.degrees(np.arctan2(downwards[:, 0], downwards[:, 1]))
    assert abs(tilt).max() < 26
    down, across = np.indices((48, 48)).reshape(2, -1)
    source = drawn.matrix @ np.stack([across, down, np.ones_like(down)])
    inside = ((source >= -0.5) & (source <= 47.5)).all(axis=1).mean(axis=1)
    assert inside.min() > minimum
