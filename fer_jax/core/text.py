"""Numbers and file names in texts."""

from pathlib import Path


def counted(count: float, noun: str) -> str:
    """Return the count with its noun: 1 image, 3,199 images."""
    return f"{count:,.0f} {noun}{'' if count == 1 else 's'}"


def is_web_address(path: Path) -> bool:
    """Return True for a path that is the address of a web page or file: a Path holds one slash after the colon."""
    return str(path).lower().startswith(("http:/", "https:/", "http:\\", "https:\\"))


def printable(path: Path) -> str:
    """Return a path as one line of text that can be encoded, whatever bytes the name has."""
    return str(path).encode(errors="surrogateescape").decode(errors="replace").replace("\n", " ")
