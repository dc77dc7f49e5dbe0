"""Kill a short training run again and again, and compare its end with a run that was never killed.

The kills (SIGKILL) are spread over start, steps, checkpoint writing and end: half of them come at a random time of a
run, half within 80 ms after a random line of its output. Weights, optimizer state, history and TensorBoard must be
equal.
"""

import argparse
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fer_jax import main as command
from fer_jax.core import config as config_lib
from fer_jax.reporting.event_log import PLOT, SPLITS, _read
from tests.conftest import run_python
from tests.small_runs import restored

EPOCHS = 4
CONFIG = "tests/quick.py"
VARIANTS = {
    "plain": [],
    "all options": [
        "--config.data.label_mode=probability",
        "--config.data.temperature=0.7",
        "--config.data.smoothing=0.1",
        "--config.data.balance=0.5",
        "--config.data.logit_adjustment=0.5",
        "--config.augment.recipe=strong",
        "--config.augment.erase=0.5",
        "--config.augment.mixup=0.2",
        "--config.optim.ema_decay=0.9",
    ],
}
CLOCK = ("images_per_s", "data_wait")  # depend on the speed
LIMIT_S = 300  # of one start


def start(arguments: Sequence[str]) -> tuple[int, int]:
    """Fork a process that trains; return its number and the pipe with its output. Its imports are done already."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        return child, reading
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    status = 1
    try:
        status = command.main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(status)


def run(arguments: Sequence[str], seconds: float = LIMIT_S, lines: int = 10**9, delay_s: float = 0) -> tuple[bool, str]:
    """Train, and kill after some seconds or lines; return True if the run ended before, and its output."""
    child, pipe = start(arguments)
    end, output = time.monotonic() + seconds, b""
    while (left := end - time.monotonic()) > 0 and output.count(b"\n") < lines:
        if select.select([pipe], [], [], left)[0]:
            if not (text := os.read(pipe, 4096)):
                break
            output += text
    else:
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
    os.close(pipe)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status):
        raise SystemExit(f"a start failed:\n{output.decode()}")
    return not os.WIFSIGNALED(status), output.decode(errors="replace")


def outcome(folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Everything that a finished run leaves, except times."""
    saved = restored(config_lib.load(CONFIG, arguments), folder)
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
        "arrays": [np.asarray(leaf) for leaf in jax.tree.leaves(saved.tree)],
        "history": history,
        "history.csv": [[cell for i, cell in enumerate(row) if i not in timed] for row in rows],
        "TensorBoard": sorted(values, key=lambda value: value[:3]),
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
    }


def differences(whole: dict[str, Any], killed: dict[str, Any]) -> list[str]:
    equal = {
        name: whole[name] == killed[name] if name != "arrays" else all(map(np.array_equal, whole[name], killed[name]))
        for name in whole
    }
    return [name for name, same in equal.items() if not same]


def main() -> int:
    """Kill until the time is over; the status is 1 if a run differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60, help="stop after the run in which they are over")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, deadline = random.Random(args.seed), time.monotonic() + 60 * args.minutes
    base = Path(tempfile.mkdtemp(prefix="torture-"))
    csvs = ["-fer", str(base / "fer2013.csv"), "-ferplus", str(base / "fer2013new.csv")]
    for line in (
        ["-m", "fer_generator.synthetic", "-o", str(base), "--train", "1200", "--valid", "300"],
        ["fer_generator/generate_training_data.py", "-d", str(base / "data"), *csvs],
    ):
        run_python(*line).check_returncode()
    kills, runs, wrong = 0, 0, 0
    wholes: dict[str, tuple[Path, float, int]] = {}
    while kills < args.kills and time.monotonic() < deadline:
        name = list(VARIANTS)[runs % len(VARIANTS)]
        fields = [*VARIANTS[name], f"--config.data.dir={base / 'data'}", f"--config.train.epochs={EPOCHS}"]

        def arguments(folder: Path, fields: list[str] = fields) -> list[str]:
            return ["--config", CONFIG, "--workdir", str(folder), *fields]

        if name not in wholes:
            whole = base / name.replace(" ", "_")
            run(arguments(whole.with_suffix(".warm")))  # compiles
            begin = time.monotonic()
            _, output = run(arguments(whole))
            wholes[name] = whole, time.monotonic() - begin, output.count("\n")
        whole, seconds, lines = wholes[name]
        folder, done, killed = base / f"killed{runs}", False, 0
        while not done:
            if rng.random() < 0.5:
                done, _ = run(arguments(folder), seconds=rng.uniform(0.1, 0.9) * seconds)
            else:
                done, _ = run(arguments(folder), lines=rng.randint(1, lines - 2), delay_s=rng.uniform(0, 0.08))
            killed += not done
        done, _ = run(arguments(folder))  # a start of the finished run
        kills, runs = kills + killed, runs + 1
        # In a process of its own: this one forks, which it may not do after it has used jax.
        problem = compare(whole, folder, fields)
        wrong += bool(problem)
        print(f"run {runs} ({name}): {killed} kills, {problem or 'equal'}", flush=True)
        if not problem:
            shutil.rmtree(folder)
    print(f"{kills} kills in {runs} runs: {runs - wrong} equal, {wrong} different")
    return int(wrong > 0)


def compare(whole: Path, killed: Path, fields: list[str]) -> str:
    """The names of what differs."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        text = "the comparison failed"
        try:
            text = ", ".join(differences(*(outcome(folder, fields) for folder in (whole, killed))))
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading) as file:
        return file.read()


if __name__ == "__main__":
    sys.exit(main())
