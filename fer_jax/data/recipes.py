"""Augmentation recipes: the parameters that numpy draws for each training image, before its size in pixels is known."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class RecipeParams(NamedTuple):
    """The parameters of N images, at no particular size.

    to_source f64[N, 3, 3] maps (x, y, 1) of the output to the source. Both are [-1, 1]^2, x to the right and y down,
    so that resizing is the identity. brightness, contrast, gamma, blur, jpeg and noise, f64[N] each, are as in
    `AugmentParams`.
    """

    to_source: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    gamma: np.ndarray | None = None
    blur: np.ndarray | None = None
    jpeg: np.ndarray | None = None
    noise: np.ndarray | None = None
    noise_seed: np.ndarray | None = None  # u32[N]


Recipe = Callable[[np.random.Generator, int], RecipeParams]
Step = Callable[[np.random.Generator, RecipeParams], RecipeParams]


def unchanged(n: int) -> RecipeParams:
    """The parameters of n images that stay as they are."""
    return RecipeParams(np.broadcast_to(np.eye(3), (n, 3, 3)), np.ones(n), np.ones(n))


def _draw_flip(rng: np.random.Generator, n: int) -> RecipeParams:
    return unchanged(n)._replace(to_source=_mirror(rng.random(n) < 0.5))


def _draw_emotion_cnn(rng: np.random.Generator, n: int) -> RecipeParams:
    augmented = rng.random(n) < 0.5
    flip = rng.random(n) < 0.5
    turn = rng.uniform(-10, 10, n)
    brightness, contrast = rng.uniform(0.95, 1.05, (2, n))
    side = np.sqrt(rng.uniform(0.9, 1, n))
    centre = rng.uniform(-1, 1, (2, n)) * (1 - side)
    tilt = rng.uniform(-10, 10, n)
    shift = 2 * rng.uniform(-0.1, 0.1, (2, n))
    to_source = emotion_cnn_map(flip, turn, side, centre, tilt, shift)
    to_source[~augmented] = np.eye(3)
    return RecipeParams(to_source, np.where(augmented, brightness, 1), np.where(augmented, contrast, 1))


def emotion_cnn_map(
    flip: np.ndarray, turn: np.ndarray, side: np.ndarray, centre: np.ndarray, tilt: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """`RecipeParams.to_source` of images mirrored, rotated, cropped, rotated again and shifted, in this order.

    The recipe's detour through 40x40 is the identity here: it costs no second interpolation and no sharpness.

    Args:
        flip: bool[N], mirror.
        turn: f64[N], the first rotation, in degrees clockwise about the centre of the image.
        side: f64[N], the side of the crop; 1 is the whole image.
        centre: f64[2, N], the centre of the crop.
        tilt: f64[N], the second rotation, in degrees clockwise about the centre of the crop.
        shift: f64[2, N], right and down; 2 is a whole image.
    """
    crop = _affine(side, 0, 0, side, *centre)
    return _mirror(flip) @ _rotation(-turn) @ crop @ _rotation(-tilt) @ _affine(1, 0, 0, 1, *-shift)


def _draw_ferplus(rng: np.random.Generator, n: int) -> RecipeParams:
    scale = rng.uniform(1, 1.05, (2, n)) ** rng.choice([-1, 1], (2, n))
    skew = rng.uniform(-0.05, 0.05, (2, n))
    turn = rng.uniform(-20, 20, n)
    shift = 2 * rng.uniform(-0.08, 0.08, (2, n))
    flip = rng.random(n) < 0.5
    return RecipeParams(ferplus_map(scale, skew, turn, shift, flip), np.ones(n), np.ones(n))


def ferplus_map(
    scale: np.ndarray, skew: np.ndarray, turn: np.ndarray, shift: np.ndarray, flip: np.ndarray
) -> np.ndarray:
    """`RecipeParams.to_source` of the FER+ authors' distortion: images scaled, skewed, rotated, shifted, mirrored.

    Source: https://github.com/microsoft/FERPlus, src/img_util.py, distort_img and crop_img (there in y, x order).

    Args:
        scale: f64[2, N], source pixels per output pixel in x and y.
        skew: f64[2, N], of x by y and of y by x.
        turn: f64[N], the rotation in degrees clockwise.
        shift: f64[2, N], right and down; 2 is a whole image.
        flip: bool[N], mirror.
    """
    skewed = _affine(scale[0], 0, 0, scale[1]) @ _affine(1, 0, skew[1], 1) @ _affine(1, skew[0], 0, 1)
    return skewed @ _rotation(-turn) @ _affine(1, 0, 0, 1, *-shift) @ _mirror(flip)


def _zoom(rng: np.random.Generator, params: RecipeParams) -> RecipeParams:
    n = len(params.brightness)
    zoom = rng.uniform(1, 1.2, n) ** rng.choice([-1, 1], n)
    return params._replace(to_source=_affine(zoom, 0, 0, zoom) @ params.to_source)


def _light(rng: np.random.Generator, params: RecipeParams) -> RecipeParams:
    brightness, contrast = rng.uniform(0.8, 1.2, (2, len(params.brightness)))
    return params._replace(brightness=brightness, contrast=contrast)


def _gamma(rng: np.random.Generator, params: RecipeParams) -> RecipeParams:
    return params._replace(gamma=0.7 ** rng.uniform(-1, 1, len(params.brightness)))


def _blur(rng: np.random.Generator, params: RecipeParams) -> RecipeParams:
    blurred = rng.random(len(params.brightness)) < 0.5
    return params._replace(blur=np.where(blurred, np.sqrt(rng.random(len(blurred)) / 2), 0))


def _jpeg(rng: np.random.Generator, params: RecipeParams) -> RecipeParams:
    compressed = rng.random(len(params.brightness)) < 0.5
    return params._replace(jpeg=np.where(compressed, rng.integers(25, 96, len(compressed)), 0))


def _camera(rng: np.random.Generator, params: RecipeParams) -> RecipeParams:
    n = len(params.brightness)
    is_blurred, is_noisy, is_compressed = rng.random((3, n)) < 0.35
    return params._replace(
        blur=np.where(is_blurred, rng.uniform(0.3, 1.8, n), 0),
        noise=np.where(is_noisy, rng.uniform(2, 30, n), 0),
        noise_seed=rng.integers(0, 2**32, n, dtype=np.uint32),
        jpeg=np.where(is_compressed, rng.integers(10, 96, n), 0),
    )


def _extend(recipe: Recipe, *steps: Step) -> Recipe:
    """A recipe followed by steps, each of which changes the drawn parameters."""

    def draw(rng: np.random.Generator, n: int) -> RecipeParams:
        params = recipe(rng, n)
        for step in steps:
            params = step(rng, params)
        return params

    return draw


RECIPES: dict[str, Recipe] = {
    "none": lambda rng, n: unchanged(n),
    "flip": _draw_flip,  # half of the images mirrored: enough where training is short
    "emotion_cnn": _draw_emotion_cnn,  # of the project's README: half of the images get all of it, half nothing
    "ferplus": _draw_ferplus,  # of the FER+ paper: every image
    # ferplus and one more step: larger or smaller by up to a factor of 1.2; brightness and contrast +-20 % and a gamma
    # of 0.7 to 1 / 0.7; half of the images blurred; half of them as JPEG of a quality of 25 to 95
    "zoom": _extend(_draw_ferplus, _zoom),
    "light": _extend(_draw_ferplus, _light, _gamma),
    "blur": _extend(_draw_ferplus, _blur),
    "jpeg": _extend(_draw_ferplus, _jpeg),
    "strong": _extend(_draw_ferplus, _zoom, _light),
    "photo": _extend(_draw_ferplus, _zoom, _light, _gamma, _blur),  # other cameras and lights
    # strong, and each of blur (a deviation of 0.3 to 1.8 pixels), noise (2 to 30 grey levels) and JPEG (a quality of 10
    # to 95) on 35 % of the images: for few pixels, little light and small files
    "camera": _extend(_draw_ferplus, _zoom, _light, _camera),
}


def _affine(
    xx: ArrayLike, xy: ArrayLike, yx: ArrayLike, yy: ArrayLike, x: ArrayLike = 0, y: ArrayLike = 0
) -> np.ndarray:
    """The matrix of (x, y) -> (xx x + xy y + x, yx x + yy y + y): f64[N or 1, 3, 3]."""
    entries = np.broadcast_arrays(xx, xy, x, yx, yy, y, 0.0, 0.0, 1.0)
    return np.stack(entries, axis=-1).reshape(-1, 3, 3)


def _rotation(degrees: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return _affine(cos, -sin, sin, cos)


def _mirror(flip: np.ndarray) -> np.ndarray:
    return _affine(np.where(flip, -1, 1), 0, 0, 1)
