"""Augmentation: numpy draws one row of parameters per picture, numpy or XLA renders the pixels.

`sample` draws; `render` (numpy) and `render_device` (XLA) turn 48x48 grey pictures and the drawn rows into
normalised network input. Both run the same arithmetic and agree within 1e-4 on a [-1, 1] scale.

Geometry is one 2x3 matrix per picture, from output pixel to source pixel, so a picture is interpolated once
however many steps its recipe lists. Interpolation is bilinear. Beyond its border a picture goes on as its mirror
image, the edge pixel repeated (d c b a | a b c d | d c b a), as in the FER+ authors' code. Last, a rectangle may be
erased: random erasing, Zhong et al. 2017 (https://arxiv.org/abs/1708.04896).
"""

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fer_jax.data import jpeg as jpeg_lib
from fer_jax.data.folders import SIDE
from fer_jax.data.recipes import RECIPES, Draw, unchanged

Array = np.ndarray | jax.Array
A = TypeVar("A", np.ndarray, jax.Array)

ERASED_AREA = (0.02, 0.2)  # of the picture
ERASED_ASPECT = 0.3  # height / width at least; at most its inverse
CHUNK = 24  # pictures per turn of the numpy renderer, so that its intermediate arrays stay in the cache


class AugmentParams(NamedTuple):
    """What is done to N pictures, in numpy.

    matrix f32[N, 2, 3] maps (x, y, 1) of an output pixel centre to (x, y) of the source pixel centre it shows, the
    top left pixel being (0, 0); it is used to the nearest 2^-16. brightness f32[N] multiplies, contrast f32[N]
    multiplies the distance from the picture's mean; at 1 they change nothing. erased i32[N, 4] are left, top, right and
    bottom (the last two exclusive) of output pixels that get the mean of the finished picture, or all 0; None for none.

    gamma f32[N], above 0, makes pixel values v into 255 (v / 255)^gamma, before brightness; "ferplus" equalises and
    leaves no gamma to set. blur f32[N], 0..1, is the share of the warped picture that is replaced by its blur with
    [1 2 1] x [1 2 1] / 16. jpeg i32[N] is the quality, 1 to 100, at which the source picture is compressed as JPEG
    before all else, or 0. None for none: at 1 and 0 they change nothing either, but cost time.
    """

    matrix: Array
    brightness: Array
    contrast: Array
    erased: Array | None = None
    gamma: Array | None = None
    blur: Array | None = None
    jpeg: Array | None = None


def sample(rng: np.random.Generator, n: int, recipe: str, size: int, erase: float = 0.0) -> AugmentParams:
    """Parameters of n training pictures to be rendered at `size`, drawn from `rng` alone and in a fixed order.

    Args:
        rng: the only source of chance.
        n: how many.
        recipe: a key of `RECIPES`.
        size: side of the output in pixels.
        erase: the probability that a rectangle is erased, of 2 to 20 % of the area, 0.3 to 3.3 times as high as wide.

    Raises:
        KeyError: `recipe` is not in `RECIPES`.
    """
    params = _params(RECIPES[recipe](rng, n), size)
    return params._replace(erased=_draw_erased(rng, n, size, erase)) if erase else params


def identity(n: int, size: int) -> AugmentParams:
    """Parameters of n pictures as they are, resized to `size` (at 48 an exact copy)."""
    return _params(unchanged(n), size)


def _params(draw: Draw, size: int) -> AugmentParams:
    """From [-1, 1]^2 to pixels, whose centres lie at (2 k + 1) / size - 1 for k = 0 ... size - 1."""
    linear = draw.to_source[:, :2, :2] * (SIDE / size)
    middle = draw.to_source[:, :2, 2] * (SIDE / 2) + (SIDE - 1) / 2
    offset = middle - linear.sum(axis=2) * ((size - 1) / 2)
    matrix = np.concatenate([linear, offset[:, :, None]], axis=2)
    rest = (draw.brightness, draw.contrast, None, draw.gamma, draw.blur)
    jpeg = None if draw.jpeg is None else draw.jpeg.astype(np.int32)
    floats = jax.tree.map(lambda field: field.astype(np.float32), (matrix, *rest))
    return AugmentParams(*floats)._replace(jpeg=jpeg)


