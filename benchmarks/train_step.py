"""How many images a second does the real training step take, on a batch that is ready?

    python benchmarks/train_step.py --model emotion_cnn --batch 64

The optimizer is that of configs/emotion_cnn.py. Compilation is timed apart; cpu_s is processor time per step over all
cores, which varies less than the time by the clock where other programs run; spread is the first to the ninth decile
of the steps.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np

if not __package__:  # run as a script: only this file's folder is on sys.path, not the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from configs import emotion_cnn
from fer_jax import cli, devices, experiment, losses, models, train_step
from fer_jax.cli import UserError
from fer_jax.loader import Batch

COLUMNS = ("cpu_s", "compile_s", "runs")


def measurements(args: argparse.Namespace) -> Iterator[measure.Record]:
    config = emotion_cnn.get_config()
    config.model.name, config.model.dtype, config.image.size = args.model, args.dtype, args.size
    parts = experiment.build(config)
    machine = devices.Devices()
    how = f"fer_jax, {jax.device_count()} devices" if jax.device_count() > 1 else "fer_jax"
    if args.untuned:
        how += ", untuned"
    for size in args.batch or [64]:
        machine.check_batch_size(size)
        what = f"training step, {args.model}, batch {size}, {args.dtype}"
        rng = np.random.default_rng(0)
        images = rng.standard_normal((size, args.size, args.size, 1), np.float32)
        target = np.eye(8, dtype=np.float32)[rng.integers(0, 8, size)]
        batch = machine.shard(Batch(images, target, np.ones(size, np.float32), None))
        state = machine.replicate(parts.init())
        step = partial(
            train_step.train_step,
            model=parts.model,
            optimizer=parts.optimizer,
            loss=losses.cross_entropy,
            key=jax.random.key(0),
            render=parts.render_device,
            decay=parts.decay,
        )
        measure.progress(f"{what}: compiling")
        start = time.perf_counter()
        compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
        compile_s = time.perf_counter() - start

        def run(compiled: jax.stages.Compiled = compiled, batch: Batch = batch) -> None:
            nonlocal state
            state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))

        measure.progress(f"{what}: timing for {args.seconds:g} s")
        timed = measure.time_runs(run, args.seconds)
        yield {
            "what": what,
            "how": how,
            **measure.rates(size, timed),
            "compile_s": round(compile_s, 1),
            "parameters": models.count_parameters(state.params),
            "platform": jax.devices()[0].device_kind,
            "jax": jax.__version__,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emotion_cnn", help=f"one of {', '.join(models.MODELS)}")
    parser.add_argument("--batch", type=int, action="append", help="images per step (repeatable; default 64)")
    parser.add_argument("--size", type=int, default=48, help="side of the pictures (64 for vgg13)")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--devices", type=int, metavar="N", help="split the batch over N devices made of this CPU")
    parser.add_argument("--seconds", type=float, default=8, help="time for each measurement (default 8)")
    parser.add_argument("--untuned", action="store_true", help="leave out devices.tune_cpu, to see what it does")
    args = parser.parse_args()
    if args.devices:
        if args.devices < 1:
            raise UserError(f"--devices {args.devices} must be at least 1")
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", args.devices)
    if not args.untuned:
        devices.tune_cpu()
    measure.report(measurements(args), COLUMNS)


if __name__ == "__main__":
    cli.run(main)
