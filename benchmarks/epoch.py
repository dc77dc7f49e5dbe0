"""How many images a second does a whole training epoch take: loader, augmentation, steps and metrics together?

    python benchmarks/epoch.py
    python benchmarks/epoch.py --renderer device --batch 256 --steps-per-call 109 --dtype bfloat16   (on a GPU)

The loop of fer_jax.train without evaluation and checkpoints, on pictures in memory that are drawn at random; recipe and
optimizer are those of configs/emotion_cnn.py. The first call, which compiles, is timed apart. data_wait is the share
of the time that the loop waited for the next batch; spread is the first to the ninth decile of the epochs.
torch_epoch.py is the same epoch in PyTorch, and compare.py runs both by turns.
"""

import argparse
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import jax
import numpy as np

if not __package__:  # run as a script: only this file's folder is on sys.path, not the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from configs import emotion_cnn
from fer_jax import cli, data, devices, experiment, loader, losses, metrics, models, train_step
from fer_jax.cli import UserError
from fer_jax.loader import Batch, Examples

COLUMNS = ("data_wait", "compile_s", "runs")


def measurements(args: argparse.Namespace) -> Iterator[measure.Record]:
    config = emotion_cnn.get_config()
    config.model.name, config.model.dtype, config.augment.renderer = args.model, args.dtype, args.renderer
    config.train.batch_size, config.train.steps_per_call = args.batch, args.steps_per_call
    count = args.images or (1024 if jax.default_backend() == "cpu" else 28_000)
    steps_per_epoch = count // max(args.batch, 1)
    if not steps_per_epoch:
        raise UserError(f"--images {count} must be at least --batch {args.batch}: an epoch drops what fills no batch")
    parts = experiment.build(config, steps_per_epoch)
    machine = devices.Devices()
    machine.check_batch_size(args.batch)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, data.SIDE, data.SIDE), dtype=np.uint8)
    examples = Examples(images, np.eye(8, dtype=np.float32)[rng.integers(0, 8, count)], np.arange(count))
    step = partial(
        train_step.train_step,
        model=parts.model,
        optimizer=parts.optimizer,
        loss=losses.LOSSES[parts.mode.loss],
        render=parts.render_device,
        decay=parts.decay,
    )
    steps = jax.jit(partial(train_step.train_steps, step=step), donate_argnums=0)
    pictures = machine.replicate(images) if parts.render.on_device else None
    seed = np.array([0, config.seed], np.uint32)
    state = machine.replicate(parts.init())
    waited = 0.0

    def prefetched() -> Generator[Batch, None, None]:
        batches = loader.train_batches(
            examples, parts.render, batch_size=args.batch, seed=config.seed, sampled=parts.mode.sampled
        )
        calls = loader.calls(batches, args.steps_per_call, steps_per_epoch, 0)
        return loader.prefetch(calls, partial(machine.shard, axis=1))

    def train(ready: Iterator[Batch], position: int = 0) -> None:
        """The steps of an epoch from `position` on."""
        nonlocal state, waited
        totals = machine.replicate(metrics.zeros())
        while position < steps_per_epoch:
            before = time.perf_counter()
            batches = next(ready)
            waited += time.perf_counter() - before
            previous = totals
            state, totals = steps(state, totals, pictures, batches, seed)
            jax.block_until_ready(previous)  # one call stays in flight, as in fer_jax.train
            position += len(batches.mask)
        jax.block_until_ready(totals)

    what = f"training epoch, {args.model}, {count:,} pictures, batch {args.batch}, {args.dtype}"
    how = f"fer_jax, {args.renderer} renderer" + (f", {args.steps_per_call} steps a call" * (args.steps_per_call > 1))
    measure.progress(f"{what}, {how}: first call")
    start = time.perf_counter()
    with closing(prefetched()) as ready:
        train(ready, position=max(0, steps_per_epoch - args.steps_per_call))
    first_s, waited = time.perf_counter() - start, 0.0
    measure.progress(f"{what}, {how}: {args.epochs} epochs")
    with closing(prefetched()) as ready:
        wall = measure.time_runs(partial(train, ready), seconds=0, warmup=0, least=args.epochs).wall
    yield {
        "what": what,
        "how": how,
        **measure.figures([steps_per_epoch * args.batch / seconds for seconds in wall], "images_per_s"),
        "data_wait": measure.rounded(waited / sum(wall)),
        "compile_s": round(first_s, 1),
        "parameters": models.count_parameters(state.params),
        "platform": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, metavar="N", help="pictures in an epoch (default 28000, on a CPU 1024)")
    parser.add_argument("--epochs", type=int, default=3, help="timed after the first call (default 3)")
    parser.add_argument("--model", default="emotion_cnn", help=f"one of {', '.join(models.MODELS)}")
    parser.add_argument("--batch", type=int, default=64, help="images per step (default 64)")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--renderer", default="host", choices=("host", "device"), help="who renders (default host)")
    parser.add_argument("--steps-per-call", type=int, default=1, help="above 1 needs --renderer device (default 1)")
    args = parser.parse_args()
    devices.tune_cpu()
    measure.report(measurements(args), COLUMNS)


if __name__ == "__main__":
    cli.run(main)
