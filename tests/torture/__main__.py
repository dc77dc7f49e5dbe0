"""Long tests of reliability, for an idle machine: kills, pairs of processes, odd inputs, endurance.

`make torture` runs all of them. Each part can be run in pieces, in any order and at the same time: other --seed for
kills and pairs, other --first for inputs.
The last line has the counts. The exit status is 1 if something is wrong.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

JOBS = ("plain", "all_options", "sweep", "tune")
KINDS = ("csv", "label.csv", "image", "config", "checkpoint", "weights")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    kills = parts.add_parser("kills", help="SIGKILL during trainings, sweeps and searches, and their ends compared")
    kills.add_argument("--kills", type=int, default=200, metavar="N", help="default: 200")
    kills.add_argument(
        "--minutes", type=float, default=120, metavar="N", help="no run starts after them (default: 120)"
    )
    kills.add_argument("--seed", type=int, default=0)
    kills.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS, metavar="JOB", help=", ".join(JOBS))
    pairs = parts.add_parser("pairs", help="SIGKILL of one or both of two processes that train one network")
    pairs.add_argument("--kills", type=int, default=20, metavar="N", help="default: 20")
    pairs.add_argument("--minutes", type=float, default=60, metavar="N", help="no run starts after them (default: 60)")
    pairs.add_argument("--seed", type=int, default=0)
    inputs = parts.add_parser("inputs", help="odd CSVs, label.csv, images, configs, checkpoints and released networks")
    inputs.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    inputs.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first case (default: 0)")
    inputs.add_argument("--count", type=int, default=3000, metavar="N", help="default: 3000")
    inputs.add_argument("--seed", type=int, default=0)
    inputs.add_argument("--keep", type=Path, metavar="DIR", help="keep the files of wrong cases")
    endurance = parts.add_parser("endurance", help="memory, threads and open files over a long training")
    endurance.add_argument("--epochs", type=int, default=300, metavar="N", help="default: 300")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _kills(args: argparse.Namespace) -> int:
    from tests.torture import kills  # loads jax

    begin = time.monotonic()
    counts = kills.run(args.kills, args.minutes, args.seed, args.jobs, _say)
    phases = ", ".join(f"{count} {phase}" for phase, count in sorted(counts.phases.items()))
    equal = counts.runs - counts.different
    _say(
        f"kills: {counts.phases.total()} kills ({phases}) in {counts.runs} runs: {equal} equal, "
        f"{counts.different} different; {(time.monotonic() - begin) / 60:.0f} min"
    )
    return int(counts.different > 0)


def _pairs(args: argparse.Namespace) -> int:
    from tests.torture import pairs  # as above

    begin = time.monotonic()
    counts = pairs.run(args.kills, args.minutes, args.seed, _say)
    phases, outcomes = (
        ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))
        for counter in (counts.phases, counts.outcomes)
    )
    _say(
        f"pairs: {counts.phases.total()} kills ({phases}) in {counts.outcomes.total()} runs: {outcomes}; "
        f"the other process ended within {counts.slowest_s:.0f} s, parameters differ by at most "
        f"{counts.difference:.1e}; {(time.monotonic() - begin) / 60:.0f} min"
    )
    return int(counts.outcomes["different"] > 0)


def _inputs(args: argparse.Namespace) -> int:
    from tests.torture import inputs  # as above

    begin = time.monotonic()
    counts = inputs.run([*args.kinds], args.first, args.count, args.seed, args.keep, _say)
    for kind in args.kinds:
        found = {outcome: counts.outcomes[kind, outcome] for outcome in ("refused", "right", "wrong")}
        _say(f"  {kind}: " + ", ".join(f"{count} {outcome}" for outcome, count in found.items()))
    wrong = sum(count for (_, outcome), count in counts.outcomes.items() if outcome == "wrong")
    _say(
        f"inputs: {args.count - wrong} of {args.count} refused in one line or read right, {wrong} wrong; "
        f"{time.monotonic() - begin:.0f} s, slowest {counts.slowest_s:.1f} s, memory at most {counts.peak_mb:.0f} MB"
    )
    return int(wrong > 0)


def _endurance(args: argparse.Namespace) -> int:
    from tests.torture import endurance  # as above

    begin = time.monotonic()
    usages, grown = endurance.run(args.epochs, _say)
    early, late = usages[len(usages) // 5], usages[-1]
    _say(
        f"endurance: {len(usages)} epochs, {f'grown: {grown}' if grown else 'flat'}; memory {early.memory_mb:.0f} to "
        f"{late.memory_mb:.0f} MB, threads {early.threads} to {late.threads}, files {early.files} to {late.files}; "
        f"{(time.monotonic() - begin) / 60:.0f} min"
    )
    return int(bool(grown))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one part."""
    args = _parser().parse_args(argv)
    return {"kills": _kills, "pairs": _pairs, "inputs": _inputs, "endurance": _endurance}[args.part](args)


if __name__ == "__main__":
    sys.exit(main())
