"""Measure whole trainings from the command to the end, and the accuracy that they reach.

    python benchmarks/whole_run.py --data data
    python benchmarks/whole_run.py --data data --config configs/base.py --seeds 0
    python benchmarks/whole_run.py --data data --config configs/large.py --compiled   (on a GPU)

Each seed is a run of `python -m fer_jax.main`: start, imports, compilation, checkpoints and TensorBoard included. The
images are decoded before. Every run has an empty cache of compiled programs; with --compiled all share one, which a
first run of the first seed fills. The accuracies are those of the last epoch on validation, in percent, one for each
run. fast takes some three minutes a seed on two cores, small half an hour, base an hour.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from benchmarks.start import ROOT, environment, last_line
from fer_jax import inference
from fer_jax.core import cli, runtime
from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError
from fer_jax.data import folders
from fer_jax.evaluation import metrics
from fer_jax.training import checks

PROTOCOLS = ("majority", "clean")


def training_command(config: Path, data: Path, overrides: Sequence[str], seed: int, run: Path) -> list[str]:
    """Return the command of a run; its data and its seed are no overrides."""
    fields = [*overrides, f"--config.data.dir={data}", f"--config.seed={seed}"]
    return [sys.executable, "-m", "fer_jax.main", "--config", str(config), "--workdir", str(run), *fields]


def seconds_of(command: Sequence[str], cache: Path) -> float:
    """Return the seconds of a whole run; its lines go to stderr.

    Raises:
        UserError: it failed; with its last line.
    """
    start = time.perf_counter()
    process = subprocess.run(command, cwd=ROOT, env=environment(cache), stdout=sys.__stderr__, stderr=subprocess.PIPE)
    if process.returncode:
        raise UserError(f"the command failed: {last_line(process.stderr)}")
    return time.perf_counter() - start


def accuracies(run: Path, valid: folders.Split) -> list[float]:
    """Return the percentages of the last epoch, by `PROTOCOLS`."""
    log_probs = inference.log_probabilities(inference.restore(run, "latest"), valid.images)
    selected = [metrics.select(log_probs, valid.votes, protocol)[0] for protocol in PROTOCOLS]
    return [measure.rounded(100 * float(predictions.correct.mean())) for predictions in selected]


def measurements(args: argparse.Namespace, overrides: Sequence[str]) -> Iterator[measure.Record]:
    config_file = config_lib.find(args.config).resolve()
    config = config_lib.load(str(config_file), overrides)
    checks.check(config)
    _, valid = folders.load(args.data, "train"), folders.load(args.data, "valid")
    name = Path(args.config).stem
    question = f"whole run, {name}, {config.train.epochs} epochs, batch {config.train.batch_size}"
    with tempfile.TemporaryDirectory() as scratch:
        runs: dict[str, list[tuple[Path, float]]] = {}
        plan = [("nothing compiled before", seed) for seed in args.seeds]
        if args.compiled:
            plan = [plan[0], *(("compiled before", seed) for seed in args.seeds)]
        for number, (state, seed) in enumerate(plan):
            measure.progress(f"{name}, seed {seed}, {state}")
            run, cache = Path(scratch, f"run {number}"), Path(scratch, f"cache {0 if args.compiled else number}")
            command = training_command(config_file, args.data, overrides, seed, run)
            runs.setdefault(state, []).append((run, seconds_of(command, cache)))
        for state, timed in runs.items():  # after all runs: this process needs the device too
            reached = [accuracies(run, valid) for run, _ in timed]
            seconds = [seconds for _, seconds in timed]
            yield {
                "what": question,
                "how": f"{config.optim.name}, {state}",
                **measure.summary(seconds, "seconds"),
                "each": [measure.rounded(value) for value in seconds],
                **dict(zip(PROTOCOLS, map(list, zip(*reached, strict=True)), strict=True)),
            }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    default = "configs/fast.py"
    parser.add_argument("--config", default=default, metavar="FILE", help=f"the config (default {default})")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data folder, of the generator")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run each (default: 0 1 2)")
    parser.add_argument("--compiled", action="store_true", help="measure runs whose programs are compiled, too")
    args, overrides = parser.parse_known_args()
    args.data = args.data.resolve()
    runtime.start()
    measure.report(measurements(args, overrides), ("each", *PROTOCOLS))


if __name__ == "__main__":
    cli.run(main)
