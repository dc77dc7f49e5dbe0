"""Standard output and standard error that take any text, and outlive their reader."""

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from fer_jax.core.errors import one_line

# Warnings that tell a user nothing; they may come at any time, even after the command.
NEEDLESS = (
    "coroutine .* was never awaited",  # orbax gives some up after a full disk, which has a line of its own
    "Error reading persistent compilation cache entry",  # another process writes it; jax compiles again
)


class Stream:
    """A text stream that escapes the characters that its encoding lacks, and drops what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None  # the first one; nothing is written after it

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        if self.failure is None:
            try:
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except OSError as error:
                self.failure = error
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.failure = error

    def __getattr__(self, name: str) -> Any:  # noqa: D105
        return getattr(self._stream, name)

    def close_quietly(self) -> None:
        """Keep Python from writing the rest once more at its end, and from complaining."""
        self.flush()
        if self.failure is not None:
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def outliving_reader() -> Iterator[Stream]:
    """Let the block print whatever becomes of the reader, and yield its standard output.

    A closed pipe, as in `fer-jax ... | head -1`, or a full disk behind `> file` does not end the block's work. Warnings
    of libraries are one line without a source line, and those of `NEEDLESS` are not shown, after the block neither,
    unless Python was asked for others by -W or PYTHONWARNINGS.
    """
    previous = sys.stdout, sys.stderr
    streams = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = streams
    if not sys.warnoptions:
        for text in NEEDLESS:
            warnings.filterwarnings("ignore", text)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.showwarning = _show
            yield streams[0]
    finally:
        for stream in streams:
            stream.close_quietly()
        sys.stdout, sys.stderr = previous


def is_closed_pipe(error: OSError) -> bool:
    """Return True if the error says that the reader of a pipe has gone."""
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL)


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {one_line(str(message))}", file=sys.stderr)
