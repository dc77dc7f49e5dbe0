"""A PNG encoder for gray images, without compression and without Pillow's overhead per image.

A 48x48 image takes 2.4 kB this way and 1.7 kB at best. Both fill one 4 kB block of a file system.
"""

import struct
import zlib

import numpy as np


def encode(images: np.ndarray) -> list[bytes]:
    """Encode u8[N, H, W] as N PNG files: 8-bit gray, stored, no row filter (https://www.w3.org/TR/png-3/)."""
    count, height, width = images.shape
    lines = np.zeros((count, height, width + 1), np.uint8)  # the first byte of a line is its filter: 0, none
    lines[:, :, 1:] = images
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    end = _chunk(b"IEND", b"")
    return [head + _chunk(b"IDAT", zlib.compress(image, level=0)) + end for image in lines]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
