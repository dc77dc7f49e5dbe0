"""Augmentation: numpy draws one row of parameters per picture, numpy or XLA renders the pixels.

`sample` draws; `render` (numpy) and `render_device` (XLA) turn 48x48 grey pictures and the drawn rows into
normalised network input. Both run the same arithmetic and agree within 1e-4 on a [-1, 1] scale.

Geometry is one 2x3 matrix per picture, from output pixel to source pixel, so a picture is interpolated once
however many steps its recipe lists. Interpolation is bilinear. Beyond its border a picture goes on as its mirror
image, the edge pixel repeated (d c b a | a b c d | d c b a), as in the FER+ authors' code.
"""

from collections.abc import Callable, Iterable
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
CORNERS = (0, 1, SOURCE, SOURCE + 1)  # of a 2x2 cell, as offsets into the rows of a picture laid end to end
CHUNK = 16  # pictures per turn of the numpy renderer, so that its intermediate arrays stay in the cache


class AugmentParams(NamedTuple):
    """What is done to N pictures, in numpy float32.

    matrix f32[N, 2, 3] maps (x, y, 1) of an output pixel centre to (x, y) of the source pixel centre it shows, the
    top left pixel being (0, 0); brightness f32[N] multiplies, contrast f32[N] multiplies the distance from the
    picture's mean. Brightness and contrast of 1 change nothing.
    """

    matrix: Array
    brightness: Array
    contrast: Array


def sample(rng: np.random.Generator, n: int, recipe: str, size: int) -> AugmentParams:
    """Parameters of n training pictures of `size` pixels a side, drawn from `rng` alone and in a fixed order.

    Raises:
        KeyError: `recipe` is not in `RECIPES`.
    """
    return RECIPES[recipe](rng, n, size)


def identity(n: int, size: int) -> AugmentParams:
    """Parameters of n pictures as they are, resized to `size` (at 48 an exact copy)."""
    ones = np.ones(n)
    return _params(np.tile(np.eye(3), (n, 1, 1)), ones, ones, size)


def _draw_none(rng: np.random.Generator, n: int, size: int) -> AugmentParams:
    return identity(n, size)


def _draw_emotion_cnn(rng: np.random.Generator, n: int, size: int) -> AugmentParams:
    touched = rng.random(n) < 0.5
    flip = rng.random(n) < 0.5
    turn = rng.uniform(-10, 10, n)
    brightness, contrast = rng.uniform(0.95, 1.05, (2, n))
    side = np.sqrt(rng.uniform(0.9, 1.0, n))
    centre = rng.uniform(-1, 1, (2, n)) * (1 - side)
    tilt = rng.uniform(-10, 10, n)
    shift = 2 * rng.uniform(-0.1, 0.1, (2, n))
    to_source = emotion_cnn_map(flip, turn, side, centre, tilt, shift)
    to_source[~touched] = np.eye(3)
    return _params(to_source, np.where(touched, brightness, 1), np.where(touched, contrast, 1), size)


def emotion_cnn_map(
    flip: np.ndarray,
    turn: np.ndarray,
    side: np.ndarray,
    centre: np.ndarray,
    tilt: np.ndarray,
    shift: np.ndarray,
) -> np.ndarray:
    """Flip, turn about the centre, crop, tilt about the crop's centre, shift: undone in one map, f64[N, 3, 3].

    The picture is [-1, 1]^2, x to the right and y down, before and after each step. In these coordinates a resize
    is the identity: the recipe's detour through 40x40 needs no interpolation of its own and costs no sharpness.

    Args:
        flip: bool[N], mirror left and right.
        turn: f64[N], degrees, clockwise on the screen.
        side: f64[N], side of the crop, 1 = the whole picture.
        centre: f64[2, N], x and y of the crop's centre.
        tilt: f64[N], degrees, as `turn`.
        shift: f64[2, N], x and y, 2 = the whole picture's width.
    """
    mirror = _affine(np.where(flip, -1, 1), 0, 0, 1)
    crop = _affine(side, 0, 0, side, *centre)
    return mirror @ _rotation(-turn) @ crop @ _rotation(-tilt) @ _affine(1, 0, 0, 1, *-shift)


