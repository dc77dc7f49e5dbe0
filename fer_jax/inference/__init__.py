"""Trained networks and their predictions. The names here are public: model cards use them.

Each is imported at its first use, so that networks in ONNX files are read without jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_jax.inference.log_probs import average
    from fer_jax.inference.network import Network, log_probabilities, restore

__all__ = ["Network", "average", "log_probabilities", "restore"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fer_jax.inference' has no attribute {name!r}")
    module = import_module("fer_jax.inference.log_probs" if name == "average" else "fer_jax.inference.network")
    return globals().setdefault(name, getattr(module, name))
