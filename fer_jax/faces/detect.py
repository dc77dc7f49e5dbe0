"""The detector: boxes of the faces in an image.

The network is YuNet (Wu, Peng and Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector"), as the library
libfacedetection has it: yunet.onnx, licence in yunet.LICENSE. OpenCV runs it. docs/faces.md compares detectors.

An image is looked at twice. The first look, over a pyramid of reduced copies, collects candidates. Sure ones are faces.
Doubtful and small ones are looked at again, each enlarged or reduced to the size that the network knows best, with full
contrast, and turned where it stays in doubt. A small image without a face is looked at once more, at twice its size.
"""

from functools import cache
from importlib.resources import files
from math import ceil
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fer_jax.core import extras
from fer_jax.faces import crop

SURE = 0.54  # confidence from which a candidate is a face
LOW = 0.2  # confidence from which a candidate gets a second look
SURE_TURNED = 0.65  # the same as SURE, for a candidate that was turned
SURE_ENLARGED = 0.72  # the same in an enlarged image
TURNS = (-35, 35)  # degrees
CANDIDATES = 400  # with a second look at most, in an image
LONGEST = 1280  # pixels: larger images are reduced to this longer side, unless smaller faces are asked for
SHORTEST = 256  # pixels: smaller images are enlarged to this longer side
SMALLEST = 20  # pixels: the smallest face that the first look finds reliably
TILE, OVERLAP = 1280, 160  # pixels: the first look at a larger copy goes by tiles
SMALL = 64  # pixels of the copy: smaller faces get a second look for a better box
STEP = 4  # the ratio of the copies' sizes
PATCH = 192  # pixels: a second look's side, twice the face's
STRIDES = (8, 16, 32)  # pixels of an image for one place of the network's outputs
NAMES = tuple(f"stride{stride}" for stride in STRIDES)

SCORE = 4  # the column of the confidence in an array of candidates: x, y, width, height, confidence

_lock = Lock()  # OpenCV's networks serve one thread at a time


class Detection(NamedTuple):
    """A face in an image."""

    box: tuple[float, float, float, float]  # x, y, width, height, in pixels of the image
    confidence: float  # that it is a face, 0..1


def find_faces(image: Image.Image, smallest: float | None = None) -> list[Detection]:
    """Return the faces in an image of mode L or RGB, from left to right.

    Args:
        image: of any size. One whose longer side is above `LONGEST` pixels is reduced to it first.
        smallest: pixels; look for faces from this size on, in tiles, however large the image is. None: from a 64th of
            the longer side, and from 20 pixels in an image that is not reduced.

    Raises:
        ModuleNotFoundError: the extra `faces` is not installed.
    """
    faces = _faces(image, smallest, SURE)
    if not faces and smallest is None and max(image.size) <= LONGEST // 2:
        faces = _faces(image, SMALLEST / 2, SURE_ENLARGED)
    return faces


def _faces(image: Image.Image, smallest: float | None, sure: float) -> list[Detection]:
    candidates, sides = _first_look(image, smallest)
    for i in np.flatnonzero((candidates[:, SCORE] < SURE) | (sides < SMALL))[:CANDIDATES]:
        candidates[i] = _second_look(image, candidates[i])
    faces = candidates[candidates[:, SCORE] >= sure]
    faces = faces[_without_overlaps(faces)]
    return sorted(Detection((x, y, width, height), score) for x, y, width, height, score in faces.tolist())


