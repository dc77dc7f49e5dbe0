"""Evaluate trained runs on a split: figures with intervals, pictures, and a page to read.

Writes metrics.json, report.md, report.html and the pictures to <run>/report, in place of what an earlier evaluation
left there. Several runs give a comparison with paired tests instead, written to --out with a report of each model.
Every picture that a protocol keeps is counted exactly once:
  majority  without single votes, one class has more than half (the official protocol of FER+)
  clean     nobody voted unknown or not-a-face; the class with the most votes
  argmax    every picture; the class with the most votes
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_jax import cli
from fer_jax.labels import PROTOCOLS

if TYPE_CHECKING:  # importing them takes seconds, and --help need not wait for it
    import numpy as np

    from fer_jax.data import Split
    from fer_jax.document import Block
    from fer_jax.evaluation import Evaluation
    from fer_jax.inference import Network

EXAMPLE = """examples:
  python -m fer_jax.evaluate --run experiments/base --split valid --protocol majority
  python -m fer_jax.evaluate --run experiments/base --run pretrained/best --checkpoint latest --ensemble --flip
"""


class Data(NamedTuple):
    """What a model is judged on."""

    name: str  # "train", "valid" or "test"
    split: "Split"
    valid: "Split"  # what temperatures are fitted on
    keep: "dict[str, np.ndarray]"  # of evaluation.subsets


class Model(NamedTuple):
    """A network, or several as one, with its log probabilities f64[N, 8]."""

    name: str
    said: "np.ndarray"  # of the split
    said_of_valid: "np.ndarray"


def load(data_dir: str, name: str) -> Data:
    """The split `name` with validation, and which of its pictures training or selection saw in another split.

    Raises:
        UserError: the split or validation is missing.
    """
    from fer_jax import data, evaluation

    split = data.load(data_dir, name)
    valid = split if name == "valid" else data.load(data_dir, "valid")
    used = []  # where the training pictures are not at hand, the report says that it does not know
    if name != "train" and data.has(data_dir, "train"):
        train = data.load(data_dir, "train")
        used = [train] if name == "valid" else [train, valid]
    return Data(name, split, valid, evaluation.subsets(split, used))


def names(runs: Sequence[Path], flip: bool) -> list[str]:
    """What tables call each run: its folder's name, or the whole path where two share that name."""
    short = [run.resolve().name for run in runs]
    chosen = [str(run) if short.count(name) > 1 else name for run, name in zip(runs, short, strict=True)]
    return [f"{name}, flip" if flip else name for name in chosen]


def predict(name: str, network: "Network", data: Data, flip: bool) -> Model:
    """What a network says of the split and of validation; `flip` averages in what it says of the mirror images."""
    from fer_jax import inference

    def of(split: "Split") -> "np.ndarray":
        return inference.log_probabilities(network, split.images, flip)

    said = of(data.split)
    return Model(name, said, said if data.valid is data.split else of(data.valid))


def judge(model: Model, data: Data, protocol: str) -> "Evaluation":
    """The figures of a model; see `evaluation.evaluate`."""
    from fer_jax import evaluation

    temperature = evaluation.fit_temperature(model.said_of_valid, data.valid, protocol)
    return evaluation.evaluate(model.name, model.said, data.name, data.split, data.keep, protocol, temperature)


def about(network: "Network", split: str, data_dir: str) -> str:
    """What a report is of: the network, its training, and which checkpoint."""
    config, epochs = network.config, sum(record["step"] <= network.step for record in network.history)
    told = (
        f"{config.model.name} of the run folder {network.run}, trained on label mode {config.data.label_mode}: the "
        f"{network.checkpoint} checkpoint, of step {network.step:,}, after {epochs} of {config.train.epochs} epochs. "
        f"Judged on the pictures of {data_dir}."
    )
    if network.checkpoint == "best" and split == "valid":
        told += " These pictures chose the checkpoint, which flatters it."
    return told


