"""The frame of the benchmarks: a timing loop, its results as records, records as JSON lines and as a Markdown table.

A record has `what` was measured and `how`, that is the question and the implementation. The result is under the name of
its unit, a key of `UNITS`. Records with `baseline` are those that all others of the same `what` are compared with. This
module needs only the standard library: the PyTorch benchmarks run where nothing else is installed.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # by their flag in /proc/cpuinfo, the widest first
UNITS = {"images_per_s": "images/s", "seconds": "s", "mib": "MiB"}


class Timed(NamedTuple):
    """Seconds of each run: of the clock, and of processor time over all threads of this process."""

    wall: list[float]
    processor: list[float]


def time_runs(run: Callable[[], object], seconds: float, warmup: int = 2, least: int = 5) -> Timed:
    """Call `run` for at least `seconds` and at least `least` times, after `warmup` calls that do not count."""
    for _ in range(warmup):
        run()
    timed = Timed([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(timed.wall) < least:
        wall, processor = time.perf_counter(), time.process_time()
        run()
        timed.wall.append(time.perf_counter() - wall)
        timed.processor.append(time.process_time() - processor)
    return timed


def summary(values: Sequence[float], unit: str) -> Record:
    """Return the median under the name of the unit, the spread (first to ninth decile) and the number of values."""
    deciles = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]]
    return {
        unit: rounded(statistics.median(values)),
        "spread": [rounded(deciles[0]), rounded(deciles[-1])],
        "runs": len(values),
    }


def rates(images: int, timed: Timed) -> Record:
    """Return the summary of images per second, for runs of `images` each, and the median processor seconds of a run."""
    per_s = summary([images / seconds for seconds in timed.wall], "images_per_s")
    return per_s | {"cpu_s": rounded(statistics.median(timed.processor))}


def rounded(value: float) -> float:
    """Return the value with four significant digits, and with every digit before the decimal point."""
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value)


def unit_of(record: Record) -> str:
    """Return the unit of the record's result."""
    return next(unit for unit in UNITS if unit in record)


def with_ratios(records: Sequence[Record]) -> list[Record]:
    """Return the records with the `ratio` of each to the best baseline of the same `what`; above 1 is better."""
    return [record | ({} if record.get("baseline") else _ratio(record, records)) for record in records]


def _ratio(record: Record, records: Sequence[Record]) -> Record:
    unit = unit_of(record)
    baselines = [other[unit] for other in records if other.get("baseline") and other["what"] == record["what"]]
    if not baselines:
        return {}
    ratio = record[unit] / max(baselines) if unit == "images_per_s" else min(baselines) / record[unit]
    return {"ratio": rounded(ratio)}


def by_rounds(rounds: Sequence[Sequence[Record]]) -> list[Record]:
    """Merge rounds: one record for each measurement that was made in every round.

    The result is the median over the rounds. The ratio is the median of the ratios within each round, so that a slow
    round does not count. `rounds` and `ratios` list the values of all rounds.
    """
    names = set.intersection(*({_name(record) for record in records} for records in rounds))
    complete = [with_ratios([record for record in records if _name(record) in names]) for records in rounds]
    merged = []
    for first in complete[0]:
        same = [record for records in complete for record in records if _name(record) == _name(first)]
        unit = unit_of(first)
        values = [record[unit] for record in same]
        record = first | summary(values, unit) | {"rounds": values}
        if "ratio" in first:
            ratios = [record["ratio"] for record in same]
            record |= {"ratio": rounded(statistics.median(ratios)), "ratios": ratios}
        merged.append(record)
    return merged


def _name(record: Record) -> tuple[str, str]:
    return record["what"], record["how"]


def table(records: Sequence[Record], columns: Sequence[str] = ()) -> str:
    """Return a Markdown table of what, how, median, spread and more columns; records of the same `what` together."""
    rows = [["what", "how", "median", "spread", *columns], ["---"] * (4 + len(columns))]
    questions = list(dict.fromkeys(record["what"] for record in records))
    for record in sorted(records, key=lambda record: questions.index(record["what"])):
        unit = unit_of(record)
        cells = [record.get(column) for column in columns]
        spread = f"{record['spread'][0]:g} to {record['spread'][1]:g}"
        rows.append([*_name(record), f"{record[unit]:g} {UNITS[unit]}", spread, *map(_cell, cells)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def report(measurements: Iterator[Record], columns: Sequence[str]) -> None:
    """Print each record as a JSON line as soon as it is measured, and the table at the end."""
    records = []
    for record in measurements:
        print(json.dumps(record), flush=True)
        records.append(record)
    print("\n" + table(with_ratios(records), columns))


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config to a parser; the default is the network that the PyTorch benchmarks have too."""
    default = "configs/emotion_cnn.py"
    parser.add_argument("--config", default=default, metavar="FILE", help=f"the config (default {default})")
    # argparse would not list these: it only passes them on.
    parser.add_argument_group(
        "overrides", "--config.field=value sets a field, for example --config.model.dtype=bfloat16"
    )


def require_torch() -> None:
    """Exit with one line if this Python has no PyTorch."""
    if importlib.util.find_spec("torch") is None:
        sys.exit(f"error: no PyTorch in {sys.executable}: make .venv-bench/installed, then use .venv-bench/bin/python")


def progress(line: str) -> None:
    """Print the measurement that is running to stderr."""
    print(f"{line} ...", file=sys.stderr, flush=True)


def processor() -> str:
    """Return the name of the processor and its widest vector instructions, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    widest = next((f", {label}" for flag, label in VECTORS.items() if flag in flags), "")
    return fields.get("model name", platform.machine()) + widest


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread and its children on one core, on systems that can do so (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(affinity)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, affinity)
