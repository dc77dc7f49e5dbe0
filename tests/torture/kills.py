"""Kill trainings, sweeps and searches again and again, and compare their end with one that was never killed.

The kills (SIGKILL) are spread over start, first steps, epochs, evaluation, checkpoint writing and end: half of them
come at a random time, half within 80 ms after a random line of the output. Weights, optimizer state, history,
TensorBoard, tables and studies must be equal.
"""

import os
import random
import select
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fer_jax import main as train_command
from fer_jax import sweep as sweep_command
from fer_jax import tune as tune_command
from fer_jax.core import config as config_lib
from fer_jax.reporting.event_log import PLOT, SPLITS, _read
from tests.conftest import draw_sample
from tests.small_runs import restored

CONFIG, SEARCH = "tests/quick.py", "tests/quick_tune.py"
ALL_OPTIONS = [
    "--config.data.label_mode=probability",
    "--config.data.temperature=0.7",
    "--config.data.smoothing=0.1",
    "--config.data.balance=0.5",
    "--config.data.logit_adjustment=0.5",
    "--config.augment.recipe=strong",
    "--config.augment.erase=0.5",
    "--config.augment.mixup=0.2",
    "--config.optim.ema_decay=0.9",
]
CLOCK = ("images_per_s", "data_wait")  # depend on the speed
LIMIT_S = 300  # of one start


class Job(NamedTuple):
    """A command that is killed."""

    main: Callable[[Sequence[str]], int]
    arguments: Callable[[Path, Path], list[str]]  # of the work folder and the data folder
    outcome: Callable[[Path, Path], dict[str, Any]]  # all that it leaves, except times
    before_start: Callable[[Path], None] = lambda folder: None


class Counts(NamedTuple):
    """The kills of some runs."""

    phases: Counter[str]  # of the kills
    runs: int
    different: int


def run(kills: int, minutes: float, seed: int, names: Sequence[str], say: Callable[[str], None]) -> Counts:
    """Kill the jobs by turns until there are enough kills, or the time is over.

    Args:
        kills: the number of kills.
        minutes: no run starts after them.
        seed: of the moments of the kills.
        names: keys of `JOBS`.
        say: gets a line for each run.
    """
    rng, deadline = random.Random(seed), time.monotonic() + 60 * minutes
    base = Path(tempfile.mkdtemp(prefix="torture-"))
    data = draw_sample(base)
    phases: Counter[str] = Counter()
    runs = different = 0
    wholes: dict[str, tuple[float, int]] = {}
    while phases.total() < kills and time.monotonic() < deadline:
        name = names[runs % len(names)]
        job, whole = JOBS[name], base / f"{name}_whole"
        if name not in wholes:
            _start(job, base / f"{name}_warm", data)  # compiles
            begin = time.monotonic()
            _, output = _start(job, whole, data)
            wholes[name] = time.monotonic() - begin, output.count("\n")
        folder = base / f"{name}{runs}"
        found = _killed(job, folder, data, rng, *wholes[name])
        phases, runs = phases + found, runs + 1
        problem = _compare(job, whole, folder, data)
        different += bool(problem)
        say(f"run {runs} ({name}): {found.total()} kills, {problem or 'equal'}")
        if not problem:
            shutil.rmtree(folder)
    if not different:
        shutil.rmtree(base)
    return Counts(phases, runs, different)


def _killed(job: Job, folder: Path, data: Path, rng: random.Random, seconds: float, lines: int) -> Counter[str]:
    """Start a job until it ends, and kill it meanwhile; return the phases in which it was killed."""
    phases: Counter[str] = Counter()
    done = False
    while not done:
        job.before_start(folder)
        if rng.random() < 0.5:
            done, output = _start(job, folder, data, seconds=rng.uniform(0.05, 0.95) * seconds)
        else:
            lines_before = rng.randint(0, max(0, lines - 1))
            done, output = _start(job, folder, data, lines=lines_before, delay_s=rng.uniform(0, 0.08))
        if not done:
            phases[_phase(output)] += 1
    _start(job, folder, data)  # a start of the finished job
    return phases


def _phase(output: str) -> str:
    lines = [line.strip() for line in output.splitlines()]
    if not any("training images" in line for line in lines):
        return "start"
    if not any(line.startswith("epoch ") for line in lines):
        return "first steps"
    last = lines[-1]
    return "epochs, evaluation, checkpoints" if last.startswith(("epoch ", "resuming")) else "end"


def _start(
    job: Job, folder: Path, data: Path, seconds: float = LIMIT_S, lines: int = 10**9, delay_s: float = 0
) -> tuple[bool, str]:
    """Start a job, and kill it after some seconds or lines; return True if it ended before, and its output."""
    child, pipe = _fork(job, job.arguments(folder, data))
    end, output, killed = time.monotonic() + seconds, b"", False
    while True:
        left = end - time.monotonic()
        if left <= 0 or output.count(b"\n") >= lines:
            time.sleep(delay_s)
            os.kill(child, signal.SIGKILL)
            killed = True
            break
        if select.select([pipe], [], [], left)[0]:
            if not (text := os.read(pipe, 4096)):
                break
            output += text
    os.close(pipe)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
        raise SystemExit(f"a start failed:\n{output.decode()}")
    if killed and seconds == LIMIT_S and lines == 10**9:
        raise SystemExit(f"a start took over {LIMIT_S} s:\n{output.decode()}")
    return not os.WIFSIGNALED(status), output.decode(errors="replace")