def write(folder: Path, title: str, blocks: "Sequence[Block]", facts: Mapping[str, Any]) -> None:
    """Write report.html, report.md, their pictures and metrics.json (`facts`) to a folder."""
    from fer_jax import document, tables

    files = {
        **{f"{block.name}.png": block.png for block in blocks if isinstance(block, document.Picture)},
        "report.md": document.to_markdown(title, blocks).encode(),
        "report.html": document.to_html(title, blocks).encode(),
        "metrics.json": (json.dumps(tables.without_nan(dict(facts)), indent=1) + "\n").encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as scratch:
        for name, content in files.items():
            Path(scratch, name).write_bytes(content)
        for name in files:
            os.replace(Path(scratch, name), folder / name)


def main() -> int:
    """Parse the command line, evaluate, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.evaluate",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--run", type=Path, required=True, action="append", metavar="DIR", help="a run folder; repeat it to compare"
    )
    parser.add_argument("--data", metavar="DIR", help="the data folder (default: the one the first run was trained on)")
    parser.add_argument("--split", choices=("train", "valid", "test"), default="valid", help="default: valid")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="majority",
        help="of classes, slices, pictures and comparison; default: majority",
    )
    parser.add_argument("--flip", action="store_true", help="average in the prediction for the mirrored picture")
    parser.add_argument("--ensemble", action="store_true", help="judge the mean of all runs' probabilities too")
    out = Path("experiments/comparison")
    parser.add_argument(
        "--out", type=Path, default=out, metavar="DIR", help=f"for the comparison of several runs; default: {out}"
    )
    args = parser.parse_args()
    if len({run.resolve() for run in args.run}) < len(args.run):
        parser.error("the same --run stands there twice")
    if args.ensemble and len(args.run) < 2:
        parser.error("--ensemble needs two --run or more")

    from fer_jax import config

    configs = [config.read(run) for run in args.run]  # a run that is missing shows before jax is imported
    data_dir = args.data or configs[0].data.dir

    from fer_jax import devices

    devices.tune_cpu()
    devices.cache_compilations()
    with ThreadPoolExecutor(1) as pool:  # the data are read and compared while the rest is imported and restored
        loading = pool.submit(load, data_dir, args.split)

        from fer_jax import calibration, document, inference, labels, report, tables

        networks = [inference.restore(run, args.checkpoint) for run in args.run]
        data = loading.result()
    checkpoints = [network.checkpoint for network in networks]  # a released network has but one
    shared = {"flip": args.flip, "data": data_dir}
    models = [
        predict(name, network, data, args.flip)
        for name, network in zip(names(args.run, args.flip), networks, strict=True)
    ]
    results = []
    for run, network, model in zip(args.run, networks, models, strict=True):
        target, kept = labels.targets(data.split.votes, args.protocol)
        with ThreadPoolExecutor(1) as pool:  # XLA computes while numpy counts
            maps = pool.submit(inference.saliency, network, data.split.images[kept], target[kept].argmax(axis=1))
            result = judge(model, data, args.protocol)
        told = document.Text(about(network, args.split, data_dir))
        blocks = [told, *report.page(result, data.split, network.history, maps.result())]
        # a comparison leaves the runs' own reports alone
        folder = run / "report" if len(models) == 1 else args.out / model.name.replace(os.sep, "_")
        facts = {"run": str(run), "step": network.step, "checkpoint": network.checkpoint, **shared}
        tell(folder, result, blocks, facts)
        results.append(result)
    if args.ensemble:
        said, said_of_valid = (calibration.average(each) for each in list(zip(*models, strict=True))[1:])
        name = f"ensemble of {len(models)}{', flip' if args.flip else ''}"
        result = judge(Model(name, said, said_of_valid), data, args.protocol)
        facts = {"runs": [str(run) for run in args.run], "checkpoints": checkpoints, **shared}
        members = ", ".join(model.name for model in models)
        blocks = [document.Text(f"The mean probability of {members}."), *report.page(result, data.split, [], None)]
        tell(args.out / "ensemble", result, blocks, facts)
        results.append(result)
    if len(results) > 1:
        blocks = report.comparison_page(results)
        facts = {"checkpoints": checkpoints, **shared, "models": [tables.as_json(result) for result in results]}
        write(args.out, f"{len(results)} models on {args.split}", blocks, facts)
        for block in blocks:
            if isinstance(block, document.Table):
                print(f"{document.to_text(block)}\n")
        print(f"comparison: {args.out / 'report.html'}")
    return 0


def tell(folder: Path, result: "Evaluation", blocks: "Sequence[Block]", facts: Mapping[str, Any]) -> None:
    """Write a model's report to a folder and print its tables."""
    from fer_jax import document, tables

    write(folder, f"{result.name} on {result.split}", blocks, {**facts, **tables.as_json(result)})
    for table in (tables.main_table(result), tables.memory_table(result), tables.class_table(result)):
        print(f"{document.to_text(table)}\n")
    print(f"report: {folder / 'report.html'} (report.md, metrics.json and the pictures beside it)\n", flush=True)


if __name__ == "__main__":
    cli.run(main)
