"""3x3 convolution and batch normalisation that run faster on CPUs than XLA's own.

On other platforms convolutions and sums are XLA's own. docs/performance.md has the effect of each.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from fer_jax.models.symmetry import for_both, paired_kernel, sum_of_pairs

Convolution = Callable[[Array, Array], Array]  # (x, kernel) -> y
KernelGradient = Callable[[Array, Array], Array]  # (x, dy) -> the gradient of the kernel


def _lax_conv3x3(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _lax_kernel_gradient(x: Array, dy: Array) -> Array:
    kernel = jnp.zeros((3, 3, x.shape[-1], dy.shape[-1]), x.dtype)
    return jax.vjp(lambda k: _lax_conv3x3(x, k), kernel)[1](dy)[0]


def _winograd_tile(shape: tuple[int, ...], c_out: int) -> int:
    """Return the side of Winograd's output tiles, or 0 where lax is faster.

    Winograd's method saves products and adds transforms. These cost much in narrow layers, and the transform of the
    kernels costs much if the images are few. The weights are fitted to times of the layers of `registry.MODELS`.
    """
    batch, height, width, c_in = shape
    batch = batch if isinstance(batch, int) else 32  # jax.export leaves it open
    if not (3 <= height <= 48 and 3 <= width <= 48) or min(c_in, c_out) < 64:
        return 0

    def cost(tile: int) -> float:
        """The time for one image, in products."""
        values = (tile + 2) ** 2  # of a transformed tile
        tiles = -(-height // tile) * -(-width // tile)
        return values * (tiles * (c_in * c_out + 70 * (c_in + c_out)) + 24 * c_in * c_out / batch)

    tile = min((3, 4), key=cost)
    return tile if cost(tile) < 0.85 * 9 * height * width * c_in * c_out else 0


def _winograd_matrices(tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return B^T, G and A^T of F(tile x tile, 3 x 3) on flattened squares (Lavin & Gray 2015, section 4).

    https://arxiv.org/abs/1509.09308. The coefficients of a product of two polynomials follow
    from its values at some points, one of them infinity. This convolution is the transpose of that product.
    """
    points = [0, 1, -1, 2, -2][: tile + 1]

    def values(coefficients: int) -> np.ndarray:
        at_infinity = np.eye(coefficients)[-1]
        return np.array([*([p**k for k in range(coefficients)] for p in points), at_infinity], np.float64)

    b_t, g, a_t = np.linalg.inv(values(tile + 2)).T, values(3), values(tile).T
    largest = np.abs(b_t).max(axis=1, keepdims=True)  # with rows scaled to a maximum of 1, B^T loses less to rounding
    squares = [np.kron(matrix, matrix) for matrix in (b_t / largest, g * largest, a_t)]
    return tuple(square.astype(np.float32) for square in squares)  # type: ignore[return-value]


def _transform(matrix: np.ndarray, tiles: Array) -> Array:
    """Apply the matrix to the leading axis: [I, J] x [J, ...] -> [I, ...]."""
    return jnp.tensordot(matrix, tiles, axes=1)


