"""Search for better values of config fields with Optuna, or resume a search.

The config file has the fields to search (get_search) and all other fields (get_config), which can
be overridden. A trial trains a network with the values it tries. Its score is the best validation
accuracy by majority. A trial that is worse than the others at the same epoch is pruned. The study
folder gets a run folder for each trial and, at the end, report.html (ranking, importance of the
fields), trials.csv and tuned.py, a config of the best trial.

The same command resumes after an interruption. Start it several times to run several trials at
once, on one machine or on many that share the storage. All processes end when the study has
--trials finished trials.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from fer_jax.core import cli, config, run_folder

EXAMPLES = [
    "--config tune --trials 50 --storage sqlite:///experiments/tune.db",
    "--config tune --sampler grid --study grid --config.train.epochs=2",
    "--config tune --storage postgresql+psycopg://fer@server/tuning",
]
STORAGE = "sqlite:///experiments/tune.db"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and search."""
    parser = cli.parser("tune", __doc__, EXAMPLES, allow_abbrev=False)
    parser.add_argument(
        "--config", required=True, metavar="CONFIG", help="a config file with get_search(), or the shipped config tune"
    )
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="trials in the whole study; default: 50")
    parser.add_argument("--storage", default=STORAGE, metavar="URL", help=f"URL of the database; default: {STORAGE}")
    parser.add_argument("--sampler", default="tpe", choices=("tpe", "random", "grid"), help="default: tpe")
    parser.add_argument("--study", metavar="NAME", help="the name of the study; default: the name of the config")
    parser.add_argument(
        "--workdir", type=cli.deep_output_folder, metavar="DIR", help="the study folder; default: experiments/<study>"
    )
    cli.add_overrides(parser, "sets a field that is not searched")
    args, overrides = parser.parse_known_args(argv)
    if args.trials < 1:
        parser.error("--trials must be at least 1")
    name = args.study or Path(args.config).stem
    if not re.fullmatch(r"[\w.-]+", name):
        parser.error("--study names a folder: use letters, digits, _, - and . only")
    config.load(args.config, overrides)  # a mistyped field is reported before jax is imported

    from fer_jax.core import runtime
    from fer_jax.search.tuning import tune

    runtime.start()
    folder = args.workdir or run_folder.default_workdir(name)
    signal_name = tune(args.config, overrides, args.storage, name, args.sampler, args.trials, folder)
    return runtime.exit_status(signal_name)


if __name__ == "__main__":
    cli.run(main)
