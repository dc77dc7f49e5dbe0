"""Measure a whole training epoch in PyTorch, with a DataLoader, in images per second.

    .venv-bench/bin/python benchmarks/torch_epoch.py --compile
    .venv-bench/bin/python benchmarks/torch_epoch.py --device cuda --dtype bfloat16 --batch 256 --compile

The epoch that epoch.py measures: the network and optimizer of torch_step.py, and the transforms of torch_pipeline.py on
half of the images. The DataLoader has one worker process per core, which stays from epoch to epoch. Loss and accuracy
are summed on the device. The workers start and the first step is taken before the clock starts. data_wait is the
fraction of the time in which the loop waited for the next batch. requirements-bench.txt has the version of PyTorch.
"""

import argparse
import sys
import time
import types
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from benchmarks.torch_step import emotion_cnn

COLUMNS = ("data_wait", "compile_s", "runs")


class Images:
    """The data set of a DataLoader: PIL images with labels, each transformed when it is read."""

    def __init__(self, count: int, transform: Any) -> None:
        from PIL import Image

        rng = np.random.default_rng(0)
        self.images = [Image.fromarray(pixels) for pixels in rng.integers(0, 256, (count, 48, 48), dtype=np.uint8)]
        self.labels = rng.integers(0, 8, count).tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), self.labels[index]


def transform() -> Any:
    """Return the recipe emotion_cnn, as in torch_pipeline.py."""
    # torchvision's compiled operators load with one build of torch only, and no transform of images needs them.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    from torchvision import transforms

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
    return transforms.Compose([transforms.RandomApply([augmentation]), *always])


def create_loader(args: argparse.Namespace, count: int) -> Any:
    """Return a DataLoader of random images."""
    from torch.utils.data import DataLoader

    return DataLoader(
        Images(count, transform()),
        batch_size=args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
        pin_memory=args.device == "cuda",
        persistent_workers=True,
    )


def measurements(args: argparse.Namespace) -> Iterator[measure.Record]:
    import torch

    device, count = args.device, args.images or (1024 if args.device == "cpu" else 28_000)
    question = f"training epoch, emotion_cnn, {count:,} images, batch {args.batch}, {args.dtype}"
    method = f"PyTorch {'channels_last + compile' if args.compile else 'eager'}, {args.workers} workers"
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if args.compile else torch.contiguous_format
    model = emotion_cnn().to(device, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-7, fused=True)  # as in torch_step.py
    cross_entropy = torch.nn.CrossEntropyLoss()
    forward = torch.compile(model) if args.compile else model
    loader = create_loader(args, count)
    waited_s = 0.0  # for batches

    def train(steps: int | None = None) -> tuple[float, float]:
        """Train for one epoch, or for its first `steps`, and return mean loss and accuracy."""
        nonlocal waited_s
        loss_sum, correct, examples = torch.zeros((), device=device), torch.zeros((), device=device), 0
        start = time.perf_counter()
        for images, labels in islice(loader, steps):
            waited_s += time.perf_counter() - start
            images = images.to(device, memory_format=layout, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
                logits = forward(images)
                loss = cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            examples += len(labels)
            start = time.perf_counter()
        return float(loss_sum) / examples, float(correct) / examples  # waits for the device

    measure.progress(f"{question}, {method}: first step")
    start = time.perf_counter()
    train(1)
    first_s, waited_s = time.perf_counter() - start, 0.0
    measure.progress(f"{question}, {method}: {args.epochs} epochs")
    wall = measure.time_runs(train, seconds=0, warmup=0, least=args.epochs).wall
    yield {
        "what": question,
        "how": method,
        "baseline": True,
        **measure.summary([count // args.batch * args.batch / seconds for seconds in wall], "images_per_s"),
        "data_wait": measure.rounded(waited_s / sum(wall)),
        **({"compile_s": round(first_s, 1)} if args.compile else {}),
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "platform": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--images", type=int, metavar="N", help="images in an epoch (default 28000, on a CPU 1024)")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs after the first step (default 3)")
    parser.add_argument("--batch", type=int, default=64, help="images per step (default 64)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16: by autocast")
    parser.add_argument(
        "--workers", type=int, default=measure.cores(), help="workers of the DataLoader (default: one per core)"
    )
    parser.add_argument(
        "--compile", action="store_true", help="channels_last and torch.compile, which needs a C++ compiler"
    )
    args = parser.parse_args()
    measure.require_torch()
    measure.report(measurements(args), COLUMNS)


if __name__ == "__main__":
    main()
