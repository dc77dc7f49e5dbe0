"""Trees with all their vectors concatenated into one array.

A network has many biases, scales and statistics. XLA makes several small programs for each of them in a training step,
which take longer to compile than to run.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fer_jax.training.shapes import named_leaves


@struct.dataclass
class Packed:
    """A tree in few arrays, as optimizer, average and checkpoint hold it."""

    kernels: dict[str, jax.Array]  # the arrays of two and more axes, by path
    vectors: jax.Array | None  # f32[n]: all other arrays, in the tree's order; None if there are none
    structure: Any = struct.field(pytree_node=False)  # the structure of the tree
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = struct.field(pytree_node=False)  # path and shape of each array


def pack(tree: Any) -> Packed:
    """Pack a tree; `unpack` is the inverse.

    Raises:
        TypeError: the vectors are of several dtypes.
    """
    named = named_leaves(tree)
    vectors = [jnp.ravel(leaf) for leaf in named.values() if jnp.ndim(leaf) < 2]
    return Packed(
        kernels={name: leaf for name, leaf in named.items() if jnp.ndim(leaf) >= 2},
        vectors=jax.lax.concatenate(vectors, 0) if vectors else None,
        structure=jax.tree.structure(tree),
        shapes=tuple((name, jnp.shape(leaf)) for name, leaf in named.items()),
    )


def unpack(packed: Packed) -> Any:
    """Return the packed tree; a gradient through this function is packed too."""
    small = {name: shape for name, shape in packed.shapes if name not in packed.kernels}
    leaves = dict(packed.kernels)
    if packed.vectors is not None:
        parts = jax.lax.split(packed.vectors, [math.prod(shape) for shape in small.values()])
        leaves |= {name: part.reshape(small[name]) for name, part in zip(small, parts, strict=True)}
    return jax.tree.unflatten(packed.structure, [leaves[name] for name, _ in packed.shapes])


def layouts(tree: Any) -> list[list[list[Any]]]:
    """Return the paths and shapes of the arrays of each kind of `Packed` in a tree, as JSON has them.

    A checkpoint stores them: they alone say which part of `vectors` belongs to which array.
    """
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Packed))
    kinds = dict.fromkeys(node.shapes for node in nodes if isinstance(node, Packed))
    return [[[name, list(shape)] for name, shape in kind] for kind in kinds]
