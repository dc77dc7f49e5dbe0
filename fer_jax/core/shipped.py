"""Configs and networks that come with fer_jax, by name, from the clone and from the wheel alike."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _folder(name: str) -> Path:
    """A folder of the wheel, where it lies inside the package, or of the clone, where it lies next to it."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def configs() -> dict[str, Path]:
    """The shipped config files by name, for example "base"."""
    return {path.stem: path for path in sorted(_folder("configs").glob("*.py"))}


def networks() -> dict[str, Path]:
    """The folders of the shipped networks by name, for example "best"."""
    return {path.parent.name: path.parent for path in sorted(_folder("pretrained").glob("*/weights.safetensors"))}