def _fork(job: Job, arguments: Sequence[str]) -> tuple[int, int]:
    """Fork a process that runs a job; return its number and the pipe with its output. Its imports are done already."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        return child, reading
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    status = 1
    try:
        status = job.main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(status)


def _compare(job: Job, whole: Path, killed: Path, data: Path) -> str:
    """The names of what differs. In a process of its own: this one forks, which it may not do after it has used jax."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        text = "the comparison failed"
        try:
            first, second = (job.outcome(folder, data) for folder in (whole, killed))
            text = ", ".join(name for name in {**first, **second} if not _equal(first.get(name), second.get(name)))
        except Exception as error:
            text = f"the comparison failed: {type(error).__name__}: {error}"
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading) as file:
        return file.read()


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, list) and first and isinstance(first[0], np.ndarray):
        return len(first) == len(second) and all(map(np.array_equal, first, second))
    return first == second


def _run_outcome(folder: Path, fields: Sequence[str], config: str = CONFIG) -> dict[str, Any]:
    """Everything that a finished run leaves, except times."""
    saved = restored(config_lib.load(config, fields), folder)
    history = [record._replace(images_per_s=0, data_wait=0) for record in saved.progress.history]
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    timed = [rows[0].index(name) for name in CLOCK]
    values = [
        (split, value.tag, event.step, None if value.tag.endswith(CLOCK) else value.SerializeToString())
        for split in ("", *SPLITS)
        for path in sorted((folder / split).glob("*tfevents*"))
        for event in _read(path)
        for value in event.summary.value
        # These depend on the clock: plots of earlier epochs; the time of the session; the run's folder is no value.
        if not (value.tag == PLOT and event.step < saved.step) and not value.tag.startswith("_hparams_/session")
    ]
    return {
        "parameters": [np.asarray(leaf) for leaf in jax.tree.leaves(saved.tree["state"].params)],
        "arrays": [np.asarray(leaf) for leaf in jax.tree.leaves(saved.tree)],
        "history": history,
        "history.csv": [[cell for i, cell in enumerate(row) if i not in timed] for row in rows],
        "TensorBoard": sorted(values, key=lambda value: value[:3]),
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
    }


def _training(options: Sequence[str]) -> Job:
    def fields(data: Path) -> list[str]:
        return [*options, f"--config.data.dir={data}", "--config.train.epochs=4"]

    return Job(
        train_command.main,
        lambda folder, data: ["--config", CONFIG, "--workdir", str(folder), *fields(data)],
        lambda folder, data: _run_outcome(folder, fields(data)),
    )


def _sweep_fields(data: Path) -> list[str]:
    return [f"--config.data.dir={data}", "--config.train.epochs=2"]


def _sweep_outcome(folder: Path, data: Path) -> dict[str, Any]:
    rows = [line.split(",") for line in (folder / "results.csv").read_text().splitlines()]
    time_column = rows[0].index("train_minutes")
    outcome: dict[str, Any] = {
        "results.csv": [[cell for i, cell in enumerate(row) if i != time_column] for row in rows],
        "report": (folder / "report.html").is_file(),
    }
    for seed in (0, 1):
        fields = [*_sweep_fields(data), f"--config.seed={seed}"]
        run_outcome = _run_outcome(folder / "quick" / f"seed{seed}", fields)
        outcome |= {f"seed {seed}: {name}": value for name, value in run_outcome.items()}
    return outcome


def _study_outcome(folder: Path, data: Path) -> dict[str, Any]:
    """The trials by their values: the best accuracies, and the number of trials that were trained to their end."""
    import optuna  # here, since it starts threads

    study = optuna.load_study(study_name="quick_tune", storage=f"sqlite:///{folder}.db")
    finished = [trial for trial in study.trials if trial.state.is_finished() and trial.state.name != "FAIL"]
    return {
        "trials": sorted((sorted(trial.params.items()), trial.state.name, trial.value or 0) for trial in finished),
        "curves": sorted(
            (sorted(trial.params.items()), sorted(trial.intermediate_values.items()))
            for trial in finished
            if trial.state.name == "COMPLETE"
        ),
        # Without its docstring: the number of the best trial depends on the order in which trials were retried.
        "tuned.py": (folder / "tuned.py").read_text().split('"""')[2],
        "report": (folder / "report.html").is_file(),
    }


def _age_heartbeats(folder: Path) -> None:
    """As if a minute had passed since the process was killed: its trial is stale."""
    path = folder.with_suffix(".db")
    if path.exists():
        with closing(sqlite3.connect(path, timeout=60)) as database, database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'trial_heartbeats'").fetchall()
            if tables:
                database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-70 seconds')")


JOBS = {
    "plain": _training([]),
    "all_options": _training(ALL_OPTIONS),
    "sweep": Job(
        sweep_command.main,
        lambda folder, data: [
            *["--config", CONFIG, "--seeds", "0", "1", "--workdir", str(folder)],
            *_sweep_fields(data),
        ],
        _sweep_outcome,
    ),
    "tune": Job(
        tune_command.main,
        lambda folder, data: [
            *["--config", SEARCH, "--sampler", "grid", "--trials", "4", "--workdir", str(folder)],
            *["--storage", f"sqlite:///{folder}.db", f"--config.data.dir={data}"],
        ],
        _study_outcome,
        _age_heartbeats,
    ),
}
