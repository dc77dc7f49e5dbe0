"""Frames with faces pasted in, for the benchmarks of detection, and the boxes that are on them.

Faces are FER+'s, in frames of 400x400 pixels or more with scikit-image's photographs behind them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 400  # pixels of a frame


class Frame(NamedTuple):
    """A grey frame, and the faces in it: rows of the image, and their squares x, y, side."""

    pixels: np.ndarray
    rows: list[int]
    squares: list[tuple[int, int, int]]


class Scenes:
    """Frames with pasted faces."""

    def __init__(self, images: np.ndarray, seed: int) -> None:
        from skimage import data

        self.images = images
        self.rng = np.random.default_rng(seed)
        names = ["coffee", "chelsea", "rocket", "immunohistochemistry", "brick", "grass", "gravel", "coins", "retina"]
        self.photographs = [Image.fromarray(getattr(data, name)()).convert("L") for name in names]

    def background(self, width: int, height: int) -> np.ndarray:
        photograph = self.photographs[self.rng.integers(len(self.photographs))]
        factor = max(1, width / photograph.width, height / photograph.height)
        size = round(photograph.width * factor), round(photograph.height * factor)
        x, y = self.rng.integers(0, size[0] - width + 1), self.rng.integers(0, size[1] - height + 1)
        return np.asarray(photograph.resize(size))[y : y + height, x : x + width].copy()

    def single(self, row: int, low: int, high: int, turn: float = 0, light: float = 1) -> Frame:
        """Return a frame with one face of `low` to `high` pixels."""
        side = int(self.rng.integers(low, high + 1))
        pixels = self.background(SIDE, SIDE)
        x, y = (int(self.rng.integers(0, SIDE - side + 1)) for _ in range(2))
        pixels[y : y + side, x : x + side] = resized(self.images[row], side)
        if turn:
            image = Image.fromarray(np.pad(pixels, SIDE, mode="symmetric"))
            centre = SIDE + x + side / 2, SIDE + y + side / 2
            turned = image.rotate(turn * self.rng.choice([-1, 1]), Image.Resampling.BICUBIC, center=centre)
            pixels = np.asarray(turned)[SIDE : 2 * SIDE, SIDE : 2 * SIDE]
        if light != 1:
            pixels = np.clip(pixels * light + self.rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
        return Frame(pixels, [row], [(x, y, side)])

    def group(self, rows: np.ndarray) -> Frame:
        """Return a frame of 1280x960 pixels with ten faces a line, of 30 to 120 pixels."""
        pixels, squares = self.background(1280, 960), []
        for i, row in enumerate(rows):
            side = int(self.rng.integers(30, 121))
            x, y = 128 * (i % 10) + int(self.rng.integers(0, 129 - side)), 160 * (i // 10) + 20
            pixels[y : y + side, x : x + side] = resized(self.images[row], side)
            squares.append((x, y, side))
        return Frame(pixels, rows.tolist(), squares)


def resized(face: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC))


def matches(frame: Frame, boxes: Sequence[Sequence[float]]) -> list[int]:
    """The box of each face: the last whose centre lies in its square, if its size is similar. -1 for none."""
    picked: list[int] = []
    for left, top, side in frame.squares:
        fits = [-1]
        for i, (x, y, width, height) in enumerate(boxes):
            offset = max(abs(x + width / 2 - left - side / 2), abs(y + height / 2 - top - side / 2))
            if i not in picked and offset < 0.5 * side and 0.4 < max(width, height) / side < 2:
                fits.append(i)
        picked.append(fits[-1])
    return picked
