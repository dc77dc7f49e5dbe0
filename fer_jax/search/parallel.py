"""A sweep in several processes at once and in a given time, to fill an accelerator for the minutes that it is lent.

Each process runs the same sweep, and skips the runs that another one trains. When the time is over, or this process
is killed, the pipe of their standard input closes. They then end as after SIGTERM: training saves a checkpoint, from
which the same command resumes.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from fer_jax.core.errors import UserError
from fer_jax.core.parent import FOLLOWS
from fer_jax.core.runtime import recorded_signals

MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
MEMORY_FRACTION = 0.9  # of a GPU, for all processes together; jax would give three quarters to the first one
POLL_S = 0.2
# Exit statuses that are no failure. The negative ones are those of a process that was still importing its modules.
_SIGNALS = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP", "SIGINT")]
STOPPED = (0, *(-number for number in _SIGNALS), *(128 + number for number in _SIGNALS))

Say = Callable[[str], None]


def supervise(command: Sequence[str], processes: int, minutes: float, say: Say) -> str:
    """Run a command in several processes until all end, or until the time is over.

    Return the name of the signal that stopped this process, or "". The processes have all saved by then.

    Args:
        command: the program and its arguments; it calls `parent.follow`.
        processes: their number, at least 1.
        minutes: the time after which they end; 0 for no limit.
        say: gets each line of the processes, with the number of its process.

    Raises:
        UserError: a process failed.
    """
    deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
    environment = {MEMORY: f"{MEMORY_FRACTION / processes:.3f}", **os.environ, FOLLOWS: "1"}
    # jax stays without devices here: this process would take most of a GPU's memory.
    with recorded_signals() as stop, ThreadPoolExecutor(processes) as pool, ExitStack() as pipes:
        children = []
        for number in range(1, processes + 1):
            child = _start(command, environment)
            pipes.callback(_end, child)  # after an error too
            pool.submit(_forward, child, f"{number}: " if processes > 1 else "", say)
            children.append(child)
        stopped = False
        while any(child.poll() is None for child in children):
            if not stopped and (stop() or time.monotonic() >= deadline):
                stopped = True
                if not stop():
                    say(f"{minutes:g} minutes are over: the runs are saved")
                pipes.close()
            time.sleep(POLL_S)
    if failed := sum(child.returncode not in STOPPED for child in children):
        raise UserError(f"{failed} of {processes} processes failed; their errors are above")
    return stop()


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _end(child: subprocess.Popen[str]) -> None:
    """Let a process save and end; one that is still importing its modules does so a little later."""
    if child.stdin:
        child.stdin.close()


def _forward(child: subprocess.Popen[str], prefix: str, say: Say) -> None:
    for line in child.stdout or ():
        if line.strip():
            say(prefix + line.rstrip())


def sweep_in_processes(arguments: Sequence[str], processes: int, minutes: float) -> str:
    """Sweep in several processes; see `supervise`."""
    command = [sys.executable, "-u", "-m", "fer_jax.sweep", *arguments]
    return supervise(command, processes, minutes, lambda line: print(line, flush=True))
