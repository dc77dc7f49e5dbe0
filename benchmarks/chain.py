"""Measure the accuracy of the whole chain: detector, crop, network, and what crop errors and damages cost.

    python benchmarks/chain.py --data data
    python benchmarks/chain.py --data data --faces 800 --network base --network best --part chain

Part `chain`: FER+'s validation faces, pasted into photographs with 90 to 220 pixels, are detected and cut out with
several margins. A face that is not detected counts as an error. Part `prior`: accuracy and balanced accuracy by the
option `prior`, on the validation images themselves and through the chain. Part `loss`: the accuracy on the images
themselves, after crop errors and damages. All accuracies are of the main protocol, majority. No test or training image
is read.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scenes import Scenes, matches
from fer_jax.core import cli, runtime

SCALES = (0.8, 0.9, 1.0)  # margins: the side of the crop, in longer sides of the box
PARTS = ("chain", "prior", "loss")


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
    scenes = Scenes(split.images, args.seed)
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
    parser.add_argument("--faces", type=int, default=100, help="faces (default: 100)")
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
