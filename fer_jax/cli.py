"""What all commands share: errors as one line, and how a run is interrupted."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class UserError(Exception):
    """Something the user can put right; its text is one line: what, where, what to do."""


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its status: 1 and one line on stderr after a UserError, 130 after Ctrl-C."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status or 0)


@contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
    """Within it SIGTERM and the first Ctrl-C only leave a note; a second Ctrl-C interrupts as usual.

    Yields a function that returns the name of the signal that came, or "".
    """
    received = ""

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
