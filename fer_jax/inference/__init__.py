"""Trained networks and their predictions. The names here are public: model cards use them."""

from fer_jax.inference.network import Network, average, log_probabilities, restore

__all__ = ["Network", "average", "log_probabilities", "restore"]