def _first_look(image: Image.Image, smallest: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Candidates, the likeliest first, and their longer side in pixels of the copy that they were seen in."""
    longest = max(image.size)
    scale = min(2, SMALLEST / smallest) if smallest else min(1, LONGEST / longest)
    scale = max(scale, SHORTEST / longest)
    parts, sides = [], []
    while True:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        copy = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        for left in _tiles(size[0]):
            for top in _tiles(size[1]):
                faces = _run(copy.crop((left, top, min(left + TILE, size[0]), min(top + TILE, size[1]))))
                sides.append(faces[:, 2:SCORE].max(axis=1, initial=0))
                faces[:, :2] += left, top
                faces[:, :SCORE] /= scale
                parts.append(faces)
        if max(size) <= 2 * SHORTEST:
            candidates = np.concatenate(parts)
            kept = _without_overlaps(candidates)
            return candidates[kept], np.concatenate(sides)[kept]
        scale = max(scale / STEP, SHORTEST / longest)


def _tiles(length: int) -> list[int]:
    """The starts of overlapping tiles."""
    count = max(1, ceil((length - OVERLAP) / (TILE - OVERLAP)))
    return [round(i * (length - TILE) / (count - 1)) for i in range(count)] if count > 1 else [0]


def _second_look(image: Image.Image, candidate: np.ndarray) -> np.ndarray:
    """The candidate as it is seen in a patch around it, or as it was if no face is seen there."""
    x, y, width, height, confidence = candidate
    middle, side = (x + width / 2, y + height / 2), 2 * max(width, height)
    patch = _with_full_contrast(crop.window(image, middle, side, PATCH).convert("RGB"))
    for turn in (0, *TURNS) if confidence < SURE else (0,):
        faces = _run(patch.rotate(turn, Image.Resampling.BILINEAR) if turn else patch)
        centre, extent = faces[:, :2] + faces[:, 2:SCORE] / 2 - PATCH / 2, faces[:, 2:SCORE].max(axis=1, initial=0)
        same = (abs(centre).max(axis=1, initial=0) < PATCH / 4) & (extent > PATCH / 4) & (extent < PATCH)
        same &= faces[:, SCORE] >= (SURE_TURNED if turn else SURE)
        if same.any():
            best = np.flatnonzero(same)[faces[same, SCORE].argmax()]
            return _back(faces[best], turn, middle, side / PATCH, confidence)
    return candidate


def _back(face: np.ndarray, turn: float, middle: tuple[float, float], scale: float, confidence: float) -> np.ndarray:
    """A face of a turned patch in the coordinates of the image."""
    extent, angle = face[2:SCORE] * scale, np.deg2rad(turn)
    right, down = face[:2] + face[2:SCORE] / 2 - PATCH / 2
    shift = right * np.cos(angle) - down * np.sin(angle), right * np.sin(angle) + down * np.cos(angle)
    corner = middle + np.array(shift) * scale - extent / 2
    return np.array([*corner, *extent, max(confidence, face[SCORE])])


def _with_full_contrast(patch: Image.Image) -> Image.Image:
    """The patch with brighter highlights and darker shadows, if its middle has little contrast."""
    quarter = PATCH // 4
    low, high = np.percentile(np.asarray(patch)[quarter:-quarter, quarter:-quarter], (2, 98))
    if high - low >= 150:
        return patch
    gain = 200 / max(high - low, 8)
    return patch.point([min(max(round((value - low) * gain + 25), 0), 255) for value in range(256)] * 3)


def _run(image: Image.Image) -> np.ndarray:
    """Candidates from one run of the network, f64[N, 5]: x, y, width, height, confidence."""
    width, height = image.size
    # at least 64 pixels a side: OpenCV 4 returns garbage for 32
    rows, columns = (max(2, ceil(length / STRIDES[-1])) * STRIDES[-1] for length in (height, width))
    pixels = np.zeros((rows, columns, 3), np.uint8)
    pixels[:height, :width] = np.asarray(image.convert("RGB"))
    with _lock:
        network = _network()
        network.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))
        outputs = network.forward(NAMES)
    parts = []
    for output, stride in zip(outputs, STRIDES, strict=True):
        face, objectness = output[0, :2].astype(np.float64)
        scores = 1 / np.sqrt((1 + np.exp(-face)) * (1 + np.exp(-objectness)))
        row, column = np.nonzero(scores >= LOW)
        shift, logarithm = output[0, 2:6, row, column].T.astype(np.float64).reshape(2, 2, -1)
        extent = np.exp(logarithm) * stride
        corner = (np.stack([column, row]) + shift) * stride - extent / 2
        parts.append(np.concatenate([corner, extent, scores[None, row, column]]).T)
    return np.concatenate(parts)


def _without_overlaps(faces: np.ndarray) -> np.ndarray:
    """The rows, the likeliest first, that overlap no likelier one by 40 % of both, or by 70 % of the smaller."""
    starts, ends, area = faces[:, :2], faces[:, :2] + faces[:, 2:SCORE], faces[:, 2] * faces[:, 3]
    remaining, kept = np.argsort(-faces[:, SCORE], kind="stable"), []
    while len(remaining):
        first, rest = remaining[0], remaining[1:]
        kept.append(first)
        edges = np.minimum(ends[first], ends[rest]) - np.maximum(starts[first], starts[rest])
        common = np.clip(edges, 0, None).prod(axis=1)
        union = area[first] + area[rest] - common
        remaining = rest[(common < 0.4 * union) & (common < 0.7 * np.minimum(area[first], area[rest]))]
    return np.array(kept, int)


@cache
def _network() -> Any:
    with extras.named():
        import cv2  # reading cut-out faces does not need it

    return cv2.dnn.readNetFromONNX(np.frombuffer(files("fer_jax.faces").joinpath("yunet.onnx").read_bytes(), np.uint8))
