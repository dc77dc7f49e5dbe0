"""Evaluate a trained run on a split: print its figures and write them to <run>/report.

Needs the run folder and the data alone. Every picture that the protocol keeps is counted exactly once:
  majority  one class has more than half of the votes (the official protocol of FER+)
  clean     nobody voted unknown or not-a-face; the class with the most votes
  argmax    every picture; the class with the most votes
"""

import argparse
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

from fer_jax import cli
from fer_jax.labels import PROTOCOLS

EXAMPLE = """example:
  python -m fer_jax.evaluate --run experiments/base --split valid --protocol majority
"""


def evaluate(run: Path, data_dir: str | None, split: str, which: str, protocol: str) -> dict[str, Any]:
    """The figures of a run's checkpoint on a split.

    Args:
        run: the run folder.
        data_dir: the data folder; None for the one that the run was trained on.
        split: "train", "valid" or "test".
        which: checkpoint "best" or "latest".
        protocol: one of `labels.PROTOCOLS`.

    Returns:
        What metrics.json holds: `metrics.summary` with `run`, `step`, `split`, `checkpoint`, `protocol` and the
        `confusion` matrix as rows of [label, prediction].

    Raises:
        UserError: run, checkpoint or data is missing or does not fit.
    """
    import jax
    import numpy as np

    from fer_jax import checkpoint, data, train_step
    from fer_jax import config as config_lib
    from fer_jax import metrics as metrics_lib
    from fer_jax.devices import Devices
    from fer_jax.experiment import build, evaluator

    config = config_lib.read(run)
    devices = Devices()
    parts = build(config)
    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        like = jax.eval_shape(lambda: {"state": parts.init(), "totals": metrics_lib.zeros()})
        found = checkpoint.restore(manager, which, like, devices.replicated)
    if found is None:
        raise cli.UserError(f"{run} has no {which} checkpoint yet; it appears after the first epoch")
    examples = data.select(data.load(data_dir or config.data.dir, split), protocol)
    count = evaluator(parts, devices, config.train.eval_batch_size)
    counted = count(train_step.eval_variables(found.tree["state"]), examples)

    confusion = np.asarray(counted.confusion).round().astype(int)
    return {
        "run": str(run),
        "step": found.step,
        "checkpoint": which,
        "split": split,
        "protocol": protocol,
        **metrics_lib.summary(counted),
        "confusion": confusion.tolist(),
    }


def write(run: Path, result: dict[str, Any]) -> None:
    """Write what `evaluate` returned to <run>/report/metrics.json, and its confusion matrix as a picture."""
    import numpy as np

    from fer_jax import report

    folder = run / "report"
    folder.mkdir(exist_ok=True)
    title = f"{run.resolve().name}, {result['split']}, {result['protocol']}: accuracy {result['accuracy']:.1%}"
    figure = report.confusion_figure(np.array(result["confusion"]), title)
    figure.savefig(folder / "confusion_matrix.png", dpi=120)
    partial = folder / f".metrics.{os.getpid()}"
    partial.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(partial, folder / "metrics.json")


def main() -> int:
    """Parse the command line, evaluate and print."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.evaluate",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run folder")
    parser.add_argument("--data", metavar="DIR", help="the data folder (default: the one it was trained on)")
    parser.add_argument("--split", choices=("train", "valid", "test"), default="valid", help="default: valid")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="majority", help="default: majority")
    args = parser.parse_args()

    from fer_jax import devices, report

    devices.tune_cpu()
    devices.cache_compilations()
    result = evaluate(args.run, args.data, args.split, args.checkpoint, args.protocol)
    print(
        f"{args.run}, {args.checkpoint} checkpoint (step {result['step']}), {args.split} split, protocol "
        f"{args.protocol}"
    )
    print(report.table(result), flush=True)
    write(args.run, result)
    print(f"written: {args.run / 'report' / 'metrics.json'}, {args.run / 'report' / 'confusion_matrix.png'}")
    return 0


if __name__ == "__main__":
    cli.run(main)
