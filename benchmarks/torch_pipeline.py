"""Measure the augmentation of pipeline.py in torchvision, in images per second on one core.

    .venv-bench/bin/python benchmarks/torch_pipeline.py

The transforms of the recipe emotion_cnn, image by image, as torchvision is used: once on half of the images, as in the
recipe, and once on every image. requirements-bench.txt has the version of torchvision.
"""

import argparse
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure

IMAGES = 256  # in each timed run


def measurements(seconds: float) -> Iterator[measure.Record]:
    import torch
    from PIL import Image

    # torchvision's compiled operators load with one build of torch only, and no transform of images needs them.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    import torchvision
    from torchvision import transforms

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(pixels) for pixels in rng.integers(0, 256, (IMAGES, 48, 48), dtype=np.uint8)]
    augmentation = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(0.5),
            transforms.RandomRotation(10),
            transforms.ColorJitter(brightness=0.05, contrast=0.05),
            transforms.RandomResizedCrop(40, scale=(0.9, 1.0)),
            transforms.RandomAffine(10, translate=(0.1, 0.1)),
            transforms.Resize((48, 48)),
        ]
    )
    always = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
    for fraction, first in (
        ("half of the images", transforms.RandomApply([augmentation])),
        ("every image", augmentation),
    ):
        chain = transforms.Compose([first, *always])

        def run(chain: transforms.Compose = chain) -> None:
            for image in images:
                chain(image)

        question, method = f"pipeline, {fraction} augmented", "torchvision, 1 core"
        measure.progress(f"{question}, {method}: timing for {seconds:g} s")
        with measure.one_core():
            rates = measure.rates(IMAGES, measure.time_runs(run, seconds))
        yield {"what": question, "how": method, "baseline": True, **rates, "torchvision": torchvision.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="time for each measurement (default 3)")
    args = parser.parse_args()
    measure.require_torch()
    measure.report(measurements(args.seconds), ("runs",))


if __name__ == "__main__":
    main()
