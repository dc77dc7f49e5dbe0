"""3x3 convolution and 2x2 max pooling whose gradients are fast on a CPU."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

# A chunk's patch matrix should stay in the cache between being written and being multiplied.
CHUNK_BYTES = 4 << 20


def _lax_conv3x3(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _lax_kernel_gradient(x: Array, dy: Array) -> Array:
    kernel = jnp.zeros((3, 3, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.vjp(lambda k: _lax_conv3x3(x, k), kernel)[1](dy)[0]


def _matmul_kernel_gradient(x: Array, dy: Array) -> Array:
    """The kernel's gradient as matrix products, summed in f32 over chunks of pictures.

    A chunk's three column shifts are laid side by side once; its three row shifts are then slices of that, each
    multiplied with dy. Laying out all nine taps (im2col) is no faster and takes XLA twice as long to compile.
    """
    b, h, w, c_in = x.shape
    c_out = dy.shape[-1]
    picture_bytes = h * w * 9 * c_in * x.dtype.itemsize
    chunk = max(n for n in range(1, b + 1) if b % n == 0 and (n == 1 or n * picture_bytes <= CHUNK_BYTES))

    def add_chunk(total: Array, pictures: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = pictures
        columns = jnp.concatenate([x[:, :, j : j + w] for j in range(3)], axis=-1)
        columns = lax.optimization_barrier(columns)  # or XLA would lay them out anew for each row shift
        dy = dy.reshape(-1, c_out)
        rows = [columns[:, i : i + h].reshape(-1, 3 * c_in) for i in range(3)]
        products = [lax.dot_general(dy, r, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32) for r in rows]
        return total + jnp.stack(products), None

    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    chunks = jax.tree.map(lambda a: a.reshape(-1, chunk, *a.shape[1:]), (padded, dy))
    total, _ = lax.scan(add_chunk, jnp.zeros((3, c_out, 3 * c_in), jnp.float32), chunks)
    return total.reshape(3, c_out, 3, c_in).transpose(0, 2, 3, 1).astype(x.dtype)


@jax.custom_vjp
def conv3x3(x: Array, kernel: Array) -> Array:
    """3x3 convolution, stride 1, zero padding, with a kernel gradient that is faster on CPU than lax's.

    x: `[B, H, W, C_in]`; kernel: `[3, 3, C_in, C_out]` of the same dtype; returns `[B, H, W, C_out]`.
    The gradient can be taken once (it is a `custom_vjp`).
    """
    return _lax_conv3x3(x, kernel)


def _conv3x3_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _conv3x3_backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    dx = jax.vjp(lambda x: _lax_conv3x3(x, kernel), x)[1](dy)[0]
    dkernel = lax.platform_dependent(x, dy, cpu=_matmul_kernel_gradient, default=_lax_kernel_gradient)
    return dx, dkernel


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


class Conv3x3(nn.Module):
    """`nn.Conv(features, (3, 3))` on `conv3x3`; parameters are the same, so checkpoints interchange.

    `[B, H, W, C]` -> `[B, H, W, features]`. dtype is what to compute in; None: that of input and parameters.
    """

    features: int
    use_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = (
            self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32) if self.use_bias else None
        )
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv3x3(x, kernel)
        return y if bias is None else y + bias


def _window_corners(x: Array) -> tuple[Array, Array, Array, Array]:
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2], x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2]


@jax.custom_vjp
def max_pool_2x2(x: Array) -> Array:
    """2x2 max pooling with stride 2: `nn.max_pool(x, (2, 2), (2, 2))` with a gradient that is fast on CPU.

    `[B, H, W, C]` -> `[B, H // 2, W // 2, C]`; an odd last row or column is left out. Among equal values the
    first in row order gets the gradient, as in `nn.max_pool`.
    """
    a, b, c, d = _window_corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _max_pool_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    a, b, c, d = _window_corners(x)
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    winner = jnp.where(top >= bottom, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3)).astype(jnp.uint8)
    return jnp.maximum(top, bottom), (winner, jnp.zeros((0, *x.shape[1:3]), jnp.uint8))


def _max_pool_backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array]:
    winner, of_shape = residuals
    b, h, w, c = dy.shape
    corner = jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 2, 1, 2, 1)
    dx = jnp.where(winner[:, :, None, :, None] == corner, dy[:, :, None, :, None], jnp.zeros((), dy.dtype))
    dx = dx.reshape(b, 2 * h, 2 * w, c)
    _, height, width = of_shape.shape
    return (jnp.pad(dx, ((0, 0), (0, height - 2 * h), (0, width - 2 * w), (0, 0))),)


max_pool_2x2.defvjp(_max_pool_forward, _max_pool_backward)
