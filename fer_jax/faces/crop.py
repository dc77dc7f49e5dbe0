"""The part of an image that a network sees: a square around one face, in grey, 48x48."""

from collections.abc import Sequence
from functools import cache
from math import ceil, floor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fer_jax.data import images
from fer_jax.data.folders import SIDE

# Pillow knows these formats too: films, and data without a decoder.
NOT_IMAGES = {".bufr", ".grib", ".h5", ".hdf", ".mpeg", ".mpg"}
# The side of the square, in longer sides of the detector's box. docs/faces.md compares values.
SCALE = 0.9
DARK, BRIGHT = 130, 180  # the 98th percentile is 224 in the median image of FER+, and below 130 in one of fifty

Box = Sequence[float]  # x, y, width, height, in pixels


@cache
def image_suffixes() -> frozenset[str]:
    """Return the endings of the image files that Pillow reads, with the point, in lower case."""
    Image.init()
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN) - NOT_IMAGES


def is_image(path: Path) -> bool:
    """Return True for a visible file with an image's suffix. macOS writes ._face.png next to face.png."""
    return path.suffix.lower() in image_suffixes() and not path.name.startswith(".") and path.is_file()


def read(path: Path) -> np.ndarray:
    """Return an image file of one face as the networks expect it: grey, its middle square, u8[48, 48].

    Raises:
        UserError: the file cannot be read as an image.
    """
    return grey_square(images.read(path))


def grey_square(image: Image.Image) -> np.ndarray:
    """Return the middle square of an image of one face: u8[48, 48]."""
    grey = image.convert("L")
    if grey.size != (SIDE, SIDE):
        grey = ImageOps.fit(grey, (SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(grey)


def cut(image: Image.Image, box: Box) -> np.ndarray:
    """Return the face in a detector's box as the networks expect it: u8[48, 48]. A dark face is made brighter."""
    x, y, width, height = box
    centre = x + width / 2, y + height / 2
    return _brightened(np.asarray(window(image, centre, SCALE * max(width, height), SIDE).convert("L")))


def _brightened(face: np.ndarray) -> np.ndarray:
    """The face itself where its 98th percentile is at least `DARK`, else with that at `BRIGHT`."""
    light = np.percentile(face, 98)
    if light >= DARK:
        return face
    return np.minimum(face * (BRIGHT / max(light, 4)) + 0.5, 255).astype(np.uint8)


def window(image: Image.Image, centre: tuple[float, float], side: float, pixels: int) -> Image.Image:
    """Return a square of an image, resized to `pixels`. Outside the image its edge pixels are repeated."""
    left, top = centre[0] - side / 2, centre[1] - side / 2
    outer = floor(left), floor(top), ceil(left + side), ceil(top + side)
    inside = max(outer[0], 0), max(outer[1], 0), min(outer[2], image.width), min(outer[3], image.height)
    west, north, east, south = (abs(a - b) for a, b in zip(outer, inside, strict=True))
    part = image.crop(inside)
    if west or north or east or south:
        margins = ((north, south), (west, east), (0, 0))[: 2 if image.mode == "L" else 3]
        part = Image.fromarray(np.pad(np.asarray(part), margins, mode="edge"))
    square = left - outer[0], top - outer[1], left - outer[0] + side, top - outer[1] + side
    return part.resize((pixels, pixels), Image.Resampling.LANCZOS, square, reducing_gap=3)
