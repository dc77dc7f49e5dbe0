"""Sweeps: several configs trained with several seeds, and their results in one table."""

import functools
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from fer_jax import inference
from fer_jax.core import atomic, run_folder
from fer_jax.core import config as config_lib
from fer_jax.core.errors import DiskError, UserError, one_line, shortened
from fer_jax.core.run_folder import BusyError
from fer_jax.data import folders
from fer_jax.evaluation import evaluator, robustness
from fer_jax.evaluation.evaluator import Data
from fer_jax.reporting import tables
from fer_jax.reporting.write import write
from fer_jax.search import sweep_report
from fer_jax.search.sweep_plan import Run, chosen, plan
from fer_jax.train import Ending, train
from fer_jax.training.checkpoint import disk_errors
from fer_jax.training.history import train_minutes

# Columns of results that older versions wrote, with their names today.
RENAMED = {"majority_unseen": "majority_without_duplicates", "macro_f1_unseen": "macro_f1_without_duplicates"}


def outcome(run: Run, checkpoint: str, valid: Data, with_robustness: bool) -> dict[str, Any]:
    """The row of a finished run in the table: its metrics on `valid`, without intervals."""
    network = inference.restore(run.folder, checkpoint)
    model = evaluator.predict_splits(run.variant, network, valid, flip=False)
    result = evaluator.evaluate(model, valid, "majority")
    metrics = result.metrics["majority"]
    row = {
        "variant": run.variant,
        "seed": run.seed,
        "majority": metrics["all"]["accuracy"].value,
        "majority_without_duplicates": metrics["without_duplicates"]["accuracy"].value,
        "clean": result.metrics["clean"]["all"]["accuracy"].value,
        "argmax": result.metrics["argmax"]["all"]["accuracy"].value,
        "macro_f1_without_duplicates": metrics["without_duplicates"]["macro_f1"].value,
        **{name: metrics["all"][name].value for name in ("macro_f1", "nll", "ece", "kl_from_votes")},
        "temperature": result.temperature,
        "epochs": len(network.history),
        "checkpoint": f"{checkpoint}, step {network.step}",
        "train_minutes": train_minutes(network.history, run.config.train.batch_size),
    }
    if with_robustness:
        images, label = valid.split.images[result.rows], result.main_predictions.label
        log_probs = robustness.predict(network, images, False, lambda line: print(f"  {line}", flush=True))
        row["corrupted"] = float((log_probs.argmax(axis=-1) == label).mean())
    return tables.without_nan(row)


def gather(runs: Sequence[Run], checkpoint: str, workdir: Path) -> list[dict[str, Any]]:
    """Write results.csv and the report of all finished runs of the folder; return their rows.

    The variants of `runs` come first, in their order; the first is the reference of the comparison. Variants of other
    commands follow. All runs of a variant have the same config except the seed: that of `runs`, or the latest.
    """
    configs = {run.variant: config_lib.as_json(run.config) | {"seed": None} for run in runs}
    order = list(configs)

    def place(row: Mapping[str, Any]) -> tuple[int, str, int]:
        name = row["variant"]
        return (order.index(name), "", row["seed"]) if name in order else (len(order), name, row["seed"])

    if not any(_stored_row(run, checkpoint) for run in runs):
        return []
    with run_folder.lock_file(workdir / run_folder.LOCK):  # or a process that has read fewer rows might write later
        rows = []
        for path in sorted(workdir.glob(f"*/seed*/{run_folder.RESULT}"), key=lambda path: -path.stat().st_mtime_ns):
            try:
                row = read_row(path)
                config = config_lib.as_json(run_folder.read_config(path.parent)) | {"seed": None}
            except UserError as error:  # the others are in the table
                print(f"  problem: {shortened(str(error))}", file=sys.stderr, flush=True)
                continue
            if row["checkpoint"].startswith(checkpoint) and configs.setdefault(row["variant"], config) == config:
                rows.append(dict.fromkeys(sweep_report.SHOWN) | row)  # an older row may lack metrics
        rows.sort(key=place)
        with atomic.replacing(workdir / "results.csv") as partial:
            partial.write_text(sweep_report.csv(rows), encoding="utf-8")
        write(workdir, "Sweep", sweep_report.page(rows, checkpoint), {"runs": rows})
    return rows


