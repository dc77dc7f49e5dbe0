"""Train, evaluate and use networks that read emotion from faces, on FER+, with JAX.

Each public name is imported at its first use: `import fer_jax` alone loads neither jax nor pandas nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_jax.core.config import load as load_config
    from fer_jax.core.schema import default_config
    from fer_jax.data.labels import EMOTIONS
    from fer_jax.faces.draw import draw
    from fer_jax.faces.face import Face
    from fer_jax.faces.reader import Reader, load
    from fer_jax.faces.table import table

__version__ = "0.2.0"
__all__ = [
    "EMOTIONS",
    "Face",
    "Reader",
    "__version__",
    "default_config",
    "draw",
    "load",
    "load_config",
    "table",
]

_PLACES = {
    "EMOTIONS": ("fer_jax.data.labels", "EMOTIONS"),
    "Face": ("fer_jax.faces.face", "Face"),
    "Reader": ("fer_jax.faces.reader", "Reader"),
    "default_config": ("fer_jax.core.schema", "default_config"),
    "draw": ("fer_jax.faces.draw", "draw"),
    "load": ("fer_jax.faces.reader", "load"),
    "load_config": ("fer_jax.core.config", "load"),
    "table": ("fer_jax.faces.table", "table"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'fer_jax' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