def _draw_ferplus(rng: np.random.Generator, n: int, size: int) -> AugmentParams:
    shift = 2 * rng.uniform(-0.08, 0.08, (2, n))
    scale = rng.uniform(1, 1.05, (2, n)) ** rng.choice([-1, 1], (2, n))
    turn = rng.uniform(-20, 20, n)
    skew = rng.uniform(-0.05, 0.05, (2, n))
    flip = rng.random(n) < 0.5
    ones = np.ones(n)
    return _params(ferplus_map(shift, scale, turn, skew, flip), ones, ones, size)


def ferplus_map(
    shift: np.ndarray, scale: np.ndarray, turn: np.ndarray, skew: np.ndarray, flip: np.ndarray
) -> np.ndarray:
    """The FER+ authors' distortion, f64[N, 3, 3] on [-1, 1]^2: scale, skew y by x, skew x by y, turn, shift, flip.

    https://github.com/microsoft/FERPlus, src/img_util.py, which writes the same map for (y, x) rows.

    Args:
        shift: f64[2, N], x and y, 2 = the whole picture's width.
        scale: f64[2, N], x and y, source pixels per output pixel.
        turn: f64[N], degrees, clockwise on the screen.
        skew: f64[2, N], of x by y and of y by x.
        flip: bool[N], mirror left and right.
    """
    skew_xy = _affine(1, skew[0], 0, 1)
    skew_yx = _affine(1, 0, skew[1], 1)
    mirror = _affine(np.where(flip, -1, 1), 0, 0, 1)
    scaling = _affine(scale[0], 0, 0, scale[1])
    return scaling @ skew_yx @ skew_xy @ _rotation(-turn) @ _affine(1, 0, 0, 1, *-shift) @ mirror