def _input_tiles(x: Array, tile: int) -> Array:
    """Return overlapping squares of side tile + 2, one tile apart: f32[(tile + 2)^2, B, rows, columns, C]."""
    b, h, w, c = x.shape
    rows, columns = -(-h // tile), -(-w // tile)
    pad_bottom, pad_right = tile * (rows + 1) - h - 1, tile * (columns + 1) - w - 1
    blocks = jnp.pad(x.astype(jnp.float32), ((0, 0), (1, pad_bottom), (1, pad_right), (0, 0)))
    blocks = blocks.reshape(b, rows + 1, tile, columns + 1, tile, c).transpose(2, 4, 0, 1, 3, 5)
    # Squares overlap by two rows and columns, which come from the next block.
    tall = jnp.concatenate([blocks[:, :, :, :rows], blocks[:2, :, :, 1:]], axis=0)
    square = jnp.concatenate([tall[..., :columns, :], tall[:, :2, ..., 1:, :]], axis=1)
    # Without the barrier XLA fuses this with the product, which is slow.
    return lax.optimization_barrier(square.reshape((tile + 2) ** 2, b, rows, columns, c))


def _winograd_conv3x3(x: Array, kernel: Array, tile: int) -> Array:
    """Convolve with (tile + 2)^2 products for tile^2 outputs; the definition takes nine for each output."""
    b_t, g, a_t = _winograd_matrices(tile)
    b, h, w, _ = x.shape
    inputs = _transform(b_t, _input_tiles(x, tile))
    kernels = _transform(g, kernel.astype(jnp.float32).reshape(9, *kernel.shape[2:]))
    products = jnp.einsum("sbrci,sio->sbrco", inputs, kernels)
    y = _transform(a_t, products)
    _, _, rows, columns, c_out = y.shape
    y = y.reshape(tile, tile, b, rows, columns, c_out).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(b, rows * tile, columns * tile, c_out)[:, :h, :w].astype(x.dtype)


def _winograd_kernel_gradient(x: Array, dy: Array, tile: int) -> Array:
    b_t, g, a_t = _winograd_matrices(tile)
    b, h, w, c_out = dy.shape
    inputs = _transform(b_t, _input_tiles(x, tile))
    rows, columns = inputs.shape[2:4]
    dy = jnp.pad(dy.astype(jnp.float32), ((0, 0), (0, rows * tile - h), (0, columns * tile - w), (0, 0)))
    dy = dy.reshape(b, rows, tile, columns, tile, c_out).transpose(2, 4, 0, 1, 3, 5)
    outputs = _transform(a_t.T, lax.optimization_barrier(dy.reshape(tile**2, b, rows, columns, c_out)))
    # One axis to sum over: with three XLA writes transposed copies of both first.
    inputs, outputs = (maps.reshape(len(maps), -1, maps.shape[-1]) for maps in (inputs, outputs))
    products = jnp.einsum("sni,sno->sio", inputs, outputs)
    return _transform(g.T, products).reshape(3, 3, x.shape[-1], c_out).astype(x.dtype)


def _shifted(x: Array) -> Array:
    """Return the nine pixels under the kernel, of grey images: [B, H, W, 1] -> f32[9, B, H, W]."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x[..., 0].astype(jnp.float32), ((0, 0), (1, 1), (1, 1)))
    return jnp.stack([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)])


def _grey_conv3x3(x: Array, kernel: Array) -> Array:
    """Convolve grey images by one product: XLA's convolutions are slow with a single channel."""
    pixels = lax.optimization_barrier(_shifted(x))
    return jnp.einsum("kbhw,ko->bhwo", pixels, kernel.astype(jnp.float32).reshape(9, -1)).astype(x.dtype)


def _grey_kernel_gradient(x: Array, dy: Array) -> Array:
    return jnp.einsum("kbhw,bhwo->ko", _shifted(x), dy.astype(jnp.float32)).reshape(3, 3, 1, -1).astype(x.dtype)


def _kernel_gradient_in_parts(x: Array, dy: Array) -> Array:
    """Add the gradients of up to eight parts of the batch: the copies that XLA makes of their maps are quicker.

    Where the batch is spread over several devices, each part has images of all of them if their number divides it.
    """
    batch = len(x)
    parts = max(count for count in range(1, 9) if batch % count == 0 and (count == 1 or batch // count >= 16))
    maps = [maps.astype(jnp.float32).reshape(batch // parts, parts, *maps.shape[1:]) for maps in (x, dy)]
    gradients = (_lax_kernel_gradient(*(one[:, i] for one in maps)) for i in range(parts))
    return reduce(lax.add, gradients).astype(x.dtype)


def _convolution(shape: tuple[int, ...], c_out: int) -> tuple[Convolution, KernelGradient]:
    """Return what runs on a CPU, for an input of this shape."""
    if shape[-1] == 1:
        return _grey_conv3x3, _grey_kernel_gradient
    if tile := _winograd_tile(shape, c_out):
        return partial(_winograd_conv3x3, tile=tile), partial(_winograd_kernel_gradient, tile=tile)
    return _lax_conv3x3, _kernel_gradient_in_parts


@jax.custom_vjp
def conv3x3(x: Array, kernel: Array) -> Array:
    """3x3 convolution, stride 1, zero padding; on a CPU by Winograd's method where that is faster than lax.

    In float32 Winograd's method is within 1e-4 of the largest output value. First-order reverse-mode gradients only
    (a `custom_vjp`).

    Args:
        x: `[B, H, W, C_in]`.
        kernel: `[3, 3, C_in, C_out]`, of the same dtype.

    Returns:
        `[B, H, W, C_out]`.
    """
    on_cpu, _ = _convolution(x.shape, kernel.shape[-1])
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=_lax_conv3x3)


def _conv3x3_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _conv3x3_backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    dx = conv3x3(dy, kernel[::-1, ::-1].swapaxes(2, 3))
    _, on_cpu = _convolution(x.shape, kernel.shape[-1])
    return dx, lax.platform_dependent(x, dy, cpu=on_cpu, default=_lax_kernel_gradient)


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


class Conv3x3(nn.Module):
    """`nn.Conv(features, (3, 3))` by `conv3x3`, with the same parameters, so that checkpoints fit both.

    `[B, H, W, C]` -> `[B, H, W, features]`. `dtype` is the type to compute in; None: that of input and parameters.
    `symmetric` makes pairs of the channels, see `fer_jax.models.symmetry`, with parameters for one of each.
    """

    features: int
    use_bias: bool = True
    dtype: Any = None
    symmetric: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features = self.features // 2 if self.symmetric else self.features
        shape = (3, 3, x.shape[-1], features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        if self.symmetric:
            kernel, bias = paired_kernel(kernel), None if bias is None else for_both(bias)
        y = conv3x3(x, kernel)
        return y if bias is None else y + bias


def _sum_in_bands(x: Array) -> Array:
    """Sum over all axes except the channels, bands of rows first: XLA vectorises that addition, unlike a reduction."""
    batch, height, width, channels = x.shape
    bands = max(count for count in (1, 2, 3, 4) if height % count == 0)  # more are no faster, and compile longer
    x = x.reshape(batch, bands, height // bands * width, channels)
    # lax: jnp's indexing and adding take longer to trace
    return reduce(lax.add, (lax.index_in_dim(x, i, axis=1, keepdims=False) for i in range(bands))).sum(axis=(0, 1))


def _channel_sums(*maps: Array, length: int) -> list[Array]:
    """Return the sum of each f32[B, H, W, C] for each channel, f32[C], or for each pair of channels, f32[C / 2]."""
    sums = [lax.platform_dependent(x, cpu=_sum_in_bands, default=lambda x: x.sum(axis=(0, 1, 2))) for x in maps]
    return [sum_of_pairs(total) if length < len(total) else total for total in sums]


def _for_channels(x: Array, *vectors: Array) -> list[Array]:
    """Return f32[C] or f32[C / 2] for all channels of f32[B, H, W, C]."""
    return [for_both(vector) if len(vector) < x.shape[-1] else vector for vector in vectors]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Batch normalisation in training (Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167), computed in float32.

    Args:
        x: `[B, H, W, C]`.
        scale: `[C]`, or `[C / 2]` if the channels are pairs (`fer_jax.models.symmetry`), which have all in common.
        bias: as `scale`.
        epsilon: added to the variance.

    Returns:
        `[B, H, W, C]` of x's dtype, and the batch's mean and (biased) variance, `f32` in the shape of `scale`.
        Gradients with respect to the returned mean and variance are dropped.
    """
    return _batch_norm_forward(x, scale, bias, epsilon)[0]


def _batch_norm_forward(x: Array, scale: Array, bias: Array, epsilon: float) -> Any:
    count = x.size // scale.size
    wide = x.astype(jnp.float32)
    total, squares = _channel_sums(wide, wide * wide, length=len(scale))
    mean = total / count
    variance = jnp.maximum(squares / count - mean * mean, 0)
    inverse = lax.rsqrt(variance + epsilon)
    shift, factor, offset = _for_channels(x, mean, inverse * scale, bias)
    y = ((wide - shift) * factor + offset).astype(x.dtype)
    return (y, mean, variance), (x, scale, mean, inverse)


def _batch_norm_backward(epsilon: float, residuals: Any, cotangents: Any) -> tuple[Array, Array, Array]:
    x, scale, mean, inverse = residuals
    dy = cotangents[0].astype(jnp.float32)
    shift, factor = _for_channels(x, mean, inverse)
    normal = (x.astype(jnp.float32) - shift) * factor
    count = x.size // scale.size
    dbias, dscale = _channel_sums(dy, dy * normal, length=len(scale))
    outer, of_bias, of_scale = _for_channels(x, scale * inverse, dbias / count, dscale / count)
    dx = outer * (dy - of_bias - normal * of_scale)
    return dx.astype(x.dtype), dscale, dbias


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


class BatchNorm(nn.Module):
    """`nn.BatchNorm(momentum=0.9)` by `batch_norm`, with the same variables, so that checkpoints fit both.

    `[B, H, W, C]` -> `[B, H, W, C]` of `dtype`. `symmetric`: the channels are pairs, see `Conv3x3`.
    """

    use_running_average: bool
    dtype: Any = jnp.float32
    symmetric: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1] // 2 if self.symmetric else x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "var", jnp.ones, shape)
        scale = self.param("scale", nn.initializers.ones_init(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), shape)
        if self.use_running_average:
            wide = x.astype(jnp.float32)
            factor = lax.rsqrt(variance.value + self.epsilon) * scale
            shift, factor, offset = _for_channels(x, mean.value, factor, bias)
            y = (wide - shift) * factor + offset
            return y.astype(self.dtype)
        y, batch_mean, batch_variance = batch_norm(x.astype(self.dtype), scale, bias, self.epsilon)
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            variance.value = self.momentum * variance.value + (1 - self.momentum) * batch_variance
        return y
