"""Augmentation: numpy draws one row of parameters per picture, numpy or XLA renders the pixels.

`sample` draws; `render` (numpy) and `render_device` (XLA) turn 48x48 grey pictures and the drawn rows into
normalised network input. Both run the same arithmetic and agree within 1e-4 on a [-1, 1] scale.

Geometry is one 2x3 matrix per picture, from output pixel to source pixel, so a picture is interpolated once
however many steps its recipe lists. Interpolation is bilinear. Beyond its border a picture goes on as its mirror
image, the edge pixel repeated (d c b a | a b c d | d c b a), as in the FER+ authors' code.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import ArrayLike

Array = np.ndarray | jax.Array
A = TypeVar("A", np.ndarray, jax.Array)

SOURCE = 48  # side of a FER2013 picture, in pixels
CHUNK = 24  # pictures per turn of the numpy renderer, so that its intermediate arrays stay in the cache


class AugmentParams(NamedTuple):
    """What is done to N pictures, in numpy float32.

    matrix f32[N, 2, 3] maps (x, y, 1) of an output pixel centre to (x, y) of the source pixel centre it shows, the
    top left pixel being (0, 0); it is used to the nearest 2^-16. brightness f32[N] multiplies, contrast f32[N]
    multiplies the distance from the picture's mean; at 1 they change nothing.
    """

    matrix: Array
    brightness: Array
    contrast: Array


def sample(rng: np.random.Generator, n: int, recipe: str, size: int) -> AugmentParams:
    """Parameters of n training pictures to be rendered at `size`, drawn from `rng` alone and in a fixed order.

    Raises:
        KeyError: `recipe` is not in `RECIPES`.
    """
    return _params(RECIPES[recipe](rng, n), size)


def identity(n: int, size: int) -> AugmentParams:
    """Parameters of n pictures as they are, resized to `size` (at 48 an exact copy)."""
    return _params(_unchanged(n), size)


class Draw(NamedTuple):
    """N pictures' parameters at no particular size.

    to_source f64[N, 3, 3] maps (x, y, 1) of the output to the source, where both are [-1, 1]^2, x to the right and y
    down, so that resizing is the identity; brightness f64[N] and contrast f64[N] as in `AugmentParams`.
    """

    to_source: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray


def _unchanged(n: int) -> Draw:
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


def _draw_flip(rng: np.random.Generator, n: int) -> Draw:
    return _unchanged(n)._replace(to_source=_mirror(rng.random(n) < 0.5))


RECIPES: dict[str, Callable[[np.random.Generator, int], Draw]] = {
    "none": lambda rng, n: _unchanged(n),
    "flip": _draw_flip,  # half of the pictures mirrored: enough where training is short
    "emotion_cnn": _draw_emotion_cnn,  # of the project's README: half of the pictures get all of it, half nothing
    "ferplus": _draw_ferplus,  # of the FER+ paper: every picture
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


def _params(draw: Draw, size: int) -> AugmentParams:
    """From [-1, 1]^2 to pixels, whose centres lie at (2 k + 1) / size - 1 for k = 0 ... size - 1."""
    linear = draw.to_source[:, :2, :2] * (SOURCE / size)
    middle = draw.to_source[:, :2, 2] * (SOURCE / 2) + (SOURCE - 1) / 2
    offset = middle - linear.sum(axis=2) * ((size - 1) / 2)
    matrix = np.concatenate([linear, offset[:, :, None]], axis=2)
    return AugmentParams(*(a.astype(np.float32) for a in (matrix, draw.brightness, draw.contrast)))


def render(images: np.ndarray, params: AugmentParams, *, size: int, normalize: str) -> np.ndarray:
    """Warp and normalise pictures with numpy, on one core.

    Args:
        images: u8[N, 48, 48].
        params: N rows, drawn for this `size`.
        size: side of the output in pixels. Below 48, pixels are interpolated but not averaged.
        normalize: a key of `NORMALIZATIONS`.

    Returns:
        f32[N, size, size, 1].

    Raises:
        KeyError: `normalize` is not in `NORMALIZATIONS`.
    """
    prepare, finish = NORMALIZATIONS[normalize]
    out = np.empty((len(images), size, size, 1), np.float32)
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        matrix, brightness, contrast = (np.asarray(a[rows]) for a in params)
        warped = _warp_host(prepare(images[rows], np), matrix, size)
        out[rows, :, :, 0] = finish(warped, brightness[:, None, None], contrast[:, None, None], np)
    return out


def render_device(images: Array, params: AugmentParams, *, size: int, normalize: str) -> jax.Array:
    """The same as `render`, by XLA: pure, for use under jit, vmap and scan on any platform."""
    prepare, finish = NORMALIZATIONS[normalize]
    matrix, brightness, contrast = (jnp.asarray(a) for a in params)
    warped = _warp_device(prepare(jnp.asarray(images), jnp), matrix, size)
    return finish(warped, brightness[:, None, None], contrast[:, None, None], jnp)[..., None]


def _warp_host(levels: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    if size == SOURCE:  # a picture that stays as it is need not be interpolated
        warped = levels.astype(np.float32)
        moved = np.flatnonzero((matrix != identity(1, SOURCE).matrix).any(axis=(1, 2)))
    else:
        warped = np.empty((len(levels), size, size), np.float32)
        moved = np.arange(len(levels))
    cell, x, y = _cells(matrix[moved], size, np)
    cell += (moved * SOURCE**2).astype(np.int32)[:, None, None]
    flat = levels.reshape(-1)

    def pixels(step: int) -> np.ndarray:
        return flat.take(cell + step, mode="clip")  # nothing to clip; the default mode is slower

    upper, lower = (_mix(pixels(row), pixels(row + 1), x) for row in (0, SOURCE))
    warped[moved] = _mix(upper, lower, y)
    return warped


def _warp_device(levels: jax.Array, matrix: jax.Array, size: int) -> jax.Array:
    cell, x, y = _cells(matrix, size, jnp)
    flat = levels.reshape(len(levels), -1)

    def pixels(step: jax.Array) -> jax.Array:
        index = (cell + step).reshape(len(levels), -1)
        return jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds").reshape(cell.shape)

    def add_row(row: jax.Array, upper: jax.Array) -> jax.Array:
        lower = _mix(pixels(row * SOURCE), pixels(row * SOURCE + 1), x)
        return _mix(upper, lower, jnp.where(row == 0, 1, y))

    # A loop because XLA fuses nothing into it or out of it. Otherwise it computes the cells anew for each pixel it
    # reads, on most CPUs without vector instructions, and the picture anew for each use of it.
    return lax.fori_loop(0, 2, add_row, jnp.zeros(cell.shape, jnp.float32))


def _cells(matrix: A, size: int, xp: ModuleType) -> tuple[A, A, A]:
    """Where output pixels lie in the source: i32[N, S, S] of a 2x2 cell's first pixel, x and y f32[N, S, S] in it.

    The matrix is rounded to 2^-16. All sums here are then exact in f32 (up to 256 pixels away), so that cell, x and y
    agree on the cell even where a compiler computes each from the start and rounds in its own way.
    """
    matrix = xp.rint(matrix * 2**16) / 2**16
    steps = xp.arange(size, dtype=np.float32)

    def along(axis: int) -> tuple[A, A]:
        dx, dy, offset = (matrix[:, axis, k, None] for k in range(3))
        edge = (dx * steps)[:, None, :] + (dy * steps + (offset + 0.5))[:, :, None]
        centre = abs(edge - 2 * SOURCE * xp.rint(edge * (0.5 / SOURCE))) - 0.5  # mirrored into -0.5..47.5
        low = xp.clip(xp.floor(centre), 0, SOURCE - 2)
        return low, xp.clip(centre - low, 0, 1)

    (x_low, x), (y_low, y) = along(0), along(1)
    return (y_low * SOURCE + x_low).astype(np.int32), x, y


def _mix(a: A, b: A, share: A) -> A:
    a, b = a.astype(np.float32), b.astype(np.float32)
    return a + share * (b - a)


def _pixels(images: A, xp: ModuleType) -> A:
    return images


def _scale(x: A, brightness: A, contrast: A, xp: ModuleType) -> A:
    """Brightness, then contrast, within 0..255 as in torchvision's ColorJitter, then [-1, 1]."""
    x = xp.clip(x * brightness, 0, 255)
    mean = x.mean(axis=(1, 2), keepdims=True)
    return xp.clip(contrast * x + (1 - contrast) * mean, 0, 255) / 127.5 - 1


