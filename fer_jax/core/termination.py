"""SIGTERM and SIGHUP as an exception, so that a command can clean up and say how to go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TerminatedError(KeyboardInterrupt):
    """SIGTERM was received, or SIGHUP of a closed terminal."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def termination_signals() -> list[signal.Signals]:
    """Return SIGTERM and, where the system has it, SIGHUP, unless they are ignored, as `nohup` ignores SIGHUP."""
    names = ("SIGTERM", "SIGHUP")
    return [number for number in signal.Signals if number.name in names and signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def termination() -> Iterator[None]:
    """Raise TerminatedError in the block at SIGTERM and SIGHUP, unless they are ignored or have another handler."""
    numbers = [number for number in termination_signals() if _is_default(number)]

    def stop(number: int, frame: FrameType | None) -> None:
        raise TerminatedError(number)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _is_default(number: int) -> bool:
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and signal.getsignal(number) == signal.SIG_DFL
