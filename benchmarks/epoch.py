"""Measure a whole training epoch in images per second: batches, augmentation, steps and metrics together.

    python benchmarks/epoch.py
    python benchmarks/epoch.py --config configs/base.py --config.augment.renderer=device

The loop of fer_jax.train without evaluation and checkpoints, on random images in memory; everything else is as the
config has it. The first epoch, which compiles, is timed separately. data_wait is the fraction of the time in which the
loop waited for the next batch. spread is the first to the ninth decile of the epochs. torch_epoch.py is the same epoch
in PyTorch; compare.py runs both in turn.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import cli, devices, runtime
from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError
from fer_jax.data import folders
from fer_jax.data.batching import Batch, Examples
from fer_jax.models import registry
from fer_jax.training import checks, metrics, setup

COLUMNS = ("data_wait", "first_epoch_s", "runs")


class Training:
    """A training run on random images, epoch by epoch."""

    def __init__(self, config: ConfigDict, count: int) -> None:
        """`count` is the number of images in an epoch."""
        batch_size = config.train.batch_size
        self.steps_per_epoch = count // max(batch_size, 1)
        if not self.steps_per_epoch:
            raise UserError(f"--images {count} must be at least train.batch_size={batch_size}: there is no full batch")
        parts = setup.build(config, self.steps_per_epoch)
        self.machine = devices.Devices()
        self.machine.check_batch_size(batch_size)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, folders.SIDE, folders.SIDE), dtype=np.uint8)
        examples = Examples(images, np.eye(8, dtype=np.float32)[rng.integers(0, 8, count)])
        self.step_function = setup.step_function(config, parts, self.machine, examples)
        self.batches = partial(setup.ready_batches, config, parts, self.machine, examples, self.steps_per_epoch)
        self.state = self.machine.replicate(setup.create_train_state(config))
        self.waited_s = 0.0  # for batches

    def epoch(self, ready: Iterator[Batch]) -> None:
        """Take the steps of one epoch."""
        totals, position = self.machine.replicate(metrics.zeros()), 0
        while position < self.steps_per_epoch:
            start = time.perf_counter()
            batches = next(ready)
            self.waited_s += time.perf_counter() - start
            previous = totals
            self.state, totals = self.step_function(self.state, totals, batches)
            jax.block_until_ready(previous)  # one call stays in flight, as in fer_jax.train
            position += len(batches.mask)
        jax.block_until_ready(totals)


def measurements(args: argparse.Namespace, config: ConfigDict) -> Iterator[measure.Record]:
    batch_size, steps_per_call = config.train.batch_size, config.train.steps_per_call
    count = args.images or (1024 if jax.default_backend() == "cpu" else 28_000)
    training = Training(config, count)
    question = f"training epoch, {config.model.name}, {count:,} images, batch {batch_size}, {config.model.dtype}"
    method = f"fer_jax, {config.augment.renderer} renderer"
    method += f", {steps_per_call} steps a call" * (steps_per_call > 1)
    measure.progress(f"{question}, {method}: first epoch")
    start = time.perf_counter()
    with closing(training.batches()) as ready:
        training.epoch(ready)
    first_s, training.waited_s = time.perf_counter() - start, 0.0
    measure.progress(f"{question}, {method}: {args.epochs} epochs")
    with closing(training.batches()) as ready:
        wall = measure.time_runs(partial(training.epoch, ready), seconds=0, warmup=0, least=args.epochs).wall
    images = training.steps_per_epoch * batch_size
    yield {
        "what": question,
        "how": method,
        **measure.summary([images / seconds for seconds in wall], "images_per_s"),
        "data_wait": measure.rounded(training.waited_s / sum(wall)),
        "first_epoch_s": round(first_s, 1),
        "parameters": registry.count_parameters(training.state.params),
        "platform": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    measure.add_config(parser)
    parser.add_argument("--images", type=int, metavar="N", help="images in an epoch (default 28000, on a CPU 1024)")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs after the first (default 3)")
    args, overrides = parser.parse_known_args()
    config = config_lib.load(args.config, overrides)
    checks.check(config)
    runtime.tune_cpu()
    measure.report(measurements(args, config), COLUMNS)


if __name__ == "__main__":
    cli.run(main)
