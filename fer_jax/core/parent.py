"""The end of a parent process, which its children notice: the pipe of their standard input closes."""

import os
import signal
import sys
import threading
from collections.abc import Callable

FOLLOWS = "FER_JAX_ENDS_WITH_PARENT"  # set for a child that is to end as after SIGTERM


def follow() -> None:
    """End as after SIGTERM when the parent closes the pipe or dies, if it has set `FOLLOWS`.

    Windows has no SIGTERM from other processes, and nowhere does a parent that was killed send one. Call it after the
    imports: on Windows, some libraries wait for the thread that reads the standard input when they are loaded.
    """
    if os.environ.pop(FOLLOWS, ""):
        when_ended(_terminate)


def when_ended(action: Callable[[], None]) -> None:
    """Call a function in a thread once the standard input is closed, which the parent holds open."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        action()

    threading.Thread(target=wait, daemon=True).start()


def _terminate() -> None:
    if sys.platform == "win32":  # os.kill would end this process at once
        signal.raise_signal(signal.SIGTERM)
    else:  # unlike raise_signal in this thread, it interrupts the main thread where that waits
        os.kill(os.getpid(), signal.SIGTERM)
