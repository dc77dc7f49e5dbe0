"""Augmentation: numpy draws one row of parameters per image, numpy or XLA renders the pixels.

`sample` draws; `render` (numpy) and `render_device` (XLA) turn 48x48 grey images and their parameters into
normalised network input. Both run the same arithmetic and agree within 1e-4 on a [-1, 1] scale.

Geometry is one 2x3 matrix per image, from output pixel to source pixel, so an image is interpolated once, however
many steps its recipe lists. Interpolation is bilinear. Beyond its border an image continues as its mirror image, the
edge pixel repeated (d c b a | a b c d | d c b a), as in the FER+ authors' code. Last, a rectangle may be erased:
random erasing, Zhong et al. 2017 (https://arxiv.org/abs/1708.04896).
"""

from collections.abc import Callable
from operator import itemgetter
from types import ModuleType
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fer_jax.data import degradation
from fer_jax.data.folders import SIDE
from fer_jax.data.normalize import NORMALIZATIONS
from fer_jax.data.recipes import RECIPES, RecipeParams, unchanged

Array = np.ndarray | jax.Array
A = TypeVar("A", np.ndarray, jax.Array)

ERASED_AREA = (0.02, 0.2)  # as a fraction of the image
ERASED_ASPECT = 0.3  # height / width at least; at most its inverse
CHUNK = 24  # images that the numpy renderer handles at a time, so that its intermediate arrays stay in the cache


class AugmentParams(NamedTuple):
    """The augmentation of N images at one output size, in numpy.

    None skips a step. A brightness, contrast or gamma of 1 and a blur, jpeg or noise of 0 change nothing either.
    """

    # f32[N, 2, 3]: from (x, y, 1) of an output pixel centre to (x, y) of the source pixel centre that it shows. The
    # top left pixel is (0, 0). Entries are rounded to 2^-16.
    matrix: Array
    # f32[N]: the factor of pixel values.
    brightness: Array
    # f32[N]: the factor of the distance from the image's mean.
    contrast: Array
    # i32[N, 4]: left, top, right and bottom (the last two exclusive) of the output pixels that get the mean of the
    # finished image; all 0 for none.
    erased: Array | None = None
    # f32[N], above 0: turns pixel values v into 255 (v / 255)^gamma, before brightness. The normalisation "ferplus"
    # ignores brightness, contrast and gamma, as it equalises.
    gamma: Array | None = None
    # f32[N]: the standard deviation, in pixels of a 48x48 image, of the Gaussian that blurs the warped image.
    blur: Array | None = None
    # i32[N]: the quality, 1 to 100, at which the source image is compressed as JPEG before it is warped; 0 for none.
    jpeg: Array | None = None
    # f32[N]: the standard deviation, in grey levels, of the noise that the source image gets before all else.
    noise: Array | None = None
    # u32[N]: the seed of each image's noise; None only where noise is.
    noise_seed: Array | None = None


def sample(rng: np.random.Generator, n: int, recipe: str, size: int, erase: float = 0.0) -> AugmentParams:
    """Draw the parameters of n training images to be rendered at `size`, from `rng` alone and in a fixed order.

    Args:
        rng: the only source of randomness.
        n: number of images.
        recipe: a key of `RECIPES`.
        size: side of the output in pixels.
        erase: the probability that a rectangle is erased, of 2 to 20 % of the area, 0.3 to 3.3 times as high as wide.

    Raises:
        KeyError: `recipe` is not in `RECIPES`.
    """
    params = _at_size(RECIPES[recipe](rng, n), size)
    return params._replace(erased=_draw_erased(rng, n, size, erase)) if erase else params


def identity(n: int, size: int) -> AugmentParams:
    """The parameters of n images as they are, resized to `size` (at 48 an exact copy)."""
    return _at_size(unchanged(n), size)


def _at_size(params: RecipeParams, size: int) -> AugmentParams:
    """The parameters in pixels instead of [-1, 1]^2: pixel centres are (2 k + 1) / size - 1, k = 0 ... size - 1."""
    linear = params.to_source[:, :2, :2] * (SIDE / size)
    middle = params.to_source[:, :2, 2] * (SIDE / 2) + (SIDE - 1) / 2
    offset = middle - linear.sum(axis=2) * ((size - 1) / 2)
    matrix = np.concatenate([linear, offset[:, :, None]], axis=2)
    fields = (matrix, params.brightness, params.contrast, None, params.gamma, params.blur, None, params.noise)
    jpeg = None if params.jpeg is None else params.jpeg.astype(np.int32)
    floats = jax.tree.map(lambda field: field.astype(np.float32), fields)
    return AugmentParams(*floats)._replace(jpeg=jpeg, noise_seed=params.noise_seed)


def _draw_erased(rng: np.random.Generator, n: int, size: int, probability: float) -> np.ndarray:
    is_erased = rng.random(n) < probability
    area = rng.uniform(*ERASED_AREA, n)
    aspect = ERASED_ASPECT ** rng.uniform(-1, 1, n)
    extent = np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], axis=1)  # width and height, at most 0.82
    start = rng.random((n, 2)) * (1 - extent)
    box = np.rint(np.concatenate([start, start + extent], axis=1) * size)
    return np.where(is_erased[:, None], box, 0).astype(np.int32)


