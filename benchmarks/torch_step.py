"""Measure PyTorch's training step in images per second, with the network, batch and precision of train_step.py.

    .venv-bench/bin/python benchmarks/torch_step.py --batch 64
    .venv-bench/bin/python benchmarks/torch_step.py --device cuda --batch 1024 --dtype bfloat16

The five-block CNN of fer_jax/models/emotion_cnn.py (`parameters` shows the same number of weights), Adam at 1e-3 with
L2 1e-7. Each variant that a careful user would try: plain, channels_last, torch.compile, both. --dtype bfloat16 is by
autocast. requirements-bench.txt has the version of PyTorch.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure

COLUMNS = ("cpu_s", "compile_s", "runs")


def network() -> Any:
    """Return the five-block CNN: images [B, 1, 48, 48] to logits [B, 8]."""
    from torch import nn

    widths, layers = (1, 32, 64, 128, 256, 512), []
    for block in range(5):
        for width_in in widths[block : block + 2]:
            width = widths[block + 1]
            layers += [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        if block < 4:
            layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for features_in, features in ((512, 256), (256, 128)):
        layers += [nn.Linear(features_in, features), nn.LayerNorm(features), nn.ReLU(), nn.Dropout(0.4)]
    return nn.Sequential(*layers, nn.Linear(128, 8))


def measurements(args: argparse.Namespace) -> Iterator[measure.Record]:
    for batch in args.batch or [64]:
        for compiled in (False,) if args.no_compile else (False, True):
            for channels_last in (False, True):
                yield measure_variant(args.device, batch, channels_last, compiled, args.dtype, args.seconds)


def measure_variant(
    device: str, batch: int, channels_last: bool, compiled: bool, dtype: str, seconds: float
) -> measure.Record:
    import torch

    question = f"training step, emotion_cnn, batch {batch}, {dtype}"
    options = [name for name, on in (("channels_last", channels_last), ("compile", compiled)) if on]
    method = f"PyTorch {' + '.join(options) or 'eager'}"
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.compiler.reset()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = network().to(device, memory_format=layout)
    images = torch.randn(batch, 1, 48, 48, device=device).to(memory_format=layout)
    labels = torch.randint(0, 8, (batch,), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-7, fused=True)
    cross_entropy = torch.nn.CrossEntropyLoss()
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    measure.progress(f"{question}, {method}: first step")
    start = time.perf_counter()
    step()
    first_s = time.perf_counter() - start
    measure.progress(f"{question}, {method}: timing for {seconds:g} s")
    timed = measure.time_runs(step, seconds)
    return {
        "what": question,
        "how": method,
        "baseline": True,
        **measure.rates(batch, timed),
        **({"compile_s": round(first_s, 1)} if compiled else {}),
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "platform": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, action="append", help="images per step (repeatable; default 64)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16: by autocast")
    parser.add_argument("--seconds", type=float, default=8, help="time for each measurement (default 8)")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which needs a C++ compiler")
    args = parser.parse_args()
    measure.require_torch()
    measure.report(measurements(args), COLUMNS)


if __name__ == "__main__":
    main()