def _ranks(images: A, xp: ModuleType) -> A:
    """How many of its picture's 2304 pixels are no brighter than each, u16: equalisation in whole numbers."""
    flat = images.reshape(len(images), -1)
    ranks: Any
    if xp is np:
        slots = flat + 256 * np.arange(len(flat), dtype=np.int32)[:, None]
        counts = np.bincount(slots.reshape(-1), minlength=256 * len(flat)).reshape(-1, 256)
        ranks = np.cumsum(counts, axis=1).astype(np.uint16).take(slots, mode="clip")
    else:
        cumulative = jnp.cumsum(jax.vmap(partial(jnp.bincount, length=256))(flat), axis=1).astype(np.uint16)
        ranks = jnp.take_along_axis(cumulative, flat.astype(np.int32), axis=1)
    return ranks.reshape(images.shape)


def _standardize(x: A, brightness: A, contrast: A, xp: ModuleType) -> A:
    """Ranks to [-1, 1], less their least-squares plane 1, x, y, to unit variance; a flat picture becomes 0."""
    x = x * (2 / SOURCE**2) - 1
    ramp = xp.arange(x.shape[1], dtype=np.float32) - (x.shape[1] - 1) / 2
    across, down = x.mean(axis=1), x.mean(axis=2)

    def line(profile: A) -> A:
        return (profile * ramp).sum(axis=1, keepdims=True) / (ramp * ramp).sum() * ramp

    mean = across.mean(axis=1)[:, None, None]
    x = x - (mean + line(across)[:, None, :] + line(down)[:, :, None])
    deviation = xp.sqrt((x * x).mean(axis=(1, 2), keepdims=True))
    return x / xp.where(deviation > 1e-6, deviation, 1)


# What makes u8[N, 48, 48] into the values that are interpolated, and what makes these into network input. "ferplus" is
# the FER+ authors' preproc_img, but for equalising before the warp; it leaves no brightness and contrast to set.
NORMALIZATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "scale": (_pixels, _scale),
    "ferplus": (_ranks, _standardize),
}


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Pictures side by side, `columns` to a row, each stretched to 0..255: f32[N, S, S, 1] -> u8[H, W]."""
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    stretched = (images - low) / np.where(high > low, high - low, 1) * 255
    tiles = np.round(stretched[..., 0]).astype(np.uint8)
    rows = -(-len(tiles) // columns)
    tiles = np.concatenate([tiles, np.zeros((rows * columns - len(tiles), *tiles.shape[1:]), np.uint8)])
    size = tiles.shape[1]
    return tiles.reshape(rows, columns, size, size).swapaxes(1, 2).reshape(rows * size, columns * size)