RECIPES: dict[str, Callable[[np.random.Generator, int, int], AugmentParams]] = {
    "none": _draw_none,
    "emotion_cnn": _draw_emotion_cnn,  # half of the pictures get every step, the other half none
    "ferplus": _draw_ferplus,  # every picture
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


def _params(to_source: np.ndarray, brightness: np.ndarray, contrast: np.ndarray, size: int) -> AugmentParams:
    """From maps of [-1, 1]^2 to maps of pixel centres, which are at (2 p + 1) / size - 1."""
    linear = to_source[:, :2, :2] * (SOURCE / size)
    middle = to_source[:, :2, 2] * (SOURCE / 2) + (SOURCE - 1) / 2
    offset = middle - linear.sum(axis=2) * ((size - 1) / 2)
    matrix = np.concatenate([linear, offset[:, :, None]], axis=2)
    return AugmentParams(*(a.astype(np.float32) for a in (matrix, brightness, contrast)))


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
    levels, finish = NORMALIZATIONS[normalize]
    out = np.empty((len(images), size, size, 1), np.float32)
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        matrix, brightness, contrast = (np.asarray(a[rows]) for a in params)
        warped = _warp_host(levels(images[rows], np), matrix, size)
        out[rows, :, :, 0] = finish(warped, brightness[:, None, None], contrast[:, None, None], np)
    return out


def render_device(images: Array, params: AugmentParams, *, size: int, normalize: str) -> jax.Array:
    """The same as `render`, by XLA: pure, for use under jit, vmap and scan on any platform."""
    levels, finish = NORMALIZATIONS[normalize]
    matrix, brightness, contrast = (jnp.asarray(a) for a in params)
    with jax.default_matmul_precision("float32"):  # sums of pixels, which TF32 would round
        warped = _warp_device(levels(jnp.asarray(images), jnp), matrix, size)
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
    corners = [flat.take(cell + corner, mode="clip") for corner in CORNERS]  # quicker than raising, and never clips
    warped[moved] = _blend(corners, x, y)
    return warped


def _warp_device(levels: jax.Array, matrix: jax.Array, size: int) -> jax.Array:
    cell, x, y = _cells(matrix, size, jnp)
    flat, cells = levels.reshape(len(levels), -1), cell.reshape(len(levels), -1)

    def gather(corner: jax.Array) -> jax.Array:
        return jnp.take_along_axis(flat, cells + corner, axis=1, mode="promise_in_bounds").reshape(cell.shape)

    # The loop keeps XLA from fusing the coordinates into the gathers, where they are computed once per corner and,
    # on most CPUs, without vector instructions.
    return _blend(lax.map(gather, jnp.array(CORNERS)), x, y)


def _cells(matrix: A, size: int, xp: ModuleType) -> tuple[A, A, A]:
    """Where output pixels lie: i32[N, S, S] of the first corner of a 2x2 cell, and x, y f32[N, S, S] in 0..1 in it."""
    steps = xp.arange(size, dtype=np.float32)

    def along(axis: int) -> tuple[A, A]:
        dx, dy, offset = (matrix[:, axis, k, None] for k in range(3))
        edge = (dx * steps)[:, None, :] + (dy * steps + (offset + 0.5))[:, :, None]
        centre = abs(edge - 2 * SOURCE * xp.rint(edge * (0.5 / SOURCE))) - 0.5  # mirrored into -0.5..47.5
        low = xp.clip(xp.floor(centre), 0, SOURCE - 2)
        return low, xp.clip(centre - low, 0, 1)

    (x_low, x), (y_low, y) = along(0), along(1)
    return (y_low * SOURCE + x_low).astype(np.int32), x, y


def _blend(corners: Iterable[A], x: A, y: A) -> A:
    a, b, c, d = (corner.astype(np.float32) for corner in corners)
    upper = a + x * (b - a)
    lower = c + x * (d - c)
    return upper + y * (lower - upper)


def _pixels(images: A, xp: ModuleType) -> A:
    return images


def _scale(x: A, brightness: A, contrast: A, xp: ModuleType) -> A:
    """Brightness, then contrast, in 0..255 as in torchvision's ColorJitter, then [-1, 1]."""
    x = xp.clip(x * brightness, 0, 255)
    (mean,) = _project(x, [xp.ones_like(x[0])], xp)
    return xp.clip(contrast * x + (1 - contrast) * mean, 0, 255) / 127.5 - 1


def _equalize(images: A, xp: ModuleType) -> A:
    """Each picture's histogram made flat over [-1, 1]: 2 / 2304 of the number of pixels no brighter, less 1."""
    flat = images.reshape(len(images), -1)
    if xp is np:
        counts = np.stack([np.bincount(picture, minlength=256) for picture in flat])
    else:
        counts = jax.vmap(partial(jnp.bincount, length=256))(flat)
    values = (xp.cumsum(counts, axis=1) * (2 / SOURCE**2) - 1).astype(np.float32)
    return xp.take_along_axis(values, flat.astype(np.int32), axis=1).reshape(images.shape)


def _remove_plane(x: A, brightness: A, contrast: A, xp: ModuleType) -> A:
    """Less the least-squares plane 1, x, y, then to unit variance; a flat picture becomes 0."""
    ramp = xp.broadcast_to(xp.arange(x.shape[1], dtype=np.float32) - (x.shape[1] - 1) / 2, x.shape[1:])
    planes = [xp.ones_like(ramp), ramp, ramp.T]
    x = x - sum(c * plane for c, plane in zip(_project(x, planes, xp), planes, strict=True))
    deviation = xp.sqrt(xp.mean(x * x, axis=(1, 2), keepdims=True))
    return x / xp.where(deviation > 1e-6, deviation, 1)


def _project(x: A, planes: list[A], xp: ModuleType) -> list[A]:
    """Least-squares coefficients f32[N, 1, 1] of pictures f32[N, S, S] on orthogonal planes f32[S, S]."""
    basis = xp.stack([plane.reshape(-1) for plane in planes], axis=1)
    coefficients = x.reshape(len(x), -1) @ basis / (basis * basis).sum(axis=0)
    return [coefficients[:, k, None, None] for k in range(len(planes))]


class Normalization(NamedTuple):
    """`levels` makes what is interpolated from u8[N, 48, 48]; `finish` makes network input of what was."""

    levels: Callable[..., Any]
    finish: Callable[..., Any]


NORMALIZATIONS = {
    "scale": Normalization(_pixels, _scale),
    "ferplus": Normalization(_equalize, _remove_plane),  # of the FER+ paper; leaves no brightness and contrast to set
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
