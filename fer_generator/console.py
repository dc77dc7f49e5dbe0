"""The frame of both commands: output for any terminal, errors on one line, exit statuses of signals."""

import math
import os
import signal
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

LINE = 300  # characters of a message at most
PATH = 24  # characters of a path at least, in a message that would be too long


class UserError(Exception):
    """An error that the user can put right; its text is one line: what, where, what to do."""


class Parser(ArgumentParser):
    """argparse's parser with errors on one line, and no usage before them."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        print_line(f"error: {message}; {self.prog} --help explains the arguments")
        self.exit(2)


class Terminated(BaseException):
    """SIGTERM was received."""


def parse(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    """Return the parsed arguments. A reader of --help that closed the pipe is no error."""
    try:
        return parser.parse_args(argv)
    except SystemExit:
        with suppress(UserError):  # a full disk
            _print("", end="")  # what argparse has printed
        raise


def status(command: Callable[[], str], stopped: str, paths: Sequence[str] = ()) -> int:
    """Run a command, print the text that it returns, and return its exit status.

    The status is 1 after an error, 130 after Ctrl-C, 143 after SIGTERM. A reader that closed the pipe is no error.

    Args:
        command: does all its work before it returns.
        stopped: the state after Ctrl-C or SIGTERM, for the user.
        paths: paths that errors name; long ones are shortened.
    """
    try:
        with _sigterm():
            text = command()
        _print(text)
        return 0
    except UserError as error:
        print_line(f"error: {error}", paths)
        return 1
    except KeyboardInterrupt:
        print_line(f"interrupted: {stopped}")
        return 130
    except Terminated:
        print_line(f"terminated: {stopped}")
        return 143


def print_line(text: str, paths: Sequence[str] = ()) -> None:
    """Print one line of at most LINE characters on stderr; the starts of long paths are left out first."""
    line = escaped(text)
    for path in sorted(map(escaped, paths), key=len, reverse=True):
        if (excess := len(line) - LINE) > 0 and (count := line.count(path)):
            length = max(PATH, len(path) - math.ceil(excess / count))
            if length < len(path):
                line = line.replace(path, f"...{path[3 - length :]}")
    with suppress(OSError):  # nobody reads it
        print(line if len(line) <= LINE else f"{line[: LINE - 3]}...", file=sys.stderr)


def escaped(text: object) -> str:
    """Return a text on one line, with escapes for the characters that no terminal can show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _print(text: str, end: str = "\n") -> None:
    """Print a text on stdout, with escapes for the characters that its encoding lacks.

    Raises:
        UserError: the text cannot be written, for example to a full disk.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end=end, flush=True)
    except OSError as error:
        with suppress(OSError, ValueError):  # Python would try again at its end, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"all files are written, but the summary cannot be printed: {error.strerror}") from None


@contextmanager
def _sigterm() -> Iterator[None]:
    """Raise Terminated in the block at SIGTERM, so that the block can clean up."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the end of the block."""
    if threading.current_thread() is not threading.main_thread():  # it would not get them
        yield
        return
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
