"""Several arrays in one file, one after the other in numpy's format, which are read as memory maps.

An array that is mapped takes no memory of the process: the system reads its pages when they are used, and may forget
them again. `np.load` maps files of one array alone.
"""

from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy


def write_images(file: BinaryIO, images: Iterable[np.ndarray], shape: tuple[int, int, int]) -> None:
    """Write images one by one, as the array u8[N, H, W] of this shape."""
    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for image in images:
        file.write(np.ascontiguousarray(image).data)


def map_next(file: BinaryIO) -> np.ndarray:
    """Return the next array of a file as a memory map that cannot be written to.

    Raises:
        EOFError, ValueError: the file is cut off, or is not as it was written.
    """
    if npy.read_magic(file) != (1, 0):
        raise ValueError("numpy writes version 1.0 for plain arrays")
    shape, by_columns, dtype = npy.read_array_header_1_0(file)
    array = np.memmap(file, dtype, "r", file.tell(), shape, "F" if by_columns else "C")
    file.seek(array.offset + array.nbytes)
    return np.asarray(array)  # without memmap's own class, whose slices are slow
