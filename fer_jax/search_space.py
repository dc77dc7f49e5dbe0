"""The public names for the config file of a search; see configs/tune.py."""

from fer_jax.search.space import Range, Search

__all__ = ["Range", "Search"]
