"""Measure the training step in images per second, on a batch that is ready.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --config configs/base.py --config.optim.name=adamw --batch 16 --batch 128

Network, optimizer and loss, without logit adjustment, are those of the config. Compilation is timed separately, by the
clock and in processor time; fusions is the number of small programs that XLA made. cpu_s is the processor time of a
step over all cores: it varies less than the time by the clock if other programs run. spread is the first to the ninth
decile of the steps.
"""

import argparse
import sys
import time
from collections.abc import Iterator
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
from fer_jax.data.batching import Batch
from fer_jax.models import registry
from fer_jax.training import checks, losses, setup, train_step

COLUMNS = ("cpu_s", "compile_s", "compile_cpu_s", "fusions", "runs")


def measurements(args: argparse.Namespace, config: ConfigDict) -> Iterator[measure.Record]:
    parts = setup.build(config, 1)
    machine = devices.Devices()
    method = f"fer_jax, {config.optim.name}"
    if jax.device_count() > 1:
        method += f", {jax.device_count()} devices"
    if args.untuned:
        method += ", untuned"
    if args.no_ynnpack:
        method += ", without YNNPACK"
    side = config.image.size
    for size in args.batch or [config.train.batch_size]:
        machine.check_batch_size(size)
        question = f"training step, {config.model.name}, batch {size}, {config.model.dtype}"
        rng = np.random.default_rng(0)
        images = rng.standard_normal((size, side, side, 1), np.float32)
        target = np.eye(8, dtype=np.float32)[rng.integers(0, 8, size)]
        batch = machine.shard(Batch(images, target, np.ones(size, np.float32), None))
        state = machine.replicate(setup.create_train_state(config))
        step = partial(
            train_step.train_step,
            model=parts.network.model,
            optimizer=parts.optimizer,
            loss=losses.LOSSES[parts.mode.loss],
            key=jax.random.key(0),
            render=parts.network.render_device,
            decay=parts.decay,
        )
        measure.progress(f"{question}: compiling")
        wall, processor = time.perf_counter(), time.process_time()
        options = {} if args.no_ynnpack else runtime.step_options()
        compiled = jax.jit(step, donate_argnums=0, compiler_options=options).lower(state, batch).compile()
        compile_s, compile_cpu_s = time.perf_counter() - wall, time.process_time() - processor

        def run(compiled: jax.stages.Compiled = compiled, batch: Batch = batch) -> None:
            nonlocal state
            state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))

        measure.progress(f"{question}: timing for {args.seconds:g} s")
        timed = measure.time_runs(run, args.seconds)
        yield {
            "what": question,
            "how": method,
            **measure.rates(size, timed),
            "compile_s": round(compile_s, 1),
            "compile_cpu_s": round(compile_cpu_s, 1),
            "fusions": (compiled.as_text() or "").count(" fusion("),
            "parameters": registry.count_parameters(state.params),
            "platform": jax.devices()[0].device_kind,
            "jax": jax.__version__,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    measure.add_config(parser)
    parser.add_argument(
        "--batch", type=int, action="append", help="images per step (repeatable; default: the config's)"
    )
    parser.add_argument("--devices", type=int, metavar="N", help="split the batch over N devices made of this CPU")
    parser.add_argument("--seconds", type=float, default=8, help="time for each measurement (default 8)")
    parser.add_argument("--untuned", action="store_true", help="leave out runtime.tune_cpu, to measure its effect")
    parser.add_argument("--no-ynnpack", action="store_true", help="leave out runtime.step_options, in the same way")
    args, overrides = parser.parse_known_args()
    config = config_lib.load(args.config, overrides)
    checks.check(config)
    if args.devices:
        if args.devices < 1:
            raise UserError(f"--devices {args.devices} must be at least 1")
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", args.devices)
    if not args.untuned:
        runtime.tune_cpu()
    measure.report(measurements(args, config), COLUMNS)


if __name__ == "__main__":
    cli.run(main)
