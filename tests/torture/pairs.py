"""Kill one or both of two processes that train one network, and compare the end with a run that was not killed.

The kills (SIGKILL) come at a random time, or within 80 ms after a random line of the output. The other process must end
in time with one line. The same command, with two processes or one, then ends as the run that was not killed: equal in
every respect if two processes trained all of it, equal to rounding if one trained a part.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.core.supervisor import JOIN_S
from tests.conftest import ROOT, draw_sample
from tests.test_processes import free_port
from tests.torture import kills

EPOCHS = "--config.train.epochs=4"
END_S = 60  # a process ends so long after another one at the latest; before both have joined, after `JOIN_S`
LIMIT_S = 300  # of one start
POLL_S = 0.02
KILLS = 3  # of a run, at most
ROUNDING = 1e-3  # of float32 parameters after the last step, if one process did a part of the steps


class Started(NamedTuple):
    """A process and the files of its output."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def lines(self, name: str = "out") -> list[str]:
        return getattr(self, name).read_text().splitlines()


class Counts(NamedTuple):
    """The kills of some runs."""

    phases: Counter[str]  # of the kills
    outcomes: Counter[str]  # of the runs: "equal", "equal to rounding" or "different"
    slowest_s: float  # the end of a process after another one, both joined
    difference: float  # of parameters, at most


class _FaultError(Exception):
    """A process did not end as it should."""


def run(count: int, minutes: float, seed: int, say: Callable[[str], None]) -> Counts:
    """Kill runs of two processes until there are `count` kills, or no run may start after so many minutes."""
    rng, deadline = random.Random(seed), time.monotonic() + 60 * minutes
    base = Path(tempfile.mkdtemp(prefix="torture-pairs-"))
    data = draw_sample(base)
    _finish(_start(2, base / "warm", data))  # compiles
    begin = time.monotonic()
    whole = _start(2, base / "whole", data)
    _finish(whole)
    expected = time.monotonic() - begin, len(whole[0].lines())
    _finish(_start(1, base / "one", data))
    problem, apart = _compare(base / "whole", base / "one", data, alone=True)
    say(f"one process in place of two, no kills: parameters differ by at most {apart:.1e}{problem and f', {problem}'}")
    phases, outcomes = Counter[str](), Counter[str]()
    slowest = difference = 0.0
    while phases.total() < count and time.monotonic() < deadline:
        folder = base / f"run{outcomes.total()}"
        found, problem, apart = Counter[str](), "", 0.0
        try:
            alone, late = _killed(folder, data, rng, *expected, found)
            slowest = max(slowest, late)
            problem, apart = _compare(base / "whole", folder, data, alone)
        except _FaultError as fault:
            problem = str(fault)
        outcome = "different" if problem else "equal to rounding" if apart else "equal"
        phases, difference = phases + found, max(difference, apart)
        outcomes[outcome] += 1
        say(f"run {outcomes.total()}: {found.total()} kills, {problem or outcome}")
        if not problem:
            shutil.rmtree(folder)
    if not outcomes["different"]:
        shutil.rmtree(base)
    return Counts(phases, outcomes, slowest, difference)


def _killed(
    folder: Path, data: Path, rng: random.Random, seconds: float, lines: int, phases: Counter[str]
) -> tuple[bool, float]:
    """Kill a run some times and let it end; return True if one process did a part, and the slowest end of the other."""
    alone, slowest = False, 0.0
    for _ in range(rng.randint(1, KILLS)):
        number = 2 if not phases or rng.random() < 0.6 else 1
        started = _start(number, folder, data)
        if rng.random() < 0.5:
            _wait(started, rng.uniform(0.05, 0.95) * seconds)
        else:
            _wait(started, LIMIT_S, rng.randint(0, lines - 1), rng.uniform(0, 0.08))
        alone = alone or (number == 1 and any("training images" in line for line in started[0].lines()))
        if all(each.process.poll() is not None for each in started):
            break
        victims = rng.choice([[0], [1], [0, 1]]) if number == 2 else [0]
        phase = kills._phase("\n".join(started[0].lines()))
        children = {index: _children(each.process.pid) for index, each in enumerate(started)}
        for victim in victims:
            _kill(started[victim].process.pid, children[victim], rng)
        phases[phase] += 1
        seconds_late = _check_ends(started, victims, phase)
        slowest = max(slowest, 0 if phase == "start" else seconds_late)
        _wait_for_orphans([child for each in children.values() for child in each])
    number = rng.choice([1, 2])
    started = _start(number, folder, data)
    _finish(started)
    return alone or (number == 1 and _trained(started[0])), slowest


