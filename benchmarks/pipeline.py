"""How many pictures a second do loading and augmentation alone make, and which part takes how much of the time?

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --batch 1024 --seconds 5

Batches of fer_jax.data.batching.train_batches from pictures in memory: rendered by numpy on one core, and by XLA on all of
them, the host drawing the next batch meanwhile. The recipe emotion_cnn augments half of the pictures; for figures on
every picture the recipe is ferplus (the same work: draw, warp, normalise). The parts are timed alone as well: drawing
the parameters, and the two renderers. torch_pipeline.py times torchvision, and compare.py runs both by turns.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import repeat
from pathlib import Path

import jax
import numpy as np
from threadpoolctl import threadpool_limits

if not __package__:  # run as a script: only this file's folder is on sys.path, not the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import devices, runtime
from fer_jax.data import augment, batching, folders
from fer_jax.data.augment import AugmentParams
from fer_jax.data.batching import Array, Batch, Examples, Render

RECIPES = {"emotion_cnn": "half of the pictures augmented", "ferplus": "every picture augmented"}
COLUMNS = ("cpu_s", "compile_s", "runs")


def measurements(batch: int, seconds: float) -> Iterator[measure.Record]:
    rng = np.random.default_rng(0)
    count = max(4096, 2 * batch)
    images = rng.integers(0, 256, (count, folders.SIDE, folders.SIDE), dtype=np.uint8)
    target = np.eye(8, dtype=np.float32)[rng.integers(0, 8, count)]
    examples = Examples(images, target)
    machine = devices.Devices()
    pictures = machine.replicate(images)
    start = time.perf_counter()
    numbers, unchanged = np.arange(batch, dtype=np.int32), augment.identity(batch, folders.SIDE)
    device = jax.jit(render).lower(pictures, numbers, unchanged).compile()
    compile_s = round(time.perf_counter() - start, 2)
    on_all, timed = f"device renderer, {measure.cores()} cores", partial(measure_rate, batch, seconds)
    for recipe, share in RECIPES.items():
        whole, parts = f"pipeline, {share}", f"part of the pipeline, {share}"
        batches = partial(batching.train_batches, examples, batch_size=batch, seed=0, sampled=False)
        drawn = augment.sample(rng, batch, recipe, folders.SIDE)

        with measure.one_core(), threadpool_limits(1):
            made = batches(Render(recipe, "scale", folders.SIDE, on_device=False))
            yield timed(whole, "host renderer, 1 core", partial(next, made))
            yield timed(parts, "drawing, 1 core", partial(augment.sample, rng, batch, recipe, folders.SIDE))
            host = partial(augment.render, images[:batch], drawn, size=folders.SIDE, normalize="scale")
            yield timed(parts, "host renderer, 1 core", host)

        made = batches(Render(recipe, "scale", folders.SIDE, on_device=True))
        with closing(batching.prefetch(made, machine.shard)) as ready:
            yield timed(whole, on_all, partial(render_next, device, pictures, ready)) | {"compile_s": compile_s}
            same = repeat(next(ready))
        yield timed(parts, on_all, partial(render_next, device, pictures, same))


def render(pictures: Array, numbers: Array, drawn: AugmentParams) -> jax.Array:
    return augment.render_device(pictures[numbers], drawn, size=folders.SIDE, normalize="scale")


def render_next(device: Callable[..., jax.Array], pictures: Array, batches: Iterator[Batch]) -> None:
    batch = next(batches)
    device(pictures, batch.image, batch.params).block_until_ready()


def measure_rate(batch: int, seconds: float, what: str, how: str, run: Callable[[], object]) -> measure.Record:
    measure.progress(f"{what}, {how}: timing for {seconds:g} s")
    return {"what": what, "how": how, "batch": batch, **measure.rates(batch, measure.time_runs(run, seconds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="pictures per batch (default 256)")
    parser.add_argument("--seconds", type=float, default=3, help="time for each measurement (default 3)")
    args = parser.parse_args()
    runtime.tune_cpu()
    measure.report(measurements(args.batch, args.seconds), COLUMNS)


if __name__ == "__main__":
    main()
