"""Time the real training step on a batch that is ready: images per second, compilation apart.

    python -m benchmarks.train_step --model emotion_cnn --batch 64

--untuned leaves out `devices.tune_cpu`, to see what it does. cpu_s is processor time per step over all cores: it
varies less than the time by the clock where other programs run.
"""

import argparse
import json
import resource
import statistics
import time
from functools import partial

import jax
import numpy as np
import optax

from fer_jax import augment, devices, losses, models, train_step
from fer_jax.data import Batch


def measure(name: str, batch_size: int, size: int, dtype: str, steps: int) -> dict[str, float | int | str]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch_size, size, size, 1), np.float32)
    target = np.eye(8, dtype=np.float32)[rng.integers(0, 8, batch_size)]
    batch = jax.device_put(Batch(images, target, np.ones(batch_size, np.float32), None))
    model, optimizer = models.create_model(name, 0.4, dtype), optax.adam(1e-3)
    state = train_step.create_state(models.init(model, 0, size), optimizer, 0.0)
    bound = partial(
        train_step.train_step,
        model=model,
        optimizer=optimizer,
        loss=losses.cross_entropy,
        key=jax.random.key(0),
        render=partial(augment.render_device, size=size, normalize="scale"),
        ema_decay=0.0,
    )
    start = time.perf_counter()
    step = jax.jit(bound, donate_argnums=0).lower(state, batch).compile()
    compile_s = time.perf_counter() - start
    walls, cpus = [], []
    for _ in range(steps + 2):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    walls, cpus = walls[2:], cpus[2:]  # the first two warm up
    return {
        "what": "train step",
        "model": name,
        "platform": jax.devices()[0].platform,
        "batch": batch_size,
        "dtype": dtype,
        "images_per_s": round(batch_size / statistics.median(walls), 1),
        "slowest": round(batch_size / max(walls), 1),
        "fastest": round(batch_size / min(walls), 1),
        "cpu_s": round(statistics.median(cpus), 3),
        "compile_s": round(compile_s, 1),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=models.MODELS, default="emotion_cnn")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=48, help="side of the pictures (64 for vgg13)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--untuned", action="store_true", help="leave out devices.tune_cpu")
    args = parser.parse_args()
    if not args.untuned:
        devices.tune_cpu()
    result = measure(args.model, args.batch, args.size, args.dtype, args.steps)
    print(json.dumps({**result, "tuned": not args.untuned}))
    print("\n| model | batch | tuned | images/s, median (slowest to fastest) | CPU s a step | compile s |")
    print("| --- | --- | --- | --- | --- | --- |")
    spread = f"{result['images_per_s']} ({result['slowest']} to {result['fastest']})"
    tuned = "no" if args.untuned else "yes"
    print(f"| {args.model} | {args.batch} | {tuned} | {spread} | {result['cpu_s']} | {result['compile_s']} |")


if __name__ == "__main__":
    main()
