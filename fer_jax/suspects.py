"""List the images whose votes contradict the predictions most: candidates for wrong labels.

The training images are divided into folds. For each fold a network is trained on the others, so
it has not seen the images that it predicts. The runs are kept in --workdir: the same command
resumes, and finished runs are used again. With --run given networks predict instead; they should
not have been trained on the images. --csv lists all images, --sheet draws the first 48.

A contradiction may be an error of the network: look before you change a label.
"""

from collections.abc import Sequence
from pathlib import Path

from fer_jax.core import cli, run_folder
from fer_jax.core import config as config_lib

EXAMPLES = [
    "--csv experiments/suspects.csv --sheet experiments/suspects.png",
    "--data data --run base --sheet experiments/suspects.png",
]
WORKDIR = Path("experiments/suspects")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, train what is missing, and write the list."""
    parser = cli.parser("suspects", __doc__, EXAMPLES, allow_abbrev=False)
    parser.add_argument("--data", default="data", metavar="DIR", help="the data folder (default: data)")
    parser.add_argument(
        "--config",
        default="fast",
        metavar="CONFIG",
        help="a config file, or the name of a shipped config, for the folds' networks (default: fast)",
    )
    parser.add_argument("--folds", type=int, default=3, metavar="N", help="the number of folds (default: 3)")
    parser.add_argument(
        "--workdir", type=Path, default=WORKDIR, metavar="DIR", help=f"the folder of the runs (default: {WORKDIR})"
    )
    parser.add_argument(
        "--run",
        action="append",
        metavar="RUN",
        help="a run folder or a shipped network to predict with, instead of folds; repeat it to average several",
    )
    parser.add_argument(
        "--csv", type=cli.output_file(".csv"), metavar="FILE", help="write the whole list to a .csv file"
    )
    parser.add_argument(
        "--sheet", type=cli.output_file(".png"), metavar="FILE", help="draw the first images to a .png file"
    )
    cli.add_overrides(parser, "sets a field of the folds' config, for example --config.train.epochs=3")
    args, overrides = parser.parse_known_args(argv)
    if args.folds < 2:
        parser.error("--folds must be at least 2")
    runs = [run_folder.find(run) for run in args.run or ()]
    for run in runs:
        run_folder.read_config(run)  # a missing run is reported before jax is imported
    config = config_lib.load(args.config, [*overrides, f"--config.data.dir={args.data}"])

    from fer_jax.core import runtime
    from fer_jax.curation import suspects_report

    runtime.start()
    suspects_report.list_suspects(config, runs, args.folds, args.workdir, args.csv, args.sheet)
    return 0


if __name__ == "__main__":
    cli.run(main)
