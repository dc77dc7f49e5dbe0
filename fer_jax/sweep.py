"""Train several configs with several seeds, back to back, and gather what came of them in one table.

A config file may list variants (get_variants: a name and the fields that differ); all are trained and compared with the
first. Each run has its own folder, <workdir>/<variant>/seed<n>. After every run results.csv (a row per run),
report.html and report.md (mean, spread, difference from the first variant) are written anew, of all that is finished in
the folder. The same command goes on after an interruption; finished runs are not trained again (those that failed are),
and seeds, variants and configs may be added. Started several times, for several devices or to fill one, the processes
share out the runs.
"""

import argparse
import functools
import json
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fer_jax import atomic, cli
from fer_jax.cli import UserError

if TYPE_CHECKING:  # importing them takes seconds, and --help need not wait for it
    from ml_collections import ConfigDict

    from fer_jax.evaluate import Data

EXAMPLE = """examples:
  python -m fer_jax.sweep --config configs/base.py --seeds 0 1 2
  python -m fer_jax.sweep --config configs/base.py --config configs/fast.py --seeds 0 1 --config.train.epochs=4
  python -m fer_jax.sweep --config configs/ablation.py --variants reference muon --seeds 0 1
  all of configs/ablation.py, first the teachers of one of its variants:
  python -m fer_jax.sweep --config configs/ablation.py --variants reference --seeds 0 1 2 --workdir experiments/ablation
  python -m fer_jax.sweep --config configs/ablation.py --seeds 0 1 2 --workdir experiments/ablation
"""


class Run(NamedTuple):
    """One training of a sweep."""

    variant: str
    seed: int
    config: "ConfigDict"
    folder: Path


def variants(path: str, config: "ConfigDict") -> dict[str, "ConfigDict"]:
    """The configs of a file by name: those of its `get_variants()`, or the one config by the name of the file.

    Args:
        path: of a Python file; `get_variants()` gives, by name, the dotted names of the fields that differ from
            `get_config()` with their values.
        config: what `get_config()` gives, with the overrides of the command line.

    Raises:
        UserError: the variants are of another form, or name a field that does not exist.
    """
    from fer_jax import config as config_lib

    try:
        listed = runpy.run_path(path).get("get_variants", lambda: {Path(path).stem: {}})()
    except Exception as error:  # whatever the user's file raised while it ran
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if not (isinstance(listed, Mapping) and listed and all(isinstance(of, Mapping) for of in listed.values())):
        raise UserError(f"{path}: get_variants() must return {{name: {{field: value}}}}; see configs/ablation.py")
    found = {}
    for name, changes in listed.items():
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name:
            raise UserError(f"{path}: {name!r} cannot be a variant's name, since it cannot name a folder")
        if whole := [field for field in changes if isinstance(changes[field], Mapping)]:
            raise UserError(f"{path}: variant {name}: {whole[0]}: write each field by its dotted name, section.field")
        try:
            found[name] = config_lib.with_values(config, changes)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: variant {name}: {' '.join(str(error).split())}") from None
    return found


def plan(paths: Sequence[str], overrides: Sequence[str], seeds: Sequence[int], workdir: Path) -> list[Run]:
    """The runs in their order, every variant with the first seed before any with the second.

    Raises:
        UserError: a config cannot be used, two variants have one name, or the seed is set in another way.
    """
    from fer_jax import config as config_lib
    from fer_jax.experiment import build

    named: dict[str, ConfigDict] = {}
    for path in paths:
        default = config_lib.load(path, []).get("seed")  # what lacks one is told by `build`
        for name, config in variants(path, config_lib.load(path, overrides)).items():
            if name in named:
                raise UserError(f"{path}: two variants are called {name}")
            if config.get("seed") != default:
                raise UserError(f"{path}: {name} sets the seed, which a sweep takes from --seeds")
            build(config)
            named[name] = config
    runs = []
    for seed in seeds:
        for name, config in named.items():
            seeded = config_lib.with_values(config, {"seed": seed})
            runs.append(Run(name, seed, seeded, workdir / name / f"seed{seed}"))
    return runs


