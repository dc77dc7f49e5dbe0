"""Image files of faces that are cut out already, as the networks expect them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fer_jax.core.errors import UserError, one_line
from fer_jax.core.text import printable
from fer_jax.data.folders import SIDE

KINDS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # in folders
GREY = (128, 128, 128, 255)  # what shows through


def find(given: Sequence[Path]) -> list[Path]:
    """The files that are meant: of folders all pictures in them, by name.

    Raises:
        UserError: there is no such file, or no picture in a folder.
    """
    found = []
    for path in given:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix.lower() in KINDS and _is_shown(each))
            if not inside:
                raise UserError(f"no picture in {path}: name a file, or a folder with pictures in it")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no picture {path}: name a file, or a folder with pictures in it")
    return found


def _is_shown(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")  # macOS leaves ._face.png beside face.png


def read(path: Path) -> np.ndarray:
    """A picture file as the networks expect faces: grey, its middle square, u8[48, 48].

    Raises:
        UserError: it cannot be read as a picture of 8 bits a channel.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode[0] in "IF":  # Pillow would cut the brighter half off
                raise UserError(f"{path} has more than 8 bits a pixel (mode {picture.mode}); convert it")
            upright = ImageOps.exif_transpose(picture)
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, GREY), upright.convert("RGBA"))
            upright = upright.convert("L")
    except UserError:
        raise
    except Exception as error:  # a damaged file may be anything to Pillow
        raise UserError(f"{printable(path)} cannot be read as a picture: {one_line(error)}") from None
    if upright.size == (SIDE, SIDE):
        return np.asarray(upright)
    return np.asarray(ImageOps.fit(upright, (SIDE, SIDE), Image.Resampling.LANCZOS))