def _draw_erased(rng: np.random.Generator, n: int, size: int, probability: float) -> np.ndarray:
    chosen = rng.random(n) < probability
    area = rng.uniform(*ERASED_AREA, n)
    aspect = ERASED_ASPECT ** rng.uniform(-1, 1, n)
    extent = np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], axis=1)  # width and height, at most 0.82
    start = rng.random((n, 2)) * (1 - extent)
    box = np.rint(np.concatenate([start, start + extent], axis=1) * size)
    return np.where(chosen[:, None], box, 0).astype(np.int32)


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
    params = jax.tree.map(np.asarray, params)
    out = np.empty((len(images), size, size, 1), np.float32)
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        matrix, *rest, jpeg = jax.tree.map(itemgetter(rows), params)
        levels = prepare(images[rows] if jpeg is None else _compressed(images[rows], jpeg), np)
        out[rows, :, :, 0] = _after_warp(_warp_host(levels, matrix, size), finish, np, *rest)
    return out


def render_device(images: Array, params: AugmentParams, *, size: int, normalize: str) -> jax.Array:
    """The same as `render`, by XLA: pure, for use under jit, vmap and scan on any platform."""
    prepare, finish = NORMALIZATIONS[normalize]
    matrix, *rest, jpeg = jax.tree.map(jnp.asarray, params)
    images = jnp.asarray(images)
    levels = prepare(images if jpeg is None else jpeg_lib.compress(images, jpeg, jnp), jnp)
    return _after_warp(_warp_device(levels, matrix, size), finish, jnp, *rest)[..., None]


def unmoved(images: jax.Array, *, normalize: str) -> jax.Array:
    """What `render_device` makes of pictures that stay as they are, without interpolation.

    u8[N, 48, 48] -> f32[N, 48, 48, 1].
    """
    prepare, finish = NORMALIZATIONS[normalize]
    same = jnp.ones((1, 1, 1), jnp.float32)
    return finish(prepare(images, jnp).astype(jnp.float32), same, same, None, jnp)[..., None]


def _compressed(images: np.ndarray, jpeg: np.ndarray) -> np.ndarray:
    out, chosen = images.copy(), np.flatnonzero(jpeg)
    out[chosen] = jpeg_lib.compress(images[chosen], jpeg[chosen], np)
    return out


