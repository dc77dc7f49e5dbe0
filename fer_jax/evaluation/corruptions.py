"""Corruptions of cut-out faces, as other cameras and detectors cause them, each in five strengths.

The plan is that of ImageNet-C (Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261). The strengths are
chosen for faces of 48x48 pixels, from hardly visible to a face that people still read. They were set before any network
was measured. To add a corruption, write its function and its entry in `CORRUPTIONS`.

Each corruption draws from a seed of its own. It draws the same numbers for every strength: a stronger shift goes in the
same direction, and stronger noise is the same noise, larger. An image's draws depend on its row alone.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from fer_jax.data import augment, jpeg
from fer_jax.data.folders import SIDE

STRENGTHS = 5


class Corruption(NamedTuple):
    """A change of images, and the five values of its parameter."""

    parameter: str  # the parameter and its unit
    values: tuple[float, ...]  # by strength, from weak to strong
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # u8[N, 48, 48] -> u8[N, 48, 48]


def corrupt(images: np.ndarray, name: str, strength: int) -> np.ndarray:
    """Return corrupted images: u8[N, 48, 48] -> u8[N, 48, 48], the same for the same arguments.

    Args:
        images: at least one.
        name: a key of `CORRUPTIONS`.
        strength: 1 (weak) to 5 (strong).
    """
    corruption = CORRUPTIONS[name]
    return corruption.apply(images, corruption.values[strength - 1], np.random.default_rng(zlib.crc32(name.encode())))


def _shift(images: np.ndarray, percent: float, rng: np.random.Generator) -> np.ndarray:
    """The crop is off by a part of its side, in a direction drawn for each image."""
    angle = rng.uniform(0, 2 * np.pi, len(images))
    offset = percent / 100 * SIDE * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _moved(images, np.broadcast_to(np.eye(2), (len(images), 2, 2)), offset)


def _scale(images: np.ndarray, percent: float, rng: np.random.Generator) -> np.ndarray:
    """The crop is too wide for half of the images, and too tight for the others by the inverse factor."""
    factor = (1 + percent / 100) ** _signs(rng, len(images))
    return _moved(images, factor[:, None, None] * np.eye(2))


def _rotation(images: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """The head is tilted, clockwise or counter-clockwise."""
    angle = np.deg2rad(degrees) * _signs(rng, len(images))
    cos, sin = np.cos(angle), np.sin(angle)
    return _moved(images, np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1))


def _blur(images: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """The image is out of focus: a Gaussian of this standard deviation. Beyond the border is the mirror image."""
    return _rounded(gaussian_filter(images.astype(np.float32), (0, pixels, pixels)))


def _noise(images: np.ndarray, levels: float, rng: np.random.Generator) -> np.ndarray:
    """The camera adds Gaussian noise of this standard deviation to each pixel."""
    return _rounded(images + levels * rng.standard_normal(images.shape, np.float32))


def _jpeg(images: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    """The cut-out face is stored as JPEG."""
    return jpeg.compress(images, np.full(len(images), int(quality), np.int32), np)


def _downsampling(images: np.ndarray, side: float, rng: np.random.Generator) -> np.ndarray:
    """The face has fewer pixels in the photograph, and is enlarged to 48x48. Both are bilinear."""
    small = (int(side), int(side))

    def resized(image: np.ndarray) -> np.ndarray:
        reduced = Image.fromarray(image).resize(small, Image.Resampling.BILINEAR)
        return np.asarray(reduced.resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    return np.stack([resized(image) for image in images])


def _brightness(images: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Half of the images are brighter by the factor, the others are darker by it; levels above 255 become 255."""
    return _rendered(images, brightness=factor ** _signs(rng, len(images)))


def _contrast(images: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """The distance of each pixel from the image's mean is multiplied by the factor."""
    return _rendered(images, contrast=np.full(len(images), factor))


def _gamma(images: np.ndarray, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Levels v become 255 (v / 255)^exponent for half of the images; the others get the inverse exponent."""
    return _rendered(images, gamma=exponent ** _signs(rng, len(images)))


def _occlusion(images: np.ndarray, percent: float, rng: np.random.Generator) -> np.ndarray:
    """A square of this fraction of the area, somewhere inside the image, has one grey level drawn for each image."""
    n, side = len(images), int(np.rint(SIDE * np.sqrt(percent / 100)))
    drawn = rng.random((n, 3))
    corner = np.rint(drawn[:, :2] * (SIDE - side)).astype(np.int32)
    level = (drawn[:, 2] * 256).astype(np.uint8)
    boxes = np.concatenate([corner, corner + side], axis=1)
    return np.where(augment.inside(boxes, SIDE, np), level[:, None, None], images)


CORRUPTIONS = {
    "shift": Corruption("% of the side", (2, 4, 7, 10, 13), _shift),
    "scale": Corruption("% larger or smaller crop", (4, 8, 12, 18, 25), _scale),
    "rotation": Corruption("degrees", (5, 10, 15, 20, 30), _rotation),
    "blur": Corruption("standard deviation in pixels", (0.4, 0.6, 0.9, 1.2, 1.6), _blur),
    "noise": Corruption("standard deviation in grey levels", (4, 8, 12, 18, 25), _noise),
    "jpeg": Corruption("quality", (80, 60, 40, 25, 15), _jpeg),
    "down-sampling": Corruption("pixels a side", (36, 30, 24, 20, 16), _downsampling),
    "brightness": Corruption("factor or its inverse", (1.1, 1.2, 1.35, 1.5, 1.7), _brightness),
    "contrast": Corruption("factor", (0.8, 0.65, 0.5, 0.35, 0.25), _contrast),
    "gamma": Corruption("exponent or its inverse", (1.2, 1.4, 1.6, 1.9, 2.3), _gamma),
    "occlusion": Corruption("% of the area", (4, 8, 12, 16, 20), _occlusion),
}


def _signs(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.where(rng.random(n) < 0.5, -1.0, 1.0)


def _moved(images: np.ndarray, linear: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
    """Images whose pixel at p, relative to the centre, is the source's at `linear` p + `offset`, all as (x, y).

    Interpolation is bilinear. Beyond the border is the mirror image, as a cut-out face has no surroundings.

    Args:
        images: u8[N, 48, 48].
        linear: f64[N, 2, 2].
        offset: f64[N, 2], in pixels.
    """
    centre = (SIDE - 1) / 2
    origin = centre + offset - linear.sum(axis=2) * centre
    return _rendered(images, matrix=np.concatenate([linear, origin[:, :, None]], axis=2))


def _rendered(images: np.ndarray, **params: Any) -> np.ndarray:
    """Images with fields of `AugmentParams`, rendered by the augmentation's own code."""
    fields = {name: values.astype(np.float32) for name, values in params.items()}
    drawn = augment.identity(len(images), SIDE)._replace(**fields)
    return _rounded((augment.render(images, drawn, size=SIDE, normalize="scale")[..., 0] + 1) * 127.5)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