def read_row(path: Path) -> dict[str, Any]:
    """Read the row of a finished run, which this or an older version wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        row = {RENAMED.get(name, name): value for name, value in json.loads(path.read_text()).items()}
        if not isinstance(row["variant"], str) or not isinstance(row["seed"], int):
            raise TypeError("no name or no seed")
        str.startswith(row["checkpoint"], "")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({one_line(error, 60)}): delete it, and run the same command again"
        ) from None
    return row


def _stored_row(run: Run, checkpoint: str, with_robustness: bool = False) -> dict[str, Any] | None:
    """The row of a run that is finished; None for a run to train or to evaluate."""
    path = run.folder / run_folder.RESULT
    if not (path.is_file() and (run.folder / run_folder.CONFIG).is_file()):
        return None
    try:
        if config_lib.as_json(run_folder.read_config(run.folder)) != config_lib.as_json(run.config):
            return None
        row = read_row(path)
    except UserError:  # training names it, if it is still there, and the other runs go on
        return None
    needed = sweep_report.SHOWN.keys() - (set() if with_robustness else {"corrupted"})
    complete = needed <= row.keys()  # else it is older, or lacks what is asked for, and evaluated again if it can be
    if row["checkpoint"].startswith(checkpoint) and (complete or not run_folder.has_checkpoint(run.folder)):
        return row
    return None


class _Tally:
    """The runs that this process has not finished."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.busy = 0


def sweep(
    configs: Sequence[str],
    overrides: Sequence[str],
    seeds: Sequence[int],
    variant_names: Sequence[str],
    workdir: Path,
    checkpoint: str,
    with_robustness: bool = False,
) -> str:
    """Train every variant with every seed, and write the table of all finished runs after each.

    Return the name of the signal that stopped it, or "".

    Args:
        configs: config files, or names of shipped configs.
        overrides: `--config.field=value` arguments for all runs.
        seeds: all different.
        variant_names: the variants to train; all where it is empty.
        workdir: the folder of the sweep; the folder of a run is `<workdir>/<variant>/seed<n>`.
        checkpoint: the checkpoint to evaluate, "best" or "latest".
        with_robustness: evaluate on corrupted images too.

    Raises:
        DiskError: the disk is full.
        UserError: a config or the data cannot be used, or runs failed.
    """
    planned = plan(configs, overrides, seeds, workdir)
    runs = chosen(planned, variant_names)
    _check_data({run.config.data.dir for run in runs})
    load = functools.cache(evaluator.load_data)  # so that duplicates are searched once for all runs
    tally = _Tally()
    signal_name = ""
    for number, run in enumerate(runs, start=1):
        if _stored_row(run, checkpoint, with_robustness):
            continue
        print(f"run {number} of {len(runs)}: {run.folder}", flush=True)
        ending = _train_run(run, checkpoint, with_robustness, load, tally)
        if ending and ending.finished:
            gather(planned, checkpoint, workdir)
        if ending and ending.signal:
            signal_name = ending.signal
            print(f"{signal_name}: saved; the same command resumes from there")
            break
    else:
        _print_table(gather(planned, checkpoint, workdir), workdir)
        if tally.busy:
            note = f"{tally.busy} of {len(runs)} runs were left to other processes"
            print(f"{note}; when they have finished, the same command writes the whole table")
    if tally.failed:
        raise UserError(f"{len(tally.failed)} of {len(runs)} runs failed; the first: {tally.failed[0]}")
    return signal_name


def _check_data(data_dirs: Collection[str]) -> None:
    """Raise the UserError of the data before run folders are made, unless some of the data can be used."""
    problems = []
    for folder in sorted(data_dirs):
        try:
            for split in ("train", "valid"):
                folders.load(folder, split)
        except UserError as error:
            problems.append(error)
    if problems and len(problems) == len(data_dirs):
        raise problems[0]


def _train_run(run: Run, checkpoint: str, with_robustness: bool, load: Any, tally: _Tally) -> Ending | None:
    """Train and evaluate one run; return None where another process is training it or it failed."""
    jax.clear_caches()  # the programs of earlier variants, which would fill the memory
    try:
        with run_folder.hold(run.folder):  # before the seconds in which train reads the images
            ending = train(run.config, run.folder, lambda line: print(f"  {line}", flush=True))
            # Another process may just have finished it.
            if ending.finished and not _stored_row(run, checkpoint, with_robustness):
                row = outcome(run, checkpoint, load(run.config.data.dir, "valid"), with_robustness)
                with disk_errors(run.folder), atomic.replacing(run.folder / run_folder.RESULT) as partial:
                    partial.write_text(json.dumps(row, indent=1) + "\n")
            return ending
    except BusyError:
        print("  skipped: another process is training it", flush=True)
        tally.busy += 1
    except DiskError:  # the other runs would fail too
        raise
    except UserError as error:  # the other runs may not fail
        tally.failed.append(f"{run.folder}: {error}")
        print(f"  error: {shortened(str(error))}", flush=True)
    return None


def _print_table(rows: Sequence[Mapping[str, Any]], workdir: Path) -> None:
    if rows:
        print(f"\n{sweep_report.terminal_text(rows)}\n")
        print(f"results: {workdir / 'results.csv'}, {workdir / 'report.html'}")
