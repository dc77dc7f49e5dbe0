"""Evaluate trained runs on a split: metrics with intervals, plots, and a page to read.

Writes metrics.json, report.md, report.html and the plots to <run>/report, and replaces those of an
earlier evaluation. The report of a released network goes to experiments/reports/<name>. Several
runs give a comparison with paired tests, which goes to --out with a report of each model. A run
that cannot be used is named, the others are evaluated, and the exit status is 1.

With --robustness the report has accuracy on corrupted images: crop error, blur, noise, JPEG, light
and others, in five strengths. On two CPU cores it takes some 10 minutes for best, less for base.

A protocol selects images and labels; each selected image is counted exactly once:
  majority  without single votes, one class has more than half (the official protocol of FER+)
  clean     no vote for unknown or not-a-face; the class with the most votes
  argmax    every image; the class with the most votes
"""

from collections.abc import Sequence

from fer_jax.core import cli, run_folder
from fer_jax.data.labels import PROTOCOLS

EXAMPLES = [
    "--run experiments/base --split valid --protocol majority",
    "--run base --run best --checkpoint latest --ensemble",
    "--run base --robustness",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and evaluate."""
    parser = cli.parser("evaluate", __doc__, EXAMPLES)
    parser.add_argument(
        "--run",
        required=True,
        action="append",
        metavar="RUN",
        help="a run folder, or the name of a shipped network; repeat it to compare",
    )
    parser.add_argument("--data", metavar="DIR", help="the data folder (default: that of the first run's training)")
    parser.add_argument("--split", choices=("train", "valid", "test"), default="valid", help="default: valid")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="majority",
        help="the protocol of the tables and plots (the report has the accuracy of all three); default: majority",
    )
    parser.add_argument(
        "--flip", action="store_true", help="average the predictions for each image and its mirror image"
    )
    parser.add_argument("--ensemble", action="store_true", help="also evaluate the mean of all runs' probabilities")
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="also measure accuracy on corrupted images, which predicts each image 55 times",
    )
    parser.add_argument(
        "--out",
        type=cli.deep_output_folder,
        metavar="DIR",
        help="the folder for the report (default: <run>/report), or for the comparison of several runs (default: "
        "experiments/comparison)",
    )
    args = parser.parse_args(argv)
    runs = [run_folder.find(run) for run in args.run]
    if len({run.resolve() for run in runs}) < len(runs):
        parser.error("the same --run is given twice")
    if args.ensemble and len(runs) < 2:
        parser.error("--ensemble needs two --run or more")
    if len(runs) == 1:
        run_folder.read_config(runs[0])  # a missing run is reported before jax is imported

    from fer_jax.core import runtime
    from fer_jax.reporting.evaluate_runs import evaluate_runs

    runtime.start()
    evaluate_runs(
        runs,
        data_dir=args.data,
        split=args.split,
        checkpoint=args.checkpoint,
        protocol=args.protocol,
        flip=args.flip,
        ensemble=args.ensemble,
        with_robustness=args.robustness,
        out=args.out,
    )
    return 0


if __name__ == "__main__":
    cli.run(main)