def render(images: np.ndarray, params: AugmentParams, *, size: int, normalize: str) -> np.ndarray:
    """Warp and normalise images with numpy, on one core.

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
    rendered = np.empty((len(images), size, size, 1), np.float32)
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        matrix, *after_warp, jpeg, noise, noise_seed = jax.tree.map(itemgetter(rows), params)
        values = prepare(degradation.degraded(images[rows], jpeg, noise, noise_seed, np), np)
        rendered[rows, :, :, 0] = _after_warp(_warp_host(values, matrix, size), finish, np, *after_warp)
    return rendered


def render_device(images: Array, params: AugmentParams, *, size: int, normalize: str) -> jax.Array:
    """The same as `render`, by XLA: pure, for use under jit, vmap and scan on any platform."""
    prepare, finish = NORMALIZATIONS[normalize]
    matrix, *after_warp, jpeg, noise, noise_seed = jax.tree.map(jnp.asarray, params)
    values = prepare(degradation.degraded(jnp.asarray(images), jpeg, noise, noise_seed, jnp), jnp)
    return _after_warp(_warp_device(values, matrix, size), finish, jnp, *after_warp)[..., None]


def _warp_host(values: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    if size == SIDE:  # an image that stays as it is need not be interpolated
        warped = values.astype(np.float32)
        rows = np.flatnonzero((matrix != identity(1, SIDE).matrix).any(axis=(1, 2)))
    else:
        warped = np.empty((len(values), size, size), np.float32)
        rows = np.arange(len(values))
    cell, x, y = _cells(matrix[rows], size, np)
    cell += (rows * SIDE**2).astype(np.int32)[:, None, None]
    flat = values.reshape(-1)

    def pixels(step: int) -> np.ndarray:
        return flat.take(cell + step, mode="clip")  # nothing to clip; the default mode is slower

    upper, lower = (_interpolate(pixels(row), pixels(row + 1), x) for row in (0, SIDE))
    warped[rows] = _interpolate(upper, lower, y)
    return warped


def _warp_device(values: jax.Array, matrix: jax.Array, size: int) -> jax.Array:
    cell, x, y = _cells(matrix, size, jnp)
    flat = values.reshape(len(values), -1)

    def pixels(step: jax.Array) -> jax.Array:
        index = (cell + step).reshape(len(values), -1)
        return jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds").reshape(cell.shape)

    def add_row(row: jax.Array, upper: jax.Array) -> jax.Array:
        lower = _interpolate(pixels(row * SIDE), pixels(row * SIDE + 1), x)
        return _interpolate(upper, lower, jnp.where(row == 0, 1, y))

    # A loop, because XLA fuses nothing into it or out of it. Otherwise it computes the cells again for each pixel it
    # reads, on most CPUs without vector instructions, and the image again for each use of it.
    return lax.fori_loop(0, 2, add_row, jnp.zeros(cell.shape, jnp.float32))


def _cells(matrix: A, size: int, xp: ModuleType) -> tuple[A, A, A]:
    """The source position of each output pixel: the first pixel of its 2x2 cell, and x and y within the cell.

    The matrix is rounded to 2^-16. All sums are then exact in f32 (up to 256 pixels away). So cell, x and y belong to
    the same cell even where a compiler computes each of them separately, with other rounding.

    Returns:
        (i32[N, S, S], f32[N, S, S], f32[N, S, S]).
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


def _interpolate(a: A, b: A, weight: A) -> A:
    a, b = a.astype(np.float32), b.astype(np.float32)
    return a + weight * (b - a)


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
    x = x if blur is None else degradation.blurred(x, blur, xp)
    gamma = None if gamma is None else gamma[:, None, None]
    x = finish(x, brightness[:, None, None], contrast[:, None, None], gamma, xp)
    return x if erased is None else _erase(x, erased, xp)


def _erase(x: A, erased: A, xp: ModuleType) -> A:
    return xp.where(inside(erased, x.shape[1], xp), x.mean(axis=(1, 2), keepdims=True), x)


def inside(boxes: A, size: int, xp: ModuleType) -> A:
    """The mask of the pixels in each box, i32[N, 4] of left, top, right, bottom (last two exclusive): bool[N, S, S]."""
    position = xp.arange(size, dtype=np.int32)
    left, top, right, bottom = (boxes[:, side, None] for side in range(4))
    across, down = (left <= position) & (position < right), (top <= position) & (position < bottom)
    return down[:, :, None] & across[:, None, :]


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images side by side, `columns` to a row, each stretched to 0..255: f32[N, S, S, 1] -> u8[H, W]."""
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    stretched = (images - low) / np.where(high > low, high - low, 1) * 255
    tiles = np.round(stretched[..., 0]).astype(np.uint8)
    rows = -(-len(tiles) // columns)
    tiles = np.concatenate([tiles, np.zeros((rows * columns - len(tiles), *tiles.shape[1:]), np.uint8)])
    size = tiles.shape[1]
    return tiles.reshape(rows, columns, size, size).swapaxes(1, 2).reshape(rows * size, columns * size)
