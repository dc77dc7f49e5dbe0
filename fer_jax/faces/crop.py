"""Images of faces that are cut out already, in the form that the networks expect."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fer_jax.core.errors import UserError, one_line
from fer_jax.core.text import printable
from fer_jax.data.folders import SIDE

SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # in folders
GREY = (128, 128, 128, 255)  # behind transparent areas


def find(paths: Sequence[Path]) -> list[Path]:
    """Return the image files of paths: a file itself, and all images in a folder, by name.

    Raises:
        UserError: a file does not exist, or a folder has no image.
    """
    files = []
    for path in paths:
        if path.is_dir():
            images = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and _is_visible(file))
            if not images:
                raise UserError(f"no image in {path}: give a file, or a folder with images in it")
            files += images
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"no image {path}: give a file, or a folder with images in it")
    return files


def _is_visible(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")  # macOS writes ._face.png next to face.png


def read(path: Path) -> np.ndarray:
    """Return an image file as the networks expect faces: grey, its middle square, u8[48, 48].

    Raises:
        UserError: the file is missing, damaged, no image, or has more than 8 bits a channel.
    """
    name = printable(path)
    try:
        with Image.open(path) as image:
            return grey_square(image, name)
    except UserError:
        raise
    except Exception as error:  # Pillow raises errors of many types for a damaged file
        raise _unreadable(name, error) from None


def grey_square(image: Image.Image, name: str) -> np.ndarray:
    """Return an image as `read` does; errors call it by `name`.

    Raises:
        UserError: the image is damaged, or has more than 8 bits a channel.
    """
    if image.mode[0] in "IF":  # Pillow would clip values above 255
        raise UserError(f"{name} has more than 8 bits a channel (mode {image.mode}): convert it to 8 bits")
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, GREY), upright.convert("RGBA"))
        grey = upright.convert("L")
        if grey.size != (SIDE, SIDE):
            grey = ImageOps.fit(grey, (SIDE, SIDE), Image.Resampling.LANCZOS)
    except Exception as error:  # as in `read`
        raise _unreadable(name, error) from None
    return np.asarray(grey)


def _unreadable(name: str, error: Exception) -> UserError:
    return UserError(f"{name} cannot be read as an image: {one_line(error)}")