def _trained(started: Started) -> bool:
    return any(line.startswith("epoch ") for line in started.lines())


def _start(number: int, folder: Path, data: Path) -> list[Started]:
    """Start the processes of a run as a user does."""
    folder.parent.mkdir(exist_ok=True)
    shared = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"} if number == 2 else {}
    command = [sys.executable, "-m", "fer_jax.main", "--config", kills.CONFIG, "--workdir", str(folder)]
    command += [f"--config.data.dir={data}", EPOCHS]
    started = []
    for index in range(number):
        out, err = (folder.with_name(f"{folder.name}.{index}.{name}") for name in ("out", "err"))
        environment = {**os.environ, **shared, "JAX_PROCESS_ID": str(index)}
        with out.open("wb") as output, err.open("wb") as errors:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=errors)
        started.append(Started(process, out, err))
    return started


def _wait(started: Sequence[Started], seconds: float, lines: int = 10**9, delay_s: float = 0) -> None:
    """Wait for the seconds, for the lines of the first process and the delay, or for the end of all."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(each.process.poll() is None for each in started):
        if len(started[0].lines()) >= lines:
            time.sleep(delay_s)
            return
        time.sleep(POLL_S)


def _finish(started: Sequence[Started]) -> None:
    _wait(started, LIMIT_S)
    ends = [(each.process.poll(), each.err.read_text()) for each in started]
    if ends != [(0, "")] * len(started):
        for each in started:
            each.process.kill()
        raise _FaultError(f"a start of {len(started)} processes ended with {ends}")


def _children(number: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    return []


def _kill(parent: int, children: list[int], rng: random.Random) -> None:
    """Kill parent and child, as a power failure does, or only one of them, as a user or a lack of memory does."""
    for number in rng.choice([[parent, *children], [parent], children or [parent]]):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _check_ends(started: Sequence[Started], victims: Sequence[int], phase: str) -> float:
    """Return the seconds until all have ended. Those that were not killed have one line each."""
    begin = time.monotonic()
    _wait(started, END_S + (JOIN_S if phase == "start" else 0))
    seconds = time.monotonic() - begin
    for index, each in enumerate(started):
        status, errors = each.process.poll(), each.lines("err")
        if status is None:
            each.process.kill()
            raise _FaultError(f"process {index} was still running {seconds:.0f} s after a kill of {victims} ({phase})")
        if status == -signal.SIGKILL or (phase == "end" and status == 0 and not errors):
            continue
        if len(errors) != 1 or not errors[0].startswith("error: ") or status not in (1, 128 + signal.SIGKILL):
            raise _FaultError(f"process {index} ended with {status}, {errors} after a kill of {victims} ({phase})")
    return seconds


def _wait_for_orphans(numbers: Sequence[int]) -> None:
    """Wait for the children of killed parents, which end by themselves."""
    deadline = time.monotonic() + END_S
    for number in numbers:
        while _is_running(number):
            if time.monotonic() > deadline:
                raise _FaultError(f"a process outlived its parent by {END_S} s")
            time.sleep(POLL_S)


def _is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _compare(whole: Path, killed: Path, data: Path, alone: bool) -> tuple[str, float]:
    """Return the names of what differs, and the largest difference of parameters."""
    fields = [f"--config.data.dir={data}", EPOCHS]
    first, second = (kills._run_outcome(folder, fields) for folder in (whole, killed))
    different = [name for name in first if not kills._equal(first[name], second[name])]
    if not alone or not different:
        return ", ".join(different), 0.0
    apart = max(float(np.max(np.abs(a - b), initial=0)) for a, b in zip(_floats(first), _floats(second), strict=True))
    problems = [] if apart <= ROUNDING else [f"parameters by {apart:.1e}"]
    if len(first["history"]) != len(second["history"]):
        problems.append("history")
    if [value[:3] for value in first["TensorBoard"]] != [value[:3] for value in second["TensorBoard"]]:
        problems.append("TensorBoard")
    return ", ".join(problems), apart


def _floats(outcome: dict[str, Any]) -> list[np.ndarray]:
    return [array for array in outcome["parameters"] if array.dtype == np.float32]
