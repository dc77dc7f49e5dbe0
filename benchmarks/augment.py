"""Times the augmentation: drawing parameters, both renderers, and Pillow doing the recipe's steps picture by picture.

    python -m benchmarks.augment

Prints one JSON line per measurement and a Markdown table. numpy and Pillow run on one core, XLA on all it is given
(`taskset -c 0` gives it one). "emotion_cnn, touched" leaves out the half of the pictures that this recipe leaves as
they are. spread: first to ninth decile of the runs; per_core_s: pictures per second of processor time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageEnhance

from fer_jax import augment
from fer_jax.augment import AugmentParams

CASES = (  # recipe, normalisation, output side
    ("emotion_cnn", "scale", 48),
    ("emotion_cnn, touched", "scale", 48),
    ("ferplus", "scale", 48),
    ("ferplus", "ferplus", 64),
)


def draw(n: int, recipe: str, size: int) -> AugmentParams:
    rng = np.random.default_rng(0)
    if not recipe.endswith(", touched"):
        return augment.sample(rng, n, recipe, size)
    drawn = augment.sample(rng, 4 * n + 100, recipe.removesuffix(", touched"), size)
    touched = np.flatnonzero((drawn.matrix != augment.identity(1, size).matrix).any(axis=(1, 2)))[:n]
    return AugmentParams(*(field[touched] for field in drawn))


def pillow(images: np.ndarray, share: float) -> np.ndarray:
    """The steps of emotion_cnn as Pillow does them, each an interpolation of its own, on a share of the pictures."""
    rng = np.random.default_rng(0)
    out = np.empty((len(images), 48, 48, 1), np.float32)
    bilinear = Image.Resampling.BILINEAR
    for k, pixels in enumerate(images):
        picture = Image.fromarray(pixels)
        if rng.random() < share:
            if rng.random() < 0.5:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            picture = picture.rotate(rng.uniform(-10, 10), bilinear)
            picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.95, 1.05))
            picture = ImageEnhance.Contrast(picture).enhance(rng.uniform(0.95, 1.05))
            side = 48 * rng.uniform(0.9, 1) ** 0.5
            left, top = rng.uniform(0, 48 - side, 2)
            picture = picture.resize((40, 40), bilinear, (left, top, left + side, top + side))
            picture = picture.rotate(rng.uniform(-10, 10), bilinear, translate=tuple(rng.integers(-4, 5, 2)))
            picture = picture.resize((48, 48), bilinear)
        out[k, :, :, 0] = np.asarray(picture, np.float32) / 127.5 - 1
    return out


def measure(run: Callable[[], Any], n: int, seconds: float) -> dict[str, Any]:
    """Pictures per second of `run`, which makes n, over at least five runs and at least `seconds`."""
    run()
    elapsed: list[float] = []
    used: list[float] = []
    end = time.perf_counter() + seconds
    while len(elapsed) < 5 or time.perf_counter() < end:
        start, used_before = time.perf_counter(), time.process_time()
        run()
        elapsed.append(time.perf_counter() - start)
        used.append(time.process_time() - used_before)
    deciles = statistics.quantiles(elapsed, n=10, method="inclusive")
    return {
        "images_per_s": round(n / statistics.median(elapsed)),
        "spread": [round(n / deciles[-1]), round(n / deciles[0])],
        "per_core_s": round(n / statistics.median(used)),
        "runs": len(elapsed),
    }


def measurements(batches: list[int], seconds: float) -> Any:
    for batch in batches:
        images = np.random.default_rng(0).integers(0, 256, (batch, 48, 48), dtype=np.uint8)
        for recipe, share in (("emotion_cnn", 0.5), ("emotion_cnn, touched", 1.0)):
            case = {"what": "Pillow", "recipe": recipe, "normalize": "scale", "size": 48, "batch": batch}
            yield case | measure(partial(pillow, images, share), batch, seconds)
        for recipe in ("emotion_cnn", "ferplus"):
            rng = np.random.default_rng(0)
            case = {"what": "numpy sample", "recipe": recipe, "size": 48, "batch": batch}
            yield case | measure(partial(augment.sample, rng, batch, recipe, 48), batch, seconds)
        for recipe, normalize, size in CASES:
            case = {"recipe": recipe, "normalize": normalize, "size": size, "batch": batch}
            drawn = draw(batch, recipe, size)
            host = partial(augment.render, images, drawn, size=size, normalize=normalize)
            yield {"what": "numpy renderer"} | case | measure(host, batch, seconds)
            start = time.perf_counter()
            device = partial(augment.render_device, size=size, normalize=normalize)
            compiled = jax.jit(device).lower(images, drawn).compile()
            compile_s = {"compile_s": round(time.perf_counter() - start, 2)}
            arguments = jax.device_put((images, drawn))
            timed = measure(partial(call, compiled, arguments), batch, seconds)
            yield {"what": "XLA renderer", "device": jax.devices()[0].device_kind} | case | timed | compile_s


def call(compiled: Callable[..., jax.Array], arguments: tuple[Any, ...]) -> None:
    compiled(*arguments).block_until_ready()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time the drawing of augmentation parameters and both renderers, beside Pillow.",
        epilog="example: python -m benchmarks.augment --batch 64 --seconds 5",
    )
    parser.add_argument("--batch", type=int, action="append", help="pictures per call (repeatable; default 64, 1024)")
    parser.add_argument("--seconds", type=float, default=2, help="time for each measurement (default 2)")
    args = parser.parse_args()

    columns = ("what", "recipe", "normalize", "size", "batch", "images_per_s", "spread", "per_core_s", "compile_s")
    table = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for result in measurements(args.batch or [64, 1024], args.seconds):
        print(json.dumps(result), flush=True)
        spread = "{}-{}".format(*result["spread"])
        table.append("| " + " | ".join(str((result | {"spread": spread}).get(c, "")) for c in columns) + " |")
    print("\n" + "\n".join(table))


if __name__ == "__main__":
    main()
