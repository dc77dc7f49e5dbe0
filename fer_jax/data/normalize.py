"""Normalisations: from grey levels, u8[N, 48, 48], to the input of a network, before and after the geometry."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.folders import SIDE

A = TypeVar("A", np.ndarray, jax.Array)


def _pixels(images: A, xp: ModuleType) -> A:
    return images


def _scale(x: A, brightness: A, contrast: A, gamma: A | None, xp: ModuleType) -> A:
    """Apply gamma, brightness, then contrast, within 0..255 as torchvision's ColorJitter; scale to [-1, 1]."""
    if gamma is not None:  # exp and log are faster in numpy than a power; the log of 0 would warn
        x = 255 * xp.exp(gamma * xp.log(xp.maximum(x, 1e-30) / 255))
    x = xp.clip(x * brightness, 0, 255)
    mean = x.mean(axis=(1, 2), keepdims=True)
    return xp.clip(contrast * x + (1 - contrast) * mean, 0, 255) / 127.5 - 1


def _ranks(images: A, xp: ModuleType) -> A:
    """The rank of each pixel, the number of its image's 2304 pixels that are no brighter: equalisation, in u16."""
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
    """Scale ranks to [-1, 1], subtract their least-squares plane in x and y, scale to unit variance.

    A flat image becomes 0.
    """
    x = x * (2 / SIDE**2) - 1
    ramp = xp.arange(x.shape[1], dtype=np.float32) - (x.shape[1] - 1) / 2
    across, down = x.mean(axis=1), x.mean(axis=2)

    def line(profile: A) -> A:
        return (profile * ramp).sum(axis=1, keepdims=True) / (ramp * ramp).sum() * ramp

    mean = across.mean(axis=1)[:, None, None]
    x = x - (mean + line(across)[:, None, :] + line(down)[:, :, None])
    deviation = xp.sqrt((x * x).mean(axis=(1, 2), keepdims=True))
    return x / xp.where(deviation > 1e-6, deviation, 1)


# Two functions: from u8[N, 48, 48] to the values that are interpolated, and from these to network input. "ferplus" is
# the FER+ authors' preproc_img, except that it equalises before the warp; it ignores brightness, contrast and gamma.
NORMALIZATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "scale": (_pixels, _scale),
    "ferplus": (_ranks, _standardize),
}
