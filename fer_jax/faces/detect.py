"""The detector: boxes of the faces in an image.

The network is YuNet (Wu, Peng and Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector"), as the library
libfacedetection has it: yunet.onnx, licence in yunet.LICENSE. OpenCV runs it. docs/faces.md compares detectors.

An image is looked at twice. The first look, over a pyramid of reduced copies, collects candidates. Sure ones are faces.
Doubtful and small ones are looked at again, each enlarged or reduced to the size that the network knows best, with full
contrast, and turned where it stays in doubt.
"""

from functools import cache
from importlib.resources import files
from math import ceil
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fer_jax.faces import crop

SURE = 0.6  # confidence from which a candidate is a face
LOW = 0.2  # confidence from which a candidate gets a second look
SURE_TURNED = 0.65  # the same as SURE, for a candidate that was turned
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
    boxes, confidence, side = _first_look(image, smallest)
    for i in np.flatnonzero((confidence < SURE) | (side < SMALL))[:CANDIDATES]:
        boxes[i], confidence[i] = _second_look(image, boxes[i], confidence[i])
    faces = np.flatnonzero(confidence >= SURE)
    faces = faces[_without_overlaps(boxes[faces], confidence[faces])]
    return sorted(
        Detection((x, y, width, height), score)
        for (x, y, width, height), score in zip(boxes[faces].tolist(), confidence[faces].tolist(), strict=True)
    )


def _first_look(image: Image.Image, smallest: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates, the likeliest first: boxes f64[N, 4], their confidence, and their side in pixels of the copy."""
    longest = max(image.size)
    scale = min(2, SMALLEST / smallest) if smallest else min(1, LONGEST / longest)
    scale = max(scale, SHORTEST / longest)
    boxes, confidence, sides = [], [], []
    while True:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        copy = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        for left in _tiles(size[0]):
            for top in _tiles(size[1]):
                tile = copy.crop((left, top, min(left + TILE, size[0]), min(top + TILE, size[1])))
                corners, scores = _run(tile, LOW)
                boxes.append((corners + np.array([left, top, 0, 0])) / scale)
                confidence.append(scores)
                sides.append(corners[:, 2:].max(axis=1, initial=0))
        if max(size) <= 2 * SHORTEST:
            candidates = np.concatenate(boxes), np.concatenate(confidence), np.concatenate(sides)
            kept = _without_overlaps(*candidates[:2])
            return candidates[0][kept], candidates[1][kept], candidates[2][kept]
        scale = max(scale / STEP, SHORTEST / longest)


def _tiles(length: int) -> list[int]:
    """The starts of overlapping tiles."""
    count = max(1, ceil((length - OVERLAP) / (TILE - OVERLAP)))
    return [round(i * (length - TILE) / (count - 1)) for i in range(count)] if count > 1 else [0]


def _second_look(image: Image.Image, box: np.ndarray, confidence: float) -> tuple[np.ndarray, float]:
    """The box and the confidence of a candidate from a patch around it, or as they are if no face is seen there."""
    x, y, width, height = box
    side = 2 * max(width, height)
    patch = _with_full_contrast(crop.window(image, (x + width / 2, y + height / 2), side, PATCH).convert("RGB"))
    for turn in (0, *TURNS) if confidence < SURE else (0,):
        turned = patch.rotate(turn, Image.Resampling.BILINEAR) if turn else patch
        boxes, scores = _run(turned, LOW)
        centre = boxes[:, :2] + boxes[:, 2:] / 2 - PATCH / 2
        size = boxes[:, 2:].max(axis=1, initial=0)
        same = (abs(centre).max(axis=1, initial=0) < PATCH / 4) & (size > PATCH / 4) & (size < PATCH)
        if not same.any():
            continue
        best = np.flatnonzero(same)[scores[same].argmax()]
        if scores[best] >= (SURE_TURNED if turn else SURE):
            angle = np.deg2rad(turn)
            (right, down), extent = centre[best], boxes[best, 2:] * side / PATCH
            back = np.array(
                [right * np.cos(angle) - down * np.sin(angle), right * np.sin(angle) + down * np.cos(angle)]
            )
            middle = (x + width / 2, y + height / 2) + back * side / PATCH
            return np.concatenate([middle - extent / 2, extent]), max(confidence, scores[best])
    return box, confidence


def _with_full_contrast(patch: Image.Image) -> Image.Image:
    """The patch with brighter highlights and darker shadows, if its middle has little contrast."""
    quarter = PATCH // 4
    low, high = np.percentile(np.asarray(patch)[quarter:-quarter, quarter:-quarter], (2, 98))
    if high - low >= 150:
        return patch
    gain = 200 / max(high - low, 8)
    return patch.point([min(max(round((value - low) * gain + 25), 0), 255) for value in range(256)] * 3)


def _run(image: Image.Image, low: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes f64[N, 4] with a confidence of at least `low`, from one run of the network."""
    width, height = image.size
    pixels = np.zeros((ceil(height / STRIDES[-1]) * STRIDES[-1], ceil(width / STRIDES[-1]) * STRIDES[-1], 3), np.uint8)
    pixels[:height, :width] = np.asarray(image.convert("RGB"))
    with _lock:
        network = _network()
        network.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))
        outputs = network.forward(NAMES)
    boxes, confidence = [np.zeros((0, 4))], [np.zeros(0)]
    for output, stride in zip(outputs, STRIDES, strict=True):
        face, objectness = output[0, :2].astype(np.float64)
        scores = 1 / np.sqrt((1 + np.exp(-face)) * (1 + np.exp(-objectness)))
        row, column = np.nonzero(scores >= low)
        right, down, log_width, log_height = output[0, 2:6, row, column].T.astype(np.float64)
        extent = np.exp([log_width, log_height]) * stride
        corner = np.stack([column + right, row + down]) * stride - extent / 2
        boxes.append(np.concatenate([corner, extent]).T)
        confidence.append(scores[row, column])
    return np.concatenate(boxes), np.concatenate(confidence)


def _without_overlaps(boxes: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The rows of boxes, the likeliest first, that overlap no likelier one by 40 %, or by 70 % of the smaller."""
    area = boxes[:, 2] * boxes[:, 3]
    remaining, kept = np.argsort(-confidence, kind="stable"), []
    while len(remaining):
        first, rest = remaining[0], remaining[1:]
        kept.append(first)
        start = np.maximum(boxes[first, :2], boxes[rest, :2])
        end = np.minimum(boxes[first, :2] + boxes[first, 2:], boxes[rest, :2] + boxes[rest, 2:])
        common = np.clip(end - start, 0, None).prod(axis=1)
        union = area[first] + area[rest] - common
        remaining = rest[(common < 0.4 * union) & (common < 0.7 * np.minimum(area[first], area[rest]))]
    return np.array(kept, int)


@cache
def _network() -> Any:
    import cv2  # an extra: reading cut-out faces does not need it

    return cv2.dnn.readNetFromONNX(np.frombuffer(files("fer_jax.faces").joinpath("yunet.onnx").read_bytes(), np.uint8))