def _warp_host(levels: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    if size == SIDE:  # a picture that stays as it is need not be interpolated
        warped = levels.astype(np.float32)
        moved = np.flatnonzero((matrix != identity(1, SIDE).matrix).any(axis=(1, 2)))
    else:
        warped = np.empty((len(levels), size, size), np.float32)
        moved = np.arange(len(levels))
    cell, x, y = _cells(matrix[moved], size, np)
    cell += (moved * SIDE**2).astype(np.int32)[:, None, None]
    flat = levels.reshape(-1)

    def pixels(step: int) -> np.ndarray:
        return flat.take(cell + step, mode="clip")  # nothing to clip; the default mode is slower

    upper, lower = (_mix(pixels(row), pixels(row + 1), x) for row in (0, SIDE))
    warped[moved] = _mix(upper, lower, y)
    return warped


def _warp_device(levels: jax.Array, matrix: jax.Array, size: int) -> jax.Array:
    cell, x, y = _cells(matrix, size, jnp)
    flat = levels.reshape(len(levels), -1)

    def pixels(step: jax.Array) -> jax.Array:
        index = (cell + step).reshape(len(levels), -1)
        return jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds").reshape(cell.shape)

    def add_row(row: jax.Array, upper: jax.Array) -> jax.Array:
        lower = _mix(pixels(row * SIDE), pixels(row * SIDE + 1), x)
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
        centre = abs(edge - 2 * SIDE * xp.rint(edge * (0.5 / SIDE))) - 0.5  # mirrored into -0.5..47.5
        low = xp.clip(xp.floor(centre), 0, SIDE - 2)
        return low, xp.clip(centre - low, 0, 1)

    (x_low, x), (y_low, y) = along(0), along(1)
    return (y_low * SIDE + x_low).astype(np.int32), x, y


def _mix(a: A, b: A, share: A) -> A:
    a, b = a.astype(np.float32), b.astype(np.float32)
    return a + share * (b - a)


def _after_warp(
    x: A,
    finish: Callable[..., A],
    xp: ModuleType,
    brightness: A,
    contrast: A,
    erased: A | None,
    gamma: A | None,
    blur: A | None,
) -> A:
    x = x if blur is None else _blur(x, blur[:, None, None], xp)
    gamma = None if gamma is None else gamma[:, None, None]
    x = finish(x, brightness[:, None, None], contrast[:, None, None], gamma, xp)
    return x if erased is None else _erase(x, erased, xp)


def _blur(x: A, share: A, xp: ModuleType) -> A:
    """Sums of neighbours, twice in each direction; beyond its border the picture goes on as its mirror image."""
    blurred = xp.pad(x, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    for _ in range(2):
        blurred = blurred[:, :-1] + blurred[:, 1:]
        blurred = blurred[:, :, :-1] + blurred[:, :, 1:]
    return _mix(x, blurred / 16, share)


def _pixels(images: A, xp: ModuleType) -> A:
    return images


def _scale(x: A, brightness: A, contrast: A, gamma: A | None, xp: ModuleType) -> A:
    """Gamma, brightness, then contrast, within 0..255 as in torchvision's ColorJitter, then [-1, 1]."""
    if gamma is not None:  # as exp and log, in numpy faster than a power; of 0 numpy has no log without a warning
        x = 255 * xp.exp(gamma * xp.log(xp.maximum(x, 1e-30) / 255))
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


def _standardize(x: A, brightness: A, contrast: A, gamma: A | None, xp: ModuleType) -> A:
    """Ranks to [-1, 1], less their least-squares plane 1, x, y, to unit variance; a flat picture becomes 0."""
    x = x * (2 / SIDE**2) - 1
    ramp = xp.arange(x.shape[1], dtype=np.float32) - (x.shape[1] - 1) / 2
    across, down = x.mean(axis=1), x.mean(axis=2)

    def line(profile: A) -> A:
        return (profile * ramp).sum(axis=1, keepdims=True) / (ramp * ramp).sum() * ramp

    mean = across.mean(axis=1)[:, None, None]
    x = x - (mean + line(across)[:, None, :] + line(down)[:, :, None])
    deviation = xp.sqrt((x * x).mean(axis=(1, 2), keepdims=True))
    return x / xp.where(deviation > 1e-6, deviation, 1)


# What makes u8[N, 48, 48] into the values that are interpolated, and what makes these into network input. "ferplus" is
# the FER+ authors' preproc_img, but for equalising before the warp; it leaves no brightness, contrast and gamma to set.
NORMALIZATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "scale": (_pixels, _scale),
    "ferplus": (_ranks, _standardize),
}


def _erase(x: A, erased: A, xp: ModuleType) -> A:
    return xp.where(inside(erased, x.shape[1], xp), x.mean(axis=(1, 2), keepdims=True), x)


def inside(boxes: A, size: int, xp: ModuleType) -> A:
    """Which pixels lie in each box, i32[N, 4] of left, top, right, bottom (the last two exclusive): bool[N, S, S]."""
    place = xp.arange(size, dtype=np.int32)
    left, top, right, bottom = (boxes[:, side, None] for side in range(4))
    across, down = (left <= place) & (place < right), (top <= place) & (place < bottom)
    return down[:, :, None] & across[:, None, :]


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Pictures side by side, `columns` to a row, each stretched to 0..255: f32[N, S, S, 1] -> u8[H, W]."""
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    stretched = (images - low) / np.where(high > low, high - low, 1) * 255
    tiles = np.round(stretched[..., 0]).astype(np.uint8)
    rows = -(-len(tiles) // columns)
    tiles = np.concatenate([tiles, np.zeros((rows * columns - len(tiles), *tiles.shape[1:]), np.uint8)])
    size = tiles.shape[1]
    return tiles.reshape(rows, columns, size, size).swapaxes(1, 2).reshape(rows * size, columns * size)
