"""Numbers and names as people read them."""

from pathlib import Path


def counted(count: float, noun: str) -> str:
    """The count with its noun: 1 image, 3,199 images."""
    return f"{count:,.0f} {noun}{'' if count == 1 else 's'}"


def printable(path: Path) -> str:
    """A path on one line that any encoding can hold, whatever bytes its name has."""
    return str(path).encode(errors="surrogateescape").decode(errors="replace").replace("\n", " ")
