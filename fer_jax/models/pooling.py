"""2x2 max pooling, plain and anti-aliased, with gradients that run faster on CPUs than XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def _window_corners(x: Array) -> tuple[Array, Array, Array, Array]:
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2], x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2]


@jax.custom_vjp
def max_pool_2x2(x: Array) -> Array:
    """2x2 max pooling with stride 2: `nn.max_pool(x, (2, 2), (2, 2))` with a gradient that is fast on CPUs.

    `[B, H, W, C]` -> `[B, H // 2, W // 2, C]`; an odd last row or column is left out. Of equal values the first in row
    order gets the gradient, as in `nn.max_pool`.
    """
    a, b, c, d = _window_corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _max_pool_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    a, b, c, d = _window_corners(x)
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    winner = jnp.where(top >= bottom, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3)).astype(jnp.uint8)
    template = jnp.zeros((0, *x.shape[1:3]), jnp.uint8)  # an empty array keeps the input's shape, at no cost
    return jnp.maximum(top, bottom), (winner, template)


def _max_pool_backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array]:
    winner, template = residuals
    b, h, w, c = dy.shape
    corner = jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 2, 1, 2, 1)
    dx = jnp.where(winner[:, :, None, :, None] == corner, dy[:, :, None, :, None], jnp.zeros((), dy.dtype))
    dx = dx.reshape(b, 2 * h, 2 * w, c)
    _, height, width = template.shape
    return (jnp.pad(dx, ((0, 0), (0, height - 2 * h), (0, width - 2 * w), (0, 0))),)


max_pool_2x2.defvjp(_max_pool_forward, _max_pool_backward)


def max_blur_pool(x: Array) -> Array:
    """Anti-aliased max pooling (Zhang 2019, https://arxiv.org/abs/1904.11486): a shift by one pixel changes it little.

    The maximum of every 2x2 window, then the binomial filter [1 2 1] x [1 2 1] / 16 with stride 2 and mirrored borders:
    `[B, H, W, C]` -> `[B, H // 2, W // 2, C]`. Reverse-mode gradients only (a `custom_vjp`).
    """
    for axis in (1, 2):
        size = x.shape[axis]
        x = jnp.maximum(lax.slice_in_dim(x, 0, size - 1, axis=axis), lax.slice_in_dim(x, 1, size, axis=axis))
    return _blur(x)


def _lax_blur(x: Array) -> Array:
    for axis in (1, 2):
        last = (x.shape[axis] + 1) // 2 * 2 - 1
        padded = jnp.pad(x, [(1, 1) if axis == i else (0, 0) for i in range(4)], mode="reflect")
        left, centre, right = (lax.slice_in_dim(padded, i, i + last, stride=2, axis=axis) for i in range(3))
        x = 0.25 * left + 0.5 * centre + 0.25 * right
    return x


@jax.custom_vjp
def _blur(x: Array) -> Array:
    return _lax_blur(x)


def _blur_matrix(size: int) -> np.ndarray:
    """Return the blur of a line of pixels as a matrix: f32[(size + 1) // 2, size]."""
    matrix = np.zeros(((size + 1) // 2, size), np.float32)
    mirrored = np.pad(np.arange(size), 1, mode="reflect")
    for row in range(len(matrix)):
        np.add.at(matrix[row], mirrored[2 * row : 2 * row + 3], (0.25, 0.5, 0.25))
    return matrix


def _blur_forward(x: Array) -> tuple[Array, Array]:
    return _blur(x), jnp.zeros((0, *x.shape[1:]), x.dtype)


def _blur_backward(template: Array, dy: Array) -> tuple[Array]:
    """The gradient by two matrix products on CPUs: there the transposed slices are slow to run and to compile."""
    height, width = template.shape[1:3]

    def products(dy: Array) -> Array:
        rows, columns = (_blur_matrix(size).astype(dy.dtype) for size in (height, width))
        return jnp.einsum("jw,bhjc->bhwc", columns, jnp.einsum("ih,bijc->bhjc", rows, dy))

    def transposed(dy: Array) -> Array:
        x = jax.ShapeDtypeStruct((len(dy), *template.shape[1:]), dy.dtype)
        return jax.linear_transpose(_lax_blur, x)(dy)[0]

    if max(height, width) > 64:  # the time of a product grows with the side
        return (transposed(dy),)
    return (lax.platform_dependent(dy, cpu=products, default=transposed),)


_blur.defvjp(_blur_forward, _blur_backward)
