"""How many images a second does a whole training epoch take: loader, augmentation, steps and metrics together?

    python benchmarks/epoch.py
    python benchmarks/epoch.py --config configs/base.py --config.augment.renderer=device

The loop of fer_jax.train without evaluation and checkpoints, on pictures in memory that are drawn at random; the
rest is as the config has it. The first epoch, which compiles, is timed apart. data_wait is the share of the time that
the loop waited for the next batch; spread is the first to the ninth decile of the epochs. torch_epoch.py is the same
epoch in PyTorch, and compare.py runs both by turns.
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

if not __package__:  # run as a script: only this file's folder is on sys.path, not the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import cli, devices, runtime
from fer_jax.core import config as config_lib
from fer_jax.core.cli import UserError
from fer_jax.data import folders
from fer_jax.data.batching import Batch, Examples
from fer_jax.models import registry
from fer_jax.training import metrics, setup

COLUMNS = ("data_wait", "first_epoch_s", "runs")


def measurements(args: argparse.Namespace, config: ConfigDict) -> Iterator[measure.Record]:
    batch_size, steps_per_call = config.train.batch_size, config.train.steps_per_call
    count = args.images or (1024 if jax.default_backend() == "cpu" else 28_000)
    steps_per_epoch = count // max(batch_size, 1)
    if not steps_per_epoch:
        raise UserError(f"--images {count} must be at least train.batch_size={batch_size}: the rest fills no batch")
    parts = setup.build(config, steps_per_epoch)
    machine = devices.Devices()
    machine.check_batch_size(batch_size)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, folders.SIDE, folders.SIDE), dtype=np.uint8)
    examples = Examples(images, np.eye(8, dtype=np.float32)[rng.integers(0, 8, count)])
    step_fn = setup.step_function(config, parts, machine, examples)
    state = machine.replicate(parts.init())
    waited = 0.0

    prefetched = partial(setup.ready_batches, config, parts, machine, examples, steps_per_epoch)

    def train(ready: Iterator[Batch]) -> None:
        """The steps of an epoch."""
        nonlocal state, waited
        totals, position = machine.replicate(metrics.zeros()), 0
        while position < steps_per_epoch:
            before = time.perf_counter()
            batches = next(ready)
            waited += time.perf_counter() - before
            previous = totals
            state, totals = step_fn(state, totals, batches)
            jax.block_until_ready(previous)  # one call stays in flight, as in fer_jax.train
            position += len(batches.mask)
        jax.block_until_ready(totals)

    what = f"training epoch, {config.model.name}, {count:,} pictures, batch {batch_size}, {config.model.dtype}"
    how = f"fer_jax, {config.augment.renderer} renderer" + (f", {steps_per_call} steps a call" * (steps_per_call > 1))
    measure.progress(f"{what}, {how}: first epoch")
    start = time.perf_counter()
    with closing(prefetched()) as ready:
        train(ready)
    first_s, waited = time.perf_counter() - start, 0.0
    measure.progress(f"{what}, {how}: {args.epochs} epochs")
    with closing(prefetched()) as ready:
        wall = measure.time_runs(partial(train, ready), seconds=0, warmup=0, least=args.epochs).wall
    yield {
        "what": what,
        "how": how,
        **measure.figures([steps_per_epoch * batch_size / seconds for seconds in wall], "images_per_s"),
        "data_wait": measure.rounded(waited / sum(wall)),
        "first_epoch_s": round(first_s, 1),
        "parameters": registry.count_parameters(state.params),
        "platform": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    measure.add_config(parser)
    parser.add_argument("--images", type=int, metavar="N", help="pictures in an epoch (default 28000, on a CPU 1024)")
    parser.add_argument("--epochs", type=int, default=3, help="timed after the first (default 3)")
    args, overrides = parser.parse_known_args()
    config = config_lib.load(args.config, overrides)
    runtime.tune_cpu()
    measure.report(measurements(args, config), COLUMNS)


if __name__ == "__main__":
    cli.run(main)
