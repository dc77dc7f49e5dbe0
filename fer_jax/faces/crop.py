"""The part of an image that a network sees: a square around one face, in grey, 48x48."""

from collections.abc import Sequence
from math import ceil, floor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fer_jax.core.errors import UserError
from fer_jax.data import images
from fer_jax.data.folders import SIDE

SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # in folders
# The side of the square, in longer sides of the detector's box. docs/faces.md compares values.
SCALE = 0.85

Box = Sequence[float]  # x, y, width, height, in pixels


def find(paths: Sequence[Path]) -> list[Path]:
    """Return the image files of paths: a file itself, and all images in a folder, by name.

    Raises:
        UserError: a file does not exist, or a folder has no image.
    """
    files = []
    for path in paths:
        if path.is_dir():
            inside = sorted(filter(is_image, path.iterdir()))
            if not inside:
                raise UserError(f"no image in {path}: give a file, or a folder with images in it")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"no image {path}: give a file, or a folder with images in it")
    return files


def is_image(path: Path) -> bool:
    """Return True for a visible file with an image's suffix. macOS writes ._face.png next to face.png."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


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
    """Return the face in a detector's box as the networks expect it: u8[48, 48]."""
    x, y, width, height = box
    centre = x + width / 2, y + height / 2
    return np.asarray(window(image, centre, SCALE * max(width, height), SIDE).convert("L"))


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
