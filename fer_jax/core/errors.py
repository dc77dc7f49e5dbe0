"""The error that a user can correct, and errors of other libraries on one line."""

LINE = 200  # characters of another library's error that are shown
LONGEST = 290  # characters of an error that a command prints


class UserError(Exception):
    """A mistake that the user can correct. The text is one line: what, where, what to do."""


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
