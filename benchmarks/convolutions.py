"""Measure XLA's convolutions of the five-block CNN alone, on a GPU a lower limit for its training step.

    python benchmarks/convolutions.py --batch 64
    python benchmarks/convolutions.py --batch 1024 --dtype bfloat16   (on a GPU)

Each convolution by itself, as XLA runs it: forward, then the gradients of kernel and input (not of the first layer's
input). The last record is the sum. On a GPU its difference to the result of train_step.py is the cost of everything
else; on a CPU the step has quicker convolutions of its own. tflops does not count the padding: 0.74 GFLOP an image.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import cli, runtime
from fer_jax.models.emotion_cnn import EmotionCNN

COLUMNS = ("tflops", "runs")


def layers() -> list[tuple[int, int, int]]:
    """Return (side, input channels, output channels) of the ten convolutions of `emotion_cnn`."""
    shapes, c_in = [], 1
    for block, width in enumerate(EmotionCNN.widths):
        shapes += [(48 >> block, c_in, width), (48 >> block, width, width)]
        c_in = width
    return shapes


def measurements(args: argparse.Namespace) -> Iterator[measure.Record]:
    rng = np.random.default_rng(0)
    seconds, operations = np.zeros(3), 0.0

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32), args.dtype)

    for side, c_in, c_out in layers():
        first = c_in == 1

        def gradients(x: jax.Array, kernel: jax.Array, cotangent: jax.Array, first: bool = first) -> tuple:
            def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
                return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

            y, pull_back = jax.vjp(convolve, x, kernel)
            x_gradient, kernel_gradient = pull_back(cotangent)
            return (y, kernel_gradient) if first else (y, kernel_gradient, x_gradient)

        operands = (
            normal(args.batch, side, side, c_in),
            normal(3, 3, c_in, c_out),
            normal(args.batch, side, side, c_out),
        )
        measure.progress(f"{side}x{side}, {c_in} to {c_out}")
        compiled = jax.jit(gradients).lower(*operands).compile()

        def run(compiled: jax.stages.Compiled = compiled, operands: tuple = operands) -> None:
            jax.block_until_ready(compiled(*operands))

        rates = measure.rates(args.batch, measure.time_runs(run, args.seconds))
        seconds += [args.batch / rate for rate in (rates["images_per_s"], *rates["spread"])]
        work = 2 * (3 * side - 2) ** 2 * c_in * c_out * args.batch * (2 if first else 3)
        operations += work
        yield record(args, f"convolution {side}x{side}, {c_in} to {c_out}", rates, work)
    median, low, high = args.batch / seconds
    total = {"images_per_s": measure.rounded(median), "spread": [measure.rounded(low), measure.rounded(high)]}
    yield record(args, "the ten convolutions", total, operations)


def record(args: argparse.Namespace, layer: str, rates: measure.Record, work: float) -> measure.Record:
    return {
        "what": f"{layer}, batch {args.batch}, {args.dtype}",
        "how": "forward and gradients, XLA",
        **rates,
        "tflops": measure.rounded(work / args.batch * rates["images_per_s"] / 1e12),
        "platform": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="images per step (default 64)")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--seconds", type=float, default=2, help="time for each convolution (default 2)")
    args = parser.parse_args()
    runtime.tune_cpu()
    measure.report(measurements(args), COLUMNS)


if __name__ == "__main__":
    cli.run(main)
