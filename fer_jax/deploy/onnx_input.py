"""The input of a network from its images, in operations that ONNX has: `augment.render` of images as they are."""

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.folders import SIDE


def rendered(images: jax.Array, size: int, normalize: str) -> jax.Array:
    """Return normalised images, without augmentation: u8[N, 48, 48] -> f32[N, S, S, 1].

    Raises:
        KeyError: `normalize` is not in `data.normalize.NORMALIZATIONS`.
    """
    prepare, finish = NORMALIZATIONS[normalize]
    x = prepare(images)
    if size != SIDE:
        matrix = resizing(size).T
        x = (x @ matrix).swapaxes(1, 2) @ matrix  # the rows, then the columns
        x = x.swapaxes(1, 2)
    return finish(x)[..., None]


def resizing(size: int) -> np.ndarray:
    """Return the bilinear resizing of a line of 48 pixels as a matrix: f32[S, 48]."""
    scale = SIDE / size
    numbers = np.array([scale, (SIDE - 1) / 2 - scale * (size - 1) / 2])
    scale, offset = np.rint(numbers * 2**16) / 2**16  # as augment rounds them
    position = np.clip(scale * np.arange(size) + offset, 0, SIDE - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(SIDE))).astype(np.float32)


def _pixels(images: jax.Array) -> jax.Array:
    return images.astype(np.float32)


def _scale(x: jax.Array) -> jax.Array:
    return x / 127.5 - 1


def _ranks(images: jax.Array) -> jax.Array:
    """The number of an image's pixels that are no brighter, for each pixel; augment counts them by a histogram."""
    flat = images.reshape(len(images), -1).astype(np.int32)
    no_brighter = (flat[:, None, :] <= np.arange(256, dtype=np.int32)[:, None]).astype(np.float32).sum(axis=2)
    # one gather: take_along_axis adds the length to indices below zero in some versions of jax
    ranks = jax.vmap(lambda table, index: table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False))
    return ranks(no_brighter, flat).reshape(images.shape)


def _standardize(x: jax.Array) -> jax.Array:
    """Scale ranks to [-1, 1], subtract their least-squares plane, scale to unit variance."""
    x = x * (2 / SIDE**2) - 1
    ramp = np.arange(x.shape[1], dtype=np.float32) - (x.shape[1] - 1) / 2
    ramp /= np.sqrt(np.square(ramp).sum())
    across, down = x.mean(axis=1), x.mean(axis=2)
    plane = across.mean(axis=1)[:, None, None]
    plane += ((across * ramp).sum(axis=1)[:, None] * ramp)[:, None, :]
    plane += ((down * ramp).sum(axis=1)[:, None] * ramp)[:, :, None]
    x = x - plane
    deviation = jnp.sqrt(jnp.square(x).mean(axis=(1, 2)))[:, None, None]
    return x / jnp.where(deviation > 1e-6, deviation, 1)


# As in augment: from u8[N, 48, 48] to the values that are interpolated, and from these to network input.
NORMALIZATIONS = {"scale": (_pixels, _scale), "ferplus": (_ranks, _standardize)}
