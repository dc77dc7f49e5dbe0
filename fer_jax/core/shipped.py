"""Configs and networks that come with fer_jax, by name, in the clone and in the wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _folder(name: str) -> Path:
    """The folder inside the package (in the wheel), or else the one next to it (in a clone)."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def configs() -> dict[str, Path]:
    """Return the shipped config files by name, for example "base"."""
    return {path.stem: path for path in sorted(_folder("configs").glob("*.py"))}


def networks() -> dict[str, Path]:
    """Return the folders of the shipped networks by name, for example "best"."""
    return {path.parent.name: path.parent for path in sorted(_folder("pretrained").glob("*/weights.safetensors"))}
