"""Measure loading and augmentation alone in images per second, and the time of their parts.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --batch 1024 --seconds 5

Batches of fer_jax.data.batching.train_batches from images in memory: rendered by numpy on one core, and by XLA on all
cores while the host draws the next batch. The recipe emotion_cnn augments half of the images. Where every image is
augmented, the recipe is ferplus, which has the same work: draw, warp, normalise. The parts are also timed alone:
drawing the parameters, and the two renderers. torch_pipeline.py measures torchvision; compare.py runs both in turn.
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

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import devices, runtime
from fer_jax.data import augment, batching, folders
from fer_jax.data.augment import AugmentParams
from fer_jax.data.batching import Array, Augmentation, Batch, Examples, Render

RECIPES = {"emotion_cnn": "half of the images augmented", "ferplus": "every image augmented"}
COLUMNS = ("cpu_s", "compile_s", "runs")


def measurements(batch: int, seconds: float) -> Iterator[measure.Record]:
    rng = np.random.default_rng(0)
    count = max(4096, 2 * batch)
    images = rng.integers(0, 256, (count, folders.SIDE, folders.SIDE), dtype=np.uint8)
    target = np.eye(8, dtype=np.float32)[rng.integers(0, 8, count)]
    examples = Examples(images, target)
    machine = devices.Devices()
    stored = machine.replicate(images)
    start = time.perf_counter()
    indices, identity = np.arange(batch, dtype=np.int32), augment.identity(batch, folders.SIDE)
    device = jax.jit(render).lower(stored, indices, identity).compile()
    compile_s = round(time.perf_counter() - start, 2)
    device_method, timed = f"device renderer, {measure.cores()} cores", partial(measure_rate, batch, seconds)
    for recipe, fraction in RECIPES.items():
        whole, part = f"pipeline, {fraction}", f"part of the pipeline, {fraction}"
        batches = partial(
            batching.train_batches,
            examples,
            augmentation=in_every_epoch(Augmentation(recipe)),
            batch_size=batch,
            seed=0,
            sampled=False,
        )
        params = augment.sample(rng, batch, recipe, folders.SIDE)

        with measure.one_core(), threadpool_limits(1):
            rendered = batches(Render("scale", folders.SIDE, on_device=False))
            yield timed(whole, "host renderer, 1 core", partial(next, rendered))
            yield timed(part, "drawing, 1 core", partial(augment.sample, rng, batch, recipe, folders.SIDE))
            host = partial(augment.render, images[:batch], params, size=folders.SIDE, normalize="scale")
            yield timed(part, "host renderer, 1 core", host)

        raw = batches(Render("scale", folders.SIDE, on_device=True))
        with closing(batching.prefetch(raw, machine.shard)) as ready:
            yield timed(whole, device_method, partial(render_next, device, stored, ready)) | {"compile_s": compile_s}
            one_batch = repeat(next(ready))
        yield timed(part, device_method, partial(render_next, device, stored, one_batch))


def in_every_epoch(augmentation: Augmentation) -> Callable[[int], Augmentation]:
    return lambda epoch: augmentation


def render(images: Array, indices: Array, params: AugmentParams) -> jax.Array:
    return augment.render_device(images[indices], params, size=folders.SIDE, normalize="scale")


def render_next(device: Callable[..., jax.Array], images: Array, batches: Iterator[Batch]) -> None:
    batch = next(batches)
    device(images, batch.image, batch.params).block_until_ready()


def measure_rate(batch: int, seconds: float, question: str, method: str, run: Callable[[], object]) -> measure.Record:
    measure.progress(f"{question}, {method}: timing for {seconds:g} s")
    return {"what": question, "how": method, "batch": batch, **measure.rates(batch, measure.time_runs(run, seconds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="images per batch (default 256)")
    parser.add_argument("--seconds", type=float, default=3, help="time for each measurement (default 3)")
    args = parser.parse_args()
    runtime.tune_cpu()
    measure.report(measurements(args.batch, args.seconds), COLUMNS)


if __name__ == "__main__":
    main()
