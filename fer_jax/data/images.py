"""The one reader of image files and arrays: upright, opaque, 8 bits a channel, grey or RGB."""

from os import PathLike, fspath
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_jax.core.errors import UserError, one_line
from fer_jax.core.text import is_web_address, printable

GREY = (128, 128, 128, 255)  # behind transparent areas
ARRAYS = "u8, u16 or float in 0..1, of shape [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA)"

Source = str | PathLike[str] | Image.Image | np.ndarray


def read(source: Source, name: str = "image") -> Image.Image:
    """Return an image of mode L or RGB, upright by its EXIF tag. An animated file gives its first frame.

    Args:
        source: the path of a file that Pillow reads, a PIL image, or an array (see `ARRAYS`).
        name: the image's name in errors; a file has its own.

    Raises:
        TypeError: the source is something else, or an array of another type.
        UserError: the file is missing, damaged or no image, or has values outside 16 bits.
        ValueError: an array of another shape, or of floats outside 0..1.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, Image.Image):
        return _readable(source, name)
    if not isinstance(source, str | PathLike):
        raise TypeError(f"{name} is of type {type(source).__name__}: give a path, a PIL image or an array {ARRAYS}")
    path = Path(fspath(source))
    name = printable(path)
    try:
        with Image.open(path) as image:
            return _readable(image, name)
    except UserError:
        raise
    except Exception as error:  # Pillow raises errors of many types for a damaged file
        if path.is_file() and not path.stat().st_size:
            raise UserError(f"{name} cannot be read as an image: it is empty") from None
        if is_web_address(path):
            raise UserError(f"{name} is a web address: download it first") from None
        raise _unreadable(name, error) from None


def _readable(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        if image.mode == "L" and not image.info:  # the images of data folders: nothing to turn or to convert
            return image.copy()
        upright = ImageOps.exif_transpose(image)
        if upright.mode[0] in "IF":
            return _from_deep(np.asarray(upright), name)
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, GREY), upright.convert("RGBA"))
        return upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB")
    except UserError:
        raise
    except Exception as error:  # as in `read`
        raise _unreadable(name, error) from None


def _from_deep(values: np.ndarray, name: str) -> Image.Image:
    """A grey image of more than 8 bits: whole numbers of 16 bits, or floats in 0..1."""
    whole = values.dtype.kind in "iu"
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= (65535 if whole else 1)):  # nan is refused too
        limits = "0..65535" if whole else "0..1"
        raise UserError(f"{name} has values from {low:.6g} to {high:.6g}, outside {limits}: convert it to 8 bits")
    return Image.fromarray(_as_bytes(values.astype(np.uint16) if whole else values))


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise ValueError(f"{name} is an array of shape {array.shape}: give {ARRAYS}")
    if array.dtype not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        raise TypeError(f"{name} is an array of {array.dtype}: give {ARRAYS}")
    if array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"{name} has floats from {array.min():.6g} to {array.max():.6g}, not 0..1: divide by the largest"
        )
    pixels = _as_bytes(array)
    return _readable(Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), name)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """The nearest values of 8 bits."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return (array * 255 + 0.5).astype(np.uint8)


def _unreadable(name: str, error: Exception) -> UserError:
    if isinstance(error, UnidentifiedImageError):
        reason = "unknown format"
    else:  # without the name, which would be there twice
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, 100)
    return UserError(f"{name} cannot be read as an image: {reason}")
