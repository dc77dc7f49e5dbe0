"""Trained networks and their predictions; the names here are public."""

from fer_jax.inference.network import Network, average, log_probabilities, restore

__all__ = ["Network", "average", "log_probabilities", "restore"]
