"""The parent of a process that trains with others: it reports in one line why that process ended.

When another process of a run dies, the C++ code of jax writes a stack trace and aborts, whatever Python does. So the
training runs in a child. What C++ code writes goes to a file; the parent reads the cause in it. The parent neither
imports jax nor trains.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType

from fer_jax.core import cli
from fer_jax.core.termination import termination_signals

NATIVE_LOG = "FER_JAX_NATIVE_LOG"  # the file for the output of C++ code; set in the child only
JOIN_S = 120  # machines may start at different times
AGAIN = "start the same command on all machines again: it resumes from the last checkpoint"
_STALE = re.compile(r"unhealthy \(stopped sending heartbeats\):\s+((?:[^\n]*\d+\n)+)")
_REPORTED = re.compile(r"^fer_jax: reported, status (\d+)$", re.MULTILINE)
_LOST = re.compile("Failed to send RPC to coordination service|DEADLINE_EXCEEDED.*RPC: /[^ ]*/Heartbeat", re.DOTALL)
_ABSENT = re.compile("DEADLINE_EXCEEDED.*RPC: /[^ ]*/RegisterTask", re.DOTALL)
_UNKNOWN = ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")


def is_needed() -> bool:
    """Return True in a process that is to train with others and has no parent of this kind yet."""
    return "JAX_COORDINATOR_ADDRESS" in os.environ and NATIVE_LOG not in os.environ


def supervise(module: str, arguments: Sequence[str] | None) -> int:
    """Run a command module in a child process, pass signals on, and return its exit status.

    If a signal ended the child, print the cause in one line. The status is then 1 if another process has died, else 128
    + the number of the signal.

    Args:
        module: the name in fer_jax, for example "main".
        arguments: of the command; None: those of this process.
    """
    handle, name = tempfile.mkstemp(prefix="fer_jax-", suffix=".log")
    os.close(handle)
    log = Path(name)
    options = list(sys.argv[1:] if arguments is None else arguments)
    child = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import run_child; run_child()", module, cli.command("main"), *options],
        stdin=subprocess.PIPE,  # it ends with this process: so the child notices
        env={**os.environ, NATIVE_LOG: name},
        start_new_session=True,  # a Ctrl-C of the terminal comes once, from here
    )

    def forward(number: int, frame: FrameType | None) -> None:
        # All processes save at one step after SIGTERM alone, so a closed terminal is passed on as that.
        child.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    handlers = {number: signal.signal(number, forward) for number in (*termination_signals(), signal.SIGINT)}
    try:
        status = child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if status >= 0:
        log.unlink(missing_ok=True)
        return status
    text = log.read_text(errors="replace")
    if reported := _REPORTED.search(text):
        log.unlink(missing_ok=True)
        return int(reported[1])
    line, known = _cause(signal.Signals(-status).name, text, log)
    print(f"error: {line}", file=sys.stderr)
    if known:
        log.unlink(missing_ok=True)
    return 1 if status == -signal.SIGABRT else 128 - status


def run_child() -> None:
    """Run a command in the child; the arguments are its module, the name of the program, and the command's own."""
    _separate_native_output()
    module, program, *arguments = sys.argv[1:]
    sys.argv[1:] = arguments
    if not program.startswith("python"):  # the hints in messages name the program that the user started
        cli.called_as(program.rpartition(" ")[0])
    cli.run(import_module(f"fer_jax.{module}").main)


def record_report(status: int) -> None:
    """Tell the parent that this child has printed its error and leaves with a status.

    jax may abort the child before it is gone, since another process was quicker; that is no second error.
    """
    if log := os.environ.get(NATIVE_LOG):
        with open(log, "a") as file:
            file.write(f"\nfer_jax: reported, status {status}\n")


def _separate_native_output() -> None:
    """Keep the terminal for Python: what C++ code writes goes to the file that the parent reads."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        terminal = open(os.dup(number), "w", encoding=old.encoding, errors=old.errors, buffering=1)  # noqa: SIM115
        setattr(sys, name, terminal)
    log = os.open(os.environ[NATIVE_LOG], os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _cause(name: str, text: str, log: Path) -> tuple[str, bool]:
    """The cause of a child's end by a signal, from the output of C++ code, and True if nothing more is to be read."""
    if stale := _STALE.search(text):
        numbers = sorted({int(number) for number in re.findall(r"(\d+)\s*$", stale[1], re.MULTILINE)})
        noun = f"process{'es' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        return f"{noun} ended or stopped responding; {AGAIN}", True
    if _ABSENT.search(text):
        address = os.environ.get("JAX_COORDINATOR_ADDRESS")
        remedy = "start the same command on all machines, each with its own JAX_PROCESS_ID"
        return f"not all processes have joined at {address} within {JOIN_S} s; {remedy}", True
    if _LOST.search(text):
        return f"process 0 ended or cannot be reached; {AGAIN}", True
    if name in _UNKNOWN:
        return f"this process crashed ({name}); {log} has its last messages; {AGAIN}", False
    memory = ", perhaps for lack of memory" if name == "SIGKILL" else ""
    return f"this process was ended by {name}{memory}; {AGAIN}", True
