"""How many pictures a second does torchvision augment on one core, with the augmentation that pipeline.py times?

    .venv-bench/bin/python benchmarks/torch_pipeline.py

The list of transforms of the README, picture by picture, as torchvision is used; once on every picture, and once, as
the recipe says, on half of them. The torchvision is that of requirements-bench.txt.
"""

import argparse
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np

if not __package__:  # run as a script: only this file's folder is on sys.path, not the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure

PICTURES = 256  # in each timed run


def measurements(seconds: float) -> Iterator[measure.Record]:
    import torch
    from PIL import Image

    # torchvision's compiled operators load beside one build of torch only, and no transform of pictures needs them.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    import torchvision
    from torchvision import transforms

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(pixels) for pixels in rng.integers(0, 256, (PICTURES, 48, 48), dtype=np.uint8)]
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
    for share, first in (
        ("half of the pictures", transforms.RandomApply([augmentation])),
        ("every picture", augmentation),
    ):
        chain = transforms.Compose([first, *always])

        def run(chain: transforms.Compose = chain) -> None:
            for picture in pictures:
                chain(picture)

        what, how = f"pipeline, {share} augmented", "torchvision, 1 core"
        measure.progress(f"{what}, {how}: timing for {seconds:g} s")
        with measure.one_core():
            rates = measure.rates(PICTURES, measure.time_runs(run, seconds))
        yield {"what": what, "how": how, "baseline": True, **rates, "torchvision": torchvision.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="time for each measurement (default 3)")
    args = parser.parse_args()
    measure.require_torch()
    measure.report(measurements(args.seconds), ("runs",))


if __name__ == "__main__":
    main()
