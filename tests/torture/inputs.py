"""Odd inputs of six kinds: each is refused in one line, or read right by an independent reference.

A case follows from seed and number alone. It has 20 s, and may write in its own folder only.
"""

import functools
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from fer_jax.core import cli
from tests.torture import input_kinds
from tests.torture.input_kinds import WrongError

LIMIT_S = 20
LONGEST = 300  # characters of a message, with its "error: "
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,), "shutil.rmtree": (0,)}


class Counts(NamedTuple):
    """The outcome of some cases."""

    outcomes: Counter[tuple[str, str]]  # of (kind, "refused" | "right" | "wrong")
    slowest_s: float
    peak_mb: float  # of the process


def run(kinds: list[str], first: int, count: int, seed: int, keep: Path | None, say: Callable[[str], None]) -> Counts:
    """Try `count` cases from number `first` on, the kinds by turns.

    Args:
        kinds: keys of `input_kinds.KINDS`.
        first: the number of the first case.
        count: the number of cases.
        seed: of all cases.
        keep: a folder for the files of wrong cases.
        say: gets a line for each wrong case.
    """
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory(prefix="torture-inputs-") as name:
        base = Path(name).resolve()
        watch = _watch()
        bases = {kind: _base(kind, base / kind) for kind in kinds}
        for number in range(first, first + count):
            kind = kinds[number % len(kinds)]
            folder = base / "case"
            shutil.copytree(bases[kind], folder)
            begin = time.monotonic()
            try:
                outcome = _case(kind, random.Random(f"{seed}/{kind}/{number}"), folder, watch)
            except Exception as error:
                outcome = "wrong"
                say(f"wrong: {kind} {number}: {type(error).__name__}: {' '.join(str(error).split())[:400]}")
                if keep:
                    shutil.copytree(folder, keep / f"{kind}{number}", dirs_exist_ok=True)
            slowest = max(slowest, time.monotonic() - begin)
            outcomes[kind, outcome] += 1
            shutil.rmtree(folder)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Counts(outcomes, slowest, peak / 1024)


def _base(kind: str, folder: Path) -> Path:
    folder.mkdir()
    input_kinds.KINDS[kind].prepare(folder)
    return folder


def _case(kind: str, rng: random.Random, folder: Path, watch: "_Watch") -> str:
    """Return "refused" or "right"; any error is a fault of the program."""
    change = input_kinds.KINDS[kind].change(rng, folder)
    out, err = io.StringIO(), io.StringIO()
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT_S)
    try:
        with redirect_stdout(out), redirect_stderr(err), watch.writing_to(folder):
            status = cli.status(lambda: input_kinds.KINDS[kind].read(folder, change))
    except (Exception, SystemExit) as error:
        raise WrongError(f"{change}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    if watch.outside:
        raise WrongError(f"{change}: written outside its folder: {watch.outside.pop()}")
    _check_message(status, err.getvalue(), str(change))
    if status == 1 and (problem := input_kinds.KINDS[kind].after_refusal(folder, change, err.getvalue())):
        raise WrongError(f"{change}: {problem}: {err.getvalue()}")
    return "refused" if status else "right"


def _check_message(status: int, text: str, change: str) -> None:
    lines = text.splitlines()
    if status not in (0, 1) or (status == 1 and not (lines and lines[-1].startswith("error: "))):
        raise WrongError(f"{change}: status {status} with {text!r}")
    others = [line for line in lines if not line.startswith(("warning: ", "error: "))]
    if others or sum(line.startswith("error: ") for line in lines) > 1 or max(map(len, lines), default=0) > LONGEST:
        raise WrongError(f"{change}: messages {text!r}")


def _too_long(number: int, frame: FrameType | None) -> None:
    raise WrongError(f"took over {LIMIT_S} s")


@functools.cache
def _watch() -> "_Watch":
    """The watch of this process: an audit hook cannot be removed."""
    return _Watch()


class _Watch:
    """Notes each file that Python code changes outside the folder of a case, by an audit hook."""

    def __init__(self) -> None:
        self._folder = ""
        self.outside: list[str] = []
        sys.addaudithook(self._note)

    def writing_to(self, folder: Path) -> Any:
        self.outside.clear()
        self._folder = str(folder)
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._folder = ""

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._folder:
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            paths = [arguments[0]]
        elif event in ("os.remove", "os.rmdir") and arguments[1] != -1:  # inside a tree that is removed
            return
        elif event in CHANGES:
            paths = [arguments[place] for place in CHANGES[event]]
        else:
            return
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                text = os.path.abspath(os.fsdecode(path))
                allowed = (f"{self._folder}", "/dev/", os.environ.get("JAX_COMPILATION_CACHE_DIR", "/dev/"))
                if not text.startswith(allowed) and "/fer_jax/xla/" not in text:
                    self.outside.append(f"{event} {text}")
