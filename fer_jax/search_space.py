"""The public names of a tuning's config file; see configs/tune.py."""

from fer_jax.search.space import Range, Search

__all__ = ["Range", "Search"]