def chosen(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """Those of the variants that are named, or all where none is.

    Raises:
        UserError: no variant has that name.
    """
    known = list(dict.fromkeys(run.variant for run in runs))
    if missing := [name for name in names if name not in known]:
        raise UserError(f"no variant is called {missing[0]}; there are: {', '.join(known)}")
    return [run for run in runs if not names or run.variant in names]


def outcome(run: Run, checkpoint: str, data: "Data") -> dict[str, Any]:
    """What came of a finished run on `data`, validation: its row of the table, figures without intervals."""
    from fer_jax import evaluate, inference, tables
    from fer_jax.history import train_minutes

    network = inference.restore(run.folder, checkpoint)
    result = evaluate.judge(evaluate.predict(run.variant, network, data, flip=False), data, "majority")
    own = result.figures["majority"]
    row = {
        "variant": run.variant,
        "seed": run.seed,
        "majority": own["all"]["accuracy"].value,
        "majority_unseen": own["unseen_near"]["accuracy"].value,
        "clean": result.figures["clean"]["all"]["accuracy"].value,
        "argmax": result.figures["argmax"]["all"]["accuracy"].value,
        "macro_f1_unseen": own["unseen_near"]["macro_f1"].value,
        **{name: own["all"][name].value for name in ("macro_f1", "nll", "ece", "kl_from_votes")},
        "temperature": result.temperature,
        "epochs": len(network.history),
        "checkpoint": f"{checkpoint}, step {network.step}",
        "train_minutes": train_minutes(network.history, run.config.train.batch_size),
    }
    return tables.without_nan(row)


def gather(runs: Sequence[Run], checkpoint: str, workdir: Path) -> list[dict[str, Any]]:
    """Write results.csv and the report of all runs that are finished in the folder; returns their rows.

    Variants come in the order of `runs`, the first of which the others are compared with; then those of other commands.
    The runs of a variant have one config but for the seed: that in `runs`, or the last that was trained.
    """
    from filelock import FileLock

    from fer_jax import config as config_lib
    from fer_jax import evaluate, sweep_report

    configs = {run.variant: config_lib.as_json(run.config) | {"seed": None} for run in runs}
    order = list(configs)

    def place(row: Mapping[str, Any]) -> tuple[int, str, int]:
        name = row["variant"]
        return (order.index(name), "", row["seed"]) if name in order else (len(order), name, row["seed"])

    if not any(_kept(run, checkpoint) for run in runs):
        return []
    with FileLock(workdir / ".lock"):  # or a process that gathered fewer rows might write later
        rows = []
        for path in sorted(workdir.glob(f"*/seed*/{config_lib.RESULT}"), key=lambda path: -path.stat().st_mtime_ns):
            row = json.loads(path.read_text())
            config = config_lib.as_json(config_lib.read(path.parent)) | {"seed": None}
            if row["checkpoint"].startswith(checkpoint) and configs.setdefault(row["variant"], config) == config:
                rows.append(dict.fromkeys(sweep_report.SHOWN) | row)  # one of before has not all figures
        rows.sort(key=place)
        with atomic.replacing(workdir / "results.csv") as partial:
            partial.write_text(sweep_report.csv(rows))
        evaluate.write(workdir, "Sweep", sweep_report.page(rows, checkpoint), {"runs": rows})
    return rows


def _kept(run: Run, checkpoint: str) -> dict[str, Any] | None:
    from fer_jax import config as config_lib
    from fer_jax import sweep_report

    path = run.folder / config_lib.RESULT
    if not path.is_file() or config_lib.as_json(config_lib.read(run.folder)) != config_lib.as_json(run.config):
        return None
    row = json.loads(path.read_text())
    complete = sweep_report.SHOWN.keys() <= row.keys()  # or it is of before, and is judged again if it still can be
    if row["checkpoint"].startswith(checkpoint) and (complete or not any((run.folder / "checkpoints").glob("step_*"))):
        return row
    return None


def main() -> int:
    """Parse the command line, train what is not trained yet, and write the table after each run."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.sweep",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, action="append", metavar="FILE", help="a config; repeat it for more")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument(
        "--variants",
        nargs="+",
        default=[],
        metavar="NAME",
        help="train these alone (the table has what is finished)",
    )
    workdir = Path("experiments/sweep")
    parser.add_argument("--workdir", type=Path, default=workdir, metavar="DIR", help=f"default: {workdir}")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="latest",
        help="which is judged; default: latest, which the judging pictures did not choose",
    )
    # argparse would not list these: it only passes them on
    parser.add_argument_group("overrides", "--config.field=value sets a field in every run")
    args, overrides = parser.parse_known_args()
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("the same seed stands there twice")

    planned = plan(args.config, overrides, args.seeds, args.workdir)
    runs = chosen(planned, args.variants)

    import jax

    from fer_jax import config as config_lib
    from fer_jax import data, devices, document, evaluate, sweep_report
    from fer_jax.train import train

    for folder in {run.config.data.dir for run in runs}:
        for split in ("train", "valid"):
            data.load(folder, split)  # what is wrong with it shows before run folders are made
    devices.tune_cpu()
    devices.cache_compilations()
    load = functools.cache(evaluate.load)  # the search for repeats takes seconds
    failed, elsewhere = [], 0
    for number, run in enumerate(runs, start=1):
        if _kept(run, args.checkpoint):
            continue
        print(f"run {number} of {len(runs)}: {run.folder}", flush=True)
        jax.clear_caches()  # the programs of earlier variants, which would fill the memory
        try:
            with config_lib.hold(run.folder):  # before the seconds in which train reads the pictures
                ending = train(run.config, run.folder, lambda line: print(f"  {line}", flush=True))
                if ending.finished and not _kept(run, args.checkpoint):  # another process may just have ended
                    row = outcome(run, args.checkpoint, load(run.config.data.dir, "valid"))
                    with atomic.replacing(run.folder / config_lib.RESULT) as partial:
                        partial.write_text(json.dumps(row, indent=1) + "\n")
        except config_lib.BusyError:
            print("  another process has it", flush=True)
            elsewhere += 1
            continue
        except UserError as error:  # the others may do better
            failed.append(f"{run.folder}: {error}")
            print(f"  error: {error}", flush=True)
            continue
        if ending.finished:
            gather(planned, args.checkpoint, args.workdir)
        if ending.signal:
            print(f"{ending.signal}: all is saved; the same command goes on from there")
            break
    else:
        if rows := gather(planned, args.checkpoint, args.workdir):
            print(f"\n{document.to_text(sweep_report.table(rows, sweep_report.TOLD))}\n")
            print(f"results: {args.workdir / 'results.csv'}, {args.workdir / 'report.html'}")
        if elsewhere:
            had = f"other processes had {elsewhere} of the {len(runs)} runs"
            print(f"{had}; the same command gathers the table once more")
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed, the first: {failed[0]}")
    return 0


if __name__ == "__main__":
    cli.run(main)
