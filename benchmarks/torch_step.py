"""Measure PyTorch's training step in images per second, with the network, batch and precision of train_step.py.

    .venv-bench/bin/python benchmarks/torch_step.py --batch 64
    .venv-bench/bin/python benchmarks/torch_step.py --network resnet_small --batch 128
    .venv-bench/bin/python benchmarks/torch_step.py --device cuda --batch 1024 --dtype bfloat16

emotion_cnn is the five-block CNN of fer_jax/models/emotion_cnn.py, with Adam. resnet_small is the network of
configs/small.py, with that config's gradient clipping and weight average, and with AdamW: PyTorch's own Muon takes
matrices only. `parameters` shows the same number of weights. Each variant that a careful user would try: plain,
channels_last, torch.compile, both. --dtype bfloat16 is by autocast. requirements-bench.txt has the version of PyTorch.
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


def emotion_cnn() -> Any:
    """Return the five-block CNN: images [B, 1, 48, 48] to logits [B, 8]."""
    from torch import nn

    widths, layers = (1, 32, 64, 128, 256, 512), []
    for block in range(5):
        for width_in in widths[block : block + 2]:
            layers += conv_block(width_in, widths[block + 1])
        if block < 4:
            layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for features_in, features in ((512, 256), (256, 128)):
        layers += [nn.Linear(features_in, features), nn.LayerNorm(features), nn.ReLU(), nn.Dropout(0.4)]
    return nn.Sequential(*layers, nn.Linear(128, 8))


def conv_block(width_in: int, width: int) -> list[Any]:
    """Return 3x3 convolution, BatchNorm and ReLU."""
    from torch import nn

    return [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def resnet_small() -> Any:
    """Return the residual network of configs/small.py: images [B, 1, 48, 48] to logits [B, 8]."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.branch = nn.Sequential(*conv_block(width, width), *conv_block(width, width))

        def forward(self, x: Any) -> Any:
            return x + self.branch(x)

    class Blur(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            line = torch.tensor([0.25, 0.5, 0.25])
            self.register_buffer("kernel", torch.outer(line, line).expand(width, 1, 3, 3).contiguous())

        def forward(self, x: Any) -> Any:
            x = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
            return nn.functional.conv2d(x, self.kernel, stride=2, groups=len(self.kernel))

    widths = (4, 32, 64, 128, 256)
    layers: list[Any] = [nn.PixelUnshuffle(2)]
    for stage in range(4):
        layers += conv_block(widths[stage], widths[stage + 1])
        if stage > 0:
            layers += [nn.MaxPool2d(2, stride=1), Blur(widths[stage + 1]), Residual(widths[stage + 1])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 8))


NETWORKS = {"emotion_cnn": emotion_cnn, "resnet_small": resnet_small}


def measurements(args: argparse.Namespace) -> Iterator[measure.Record]:
    for batch in args.batch or [64]:
        for compiled in (False,) if args.no_compile else (False, True):
            for channels_last in (False, True):
                yield measure_variant(args, batch, channels_last, compiled)


def measure_variant(args: argparse.Namespace, batch: int, channels_last: bool, compiled: bool) -> measure.Record:
    import torch

    device, seconds = args.device, args.seconds
    question = f"training step, {args.network}, batch {batch}, {args.dtype}"
    options = [name for name, on in (("channels_last", channels_last), ("compile", compiled)) if on]
    method = f"PyTorch {' + '.join(options) or 'eager'}"
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.compiler.reset()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = NETWORKS[args.network]().to(device, memory_format=layout)
    images = torch.randn(batch, 1, 48, 48, device=device).to(memory_format=layout)
    target = torch.nn.functional.one_hot(torch.randint(0, 8, (batch,), device=device), 8).float()
    weights = [*model.parameters()]
    regularized = args.network == "resnet_small"
    if regularized:
        optimizer = torch.optim.AdamW(weights, lr=4e-3, weight_decay=0.05, fused=True)
    else:
        optimizer = torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-7, fused=True)
    average = [weight.detach().clone() for weight in weights]
    cross_entropy = torch.nn.CrossEntropyLoss()
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = cross_entropy(forward(images), target)
        loss.backward()
        if regularized:
            torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()
        if regularized:
            torch._foreach_lerp_(average, [weight.detach() for weight in weights], 0.002)
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
        "parameters": sum(weight.numel() for weight in weights),
        "platform": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--network", default="emotion_cnn", choices=NETWORKS, help="default emotion_cnn")
    parser.add_argument("--batch", type=int, action="append", help="images per step (repeatable; default 64)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16: by autocast")
    parser.add_argument("--seconds", type=float, default=8, help="time for each measurement (default 8)")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which needs a C++ compiler")
    args = parser.parse_args()
    measure.require_torch()
    measure.report(measurements(args), COLUMNS)


if __name__ == "__main__":
    main()
