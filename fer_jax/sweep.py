"""Train several configs with several seeds, one run after another, and write one table of results.

A config file may list variants (get_variants: a name and the fields that differ). All variants are
trained and compared with the first. The folder of a run is <workdir>/<variant>/seed<n>. After each
run, results.csv (a row per run), report.html and report.md (mean, spread, difference from the first
variant) are rewritten with all finished runs of the folder.

The same command resumes after an interruption. It trains failed runs again, but not finished ones.
Seeds, variants and configs may be added. Start it several times to run several trainings at once on
several devices, or with --parallel on one. With --minutes it saves all runs in time, for an
accelerator that is lent: leave a minute for the start and for the last checkpoints.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from fer_jax.core import cli, config

WORKDIR = Path("experiments/sweep")
EXAMPLES = [
    "--config base --seeds 0 1 2",
    "--config base --config fast --seeds 0 1 --config.train.epochs=4",
    "--config ablation --variants reference muon --seeds 0 1",
    "--config ablation --seeds 0 1 2 --workdir experiments/ablation",
    "--config candidates --workdir experiments/queue --parallel 6 --minutes 14",
]


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("sweep", __doc__, EXAMPLES, allow_abbrev=False)
    parser.add_argument(
        "--config",
        required=True,
        action="append",
        metavar="CONFIG",
        help="a config file, or the name of a shipped config; repeat it for more",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument(
        "--variants",
        nargs="+",
        default=[],
        metavar="NAME",
        help="train only these variants (the table has all finished runs)",
    )
    parser.add_argument("--workdir", type=Path, default=WORKDIR, metavar="DIR", help=f"default: {WORKDIR}")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="latest",
        help="the checkpoint to evaluate; default: latest, which was not chosen on the validation images",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="train N runs at once on the same device, each with its part of a GPU's memory; default: 1",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=0,
        metavar="M",
        help="stop after M minutes with a checkpoint of every unfinished run; the same command resumes from there",
    )
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="also evaluate each run on corrupted images, as evaluate --robustness does: the column corrupted",
    )
    cli.add_overrides(parser, "sets a field in every run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and sweep."""
    parser = _parser()
    args, overrides = parser.parse_known_args(argv)
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("the same seed is given twice")
    if not (1 <= args.parallel <= 64 and 0 <= args.minutes < math.inf):
        parser.error("--parallel must be 1 to 64, and --minutes at least 0")
    for name in args.config:
        config.load(name, overrides)  # a mistyped field is reported before jax is imported

    from fer_jax.core import parent, runtime

    if args.parallel > 1 or args.minutes:
        from fer_jax.search.parallel import sweep_in_processes

        return runtime.exit_status(sweep_in_processes(_arguments(args, overrides), args.parallel, args.minutes))
    from fer_jax.search.sweep import sweep

    runtime.start()
    parent.follow()
    signal_name = sweep(
        args.config, overrides, args.seeds, args.variants, args.workdir, args.checkpoint, args.robustness
    )
    return runtime.exit_status(signal_name)


def _arguments(args: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """The arguments of one of the processes."""
    arguments = [text for config_name in args.config for text in ("--config", config_name)]
    arguments += ["--seeds", *map(str, args.seeds), *(["--variants", *args.variants] if args.variants else [])]
    arguments += ["--workdir", str(args.workdir), "--checkpoint", args.checkpoint]
    return [*arguments, *(["--robustness"] if args.robustness else []), *overrides]


if __name__ == "__main__":
    cli.run(main)
