"""The arrays of a tree by name, and the comparison of stored arrays with those of a network."""

from collections.abc import Mapping
from typing import Any

import jax


def named_leaves(tree: Any, separator: str = "/") -> dict[str, Any]:
    """Return the leaves of a tree by their paths, for example `params/Dense_0/kernel`, in the order of the tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=separator): leaf for path, leaf in leaves}


def mismatch(stored: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Describe the first array that is missing, unexpected or different; "" if all agree.

    Args:
        stored: a description of each stored array, for example "[3, 3, 1, 8]" or "F32[8]".
        expected: a description of each array of the network.
    """
    for name in sorted({**stored, **expected}):
        if name not in stored:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is not part of the network"
        if stored[name] != expected[name]:
            return f"{name} is {stored[name]}, not {expected[name]}"
    return ""
