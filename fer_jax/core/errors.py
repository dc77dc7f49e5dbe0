"""The error that a user can correct, and errors of other libraries on one line."""

import errno
from pathlib import Path

LINE = 200  # characters of another library's error that are shown
LONGEST = 290  # characters of an error that a command prints
DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class UserError(Exception):
    """An error that the user can correct. The text is one line: what, where, what to do."""


class DiskError(UserError):
    """The disk is full, or fails."""


def one_line(error: BaseException | str, limit: int = LINE) -> str:
    """Return the text of an error on one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def shortened(line: str) -> str:
    """Return an error without its middle if it is longer than `LONGEST`: its end says what to do."""
    if len(line) <= LONGEST:
        return line
    half = (LONGEST - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def file_error(error: OSError, path: Path | None = None) -> str:
    """Return the text of an OSError: the file and the reason, and what to do if the disk or a permission is in the way.

    Args:
        error: the error.
        path: the file or folder to name, if the error has no name or another one.
    """
    reason = error.strerror or one_line(error)
    name = path or error.filename
    if error.errno in DISK_FAILURES:
        place = f" to {name}" if name else ""
        remedy = "free some space or choose another disk, then run the same command again"
        return f"cannot write{place}: {reason}; no file is half-written; {remedy}"
    if name and isinstance(error, PermissionError):
        return f"{name}: {reason}; change its permissions, or name another"
    return f"{name}: {reason}" if name else one_line(error)
