"""Command-line options of the programs that read faces."""

import argparse

from fer_jax.core import run_folder
from fer_jax.faces import reader
from fer_jax.faces.reader import Reader
from fer_jax.inference import onnx_network


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more; the type of an argument."""
    return _number(text, 3600)


def fraction(text: str) -> float:
    """Return a number in 0..1; the type of an argument."""
    return _number(text, 1)


def _number(text: str, largest: float) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= number <= largest:
        raise argparse.ArgumentTypeError(f"{text} must be in 0..{largest:g}")
    return number


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add the options that `predict` and `webcam` share."""
    parser.add_argument(
        "--run",
        action="append",
        metavar="RUN",
        help="a run folder, an exported file, or the name of a shipped network (default: best); several are averaged",
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "latest"), default="best", help="of run folders (default: best)"
    )
    parser.add_argument(
        "--runtime",
        choices=onnx_network.RUNTIMES,
        help="what computes the network (default: onnxruntime, if it is installed, for released and exported networks)",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="average a cut-out face and its mirror image; of a face that is found the average is always taken",
    )
    parser.add_argument(
        "--prior",
        type=fraction,
        default=0.0,
        metavar="P",
        help="name rare emotions more often: subtract this part of the log frequencies in training (default: 0)",
    )


def load_reader(args: argparse.Namespace) -> Reader:
    """Return the reader of the options of `add_network`; a missing run is reported before jax is imported."""
    runs = [run_folder.find(run) for run in args.run or [reader.DEFAULT]]
    runtimes = {onnx_network.choose(run, args.runtime) for run in runs}
    for run in runs:
        if run.suffix != ".onnx":
            run_folder.read_config(run)
    if "jax" in runtimes:
        from fer_jax.core import runtime  # imports jax

        runtime.start()
    return reader.load(*runs, checkpoint=args.checkpoint, flip=args.flip, runtime=args.runtime)
