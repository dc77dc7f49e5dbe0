"""Augmentation recipes: what numpy draws for each training picture, before its size in pixels is known."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Draw(NamedTuple):
    """N pictures' parameters at no particular size.

    to_source f64[N, 3, 3] maps (x, y, 1) of the output to the source, where both are [-1, 1]^2, x to the right and y
    down, so that resizing is the identity; brightness, contrast, gamma, blur and jpeg, f64[N] each, as in
    `AugmentParams`.
    """

    to_source: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    gamma: np.ndarray | None = None
    blur: np.ndarray | None = None
    jpeg: np.ndarray | None = None


def unchanged(n: int) -> Draw:
    """Of n pictures that stay as they are."""
    return Draw(np.broadcast_to(np.eye(3), (n, 3, 3)), np.ones(n), np.ones(n))


def _draw_emotion_cnn(rng: np.random.Generator, n: int) -> Draw:
    touched = rng.random(n) < 0.5
    flip = rng.random(n) < 0.5
    turn = rng.uniform(-10, 10, n)
    brightness, contrast = rng.uniform(0.95, 1.05, (2, n))
    side = np.sqrt(rng.uniform(0.9, 1, n))
    centre = rng.uniform(-1, 1, (2, n)) * (1 - side)
    tilt = rng.uniform(-10, 10, n)
    shift = 2 * rng.uniform(-0.1, 0.1, (2, n))
    to_source = emotion_cnn_map(flip, turn, side, centre, tilt, shift)
    to_source[~touched] = np.eye(3)
    return Draw(to_source, np.where(touched, brightness, 1), np.where(touched, contrast, 1))


def emotion_cnn_map(
    flip: np.ndarray, turn: np.ndarray, side: np.ndarray, centre: np.ndarray, tilt: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """`Draw.to_source` of pictures mirrored, turned, cropped, tilted and shifted, in this order.

    flip bool[N]; turn and tilt f64[N], degrees clockwise, about the centre of the picture and of the crop; side f64[N]
    of the crop, 1 = the whole picture, and its centre f64[2, N]; shift f64[2, N], right and down, 2 = a whole picture.
    The recipe's detour through 40x40 is the identity here: it costs no second interpolation and no sharpness.
    """
    crop = _affine(side, 0, 0, side, *centre)
    return _mirror(flip) @ _rotation(-turn) @ crop @ _rotation(-tilt) @ _affine(1, 0, 0, 1, *-shift)


def _draw_ferplus(rng: np.random.Generator, n: int) -> Draw:
    scale = rng.uniform(1, 1.05, (2, n)) ** rng.choice([-1, 1], (2, n))
    skew = rng.uniform(-0.05, 0.05, (2, n))
    turn = rng.uniform(-20, 20, n)
    shift = 2 * rng.uniform(-0.08, 0.08, (2, n))
    flip = rng.random(n) < 0.5
    return Draw(ferplus_map(scale, skew, turn, shift, flip), np.ones(n), np.ones(n))


def ferplus_map(
    scale: np.ndarray, skew: np.ndarray, turn: np.ndarray, shift: np.ndarray, flip: np.ndarray
) -> np.ndarray:
    """`Draw.to_source` of the FER+ authors' distortion: pictures scaled, skewed, turned, shifted, then mirrored.

    scale f64[2, N], source pixels per output pixel in x and y; skew f64[2, N], of x by y and of y by x; turn f64[N],
    degrees clockwise; shift f64[2, N], right and down, 2 = a whole picture; flip bool[N].
    Source: https://github.com/microsoft/FERPlus, src/img_util.py, distort_img and crop_img (there in y, x order).
    """
    skewed = _affine(scale[0], 0, 0, scale[1]) @ _affine(1, 0, skew[1], 1) @ _affine(1, skew[0], 0, 1)
    return skewed @ _rotation(-turn) @ _affine(1, 0, 0, 1, *-shift) @ _mirror(flip)


def _zoom(rng: np.random.Generator, drawn: Draw) -> Draw:
    n = len(drawn.brightness)
    zoom = rng.uniform(1, 1.2, n) ** rng.choice([-1, 1], n)
    return drawn._replace(to_source=_affine(zoom, 0, 0, zoom) @ drawn.to_source)


def _light(rng: np.random.Generator, drawn: Draw) -> Draw:
    brightness, contrast = rng.uniform(0.8, 1.2, (2, len(drawn.brightness)))
    return drawn._replace(brightness=brightness, contrast=contrast)


def _gamma(rng: np.random.Generator, drawn: Draw) -> Draw:
    return drawn._replace(gamma=0.7 ** rng.uniform(-1, 1, len(drawn.brightness)))


def _blur(rng: np.random.Generator, drawn: Draw) -> Draw:
    blurred = rng.random(len(drawn.brightness)) < 0.5
    return drawn._replace(blur=np.where(blurred, rng.random(len(blurred)), 0))


def _jpeg(rng: np.random.Generator, drawn: Draw) -> Draw:
    compressed = rng.random(len(drawn.brightness)) < 0.5
    return drawn._replace(jpeg=np.where(compressed, rng.integers(25, 96, len(compressed)), 0))


Recipe = Callable[[np.random.Generator, int], Draw]


def _then(first: Recipe, *steps: Callable[[np.random.Generator, Draw], Draw]) -> Recipe:
    """A recipe and more, each of which adds to what is drawn."""

    def draw(rng: np.random.Generator, n: int) -> Draw:
        drawn = first(rng, n)
        for step in steps:
            drawn = step(rng, drawn)
        return drawn

    return draw


def _draw_flip(rng: np.random.Generator, n: int) -> Draw:
    return unchanged(n)._replace(to_source=_mirror(rng.random(n) < 0.5))


RECIPES: dict[str, Recipe] = {
    "none": lambda rng, n: unchanged(n),
    "flip": _draw_flip,  # half of the pictures mirrored: enough where training is short
    "emotion_cnn": _draw_emotion_cnn,  # of the project's README: half of the pictures get all of it, half nothing
    "ferplus": _draw_ferplus,  # of the FER+ paper: every picture
    # ferplus and one thing more: larger or smaller by up to a factor of 1.2; brightness and contrast +-20 % and a gamma
    # of 0.7 to 1 / 0.7; half of the pictures blurred; half of them as JPEG of a quality of 25 to 95
    "zoom": _then(_draw_ferplus, _zoom),
    "light": _then(_draw_ferplus, _light, _gamma),
    "blur": _then(_draw_ferplus, _blur),
    "jpeg": _then(_draw_ferplus, _jpeg),
    "strong": _then(_draw_ferplus, _zoom, _light),
    "photo": _then(_draw_ferplus, _zoom, _light, _gamma, _blur),  # other cameras and lights
}


def _affine(
    xx: ArrayLike, xy: ArrayLike, yx: ArrayLike, yy: ArrayLike, x: ArrayLike = 0, y: ArrayLike = 0
) -> np.ndarray:
    """f64[N or 1, 3, 3] of (x, y) -> (xx x + xy y + x, yx x + yy y + y)."""
    entries = np.broadcast_arrays(xx, xy, x, yx, yy, y, 0.0, 0.0, 1.0)
    return np.stack(entries, axis=-1).reshape(-1, 3, 3)


def _rotation(degrees: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return _affine(cos, -sin, sin, cos)


def _mirror(flip: np.ndarray) -> np.ndarray:
    return _affine(np.where(flip, -1, 1), 0, 0, 1)
