"""The error that a user can put right, and foreign errors on one line."""

LINE = 200  # characters of a foreign error's text that are shown


class UserError(Exception):
    """A mistake that the user can put right; its text is one line: what, where, what to do."""


def one_line(error: BaseException | str, limit: int = LINE) -> str:
    """The text of an error on one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
