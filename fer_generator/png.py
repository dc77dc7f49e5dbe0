"""Encodes gray pictures as PNG, without compression and without Pillow's cost per picture.

A 48x48 picture is 2.4 kB this way and 1.7 kB at best: one 4 kB block of a file system in either case.
"""

import struct
import zlib

import numpy as np


def encode(pictures: np.ndarray) -> list[bytes]:
    """PNG files (8-bit gray, stored, no row filter; https://www.w3.org/TR/png-3/) of u8[N, H, W]."""
    count, height, width = pictures.shape
    lines = np.zeros((count, height, width + 1), np.uint8)  # each line begins with its filter: 0, none
    lines[:, :, 1:] = pictures
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    end = _chunk(b"IEND", b"")
    return [head + _chunk(b"IDAT", zlib.compress(picture, level=0)) + end for picture in lines]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
