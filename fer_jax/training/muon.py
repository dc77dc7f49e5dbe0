"""Muon: steps along the orthogonalised momentum of convolution kernels (Jordan 2024).

https://kellerjordan.github.io/posts/muon/

optax has a Muon too, and the tests compare the two. This one iterates on Gram matrices and batches those of equal size,
which makes the training step faster on CPUs (docs/performance.md). Its Nesterov momentum is Jordan's, without optax's
correction for the first steps.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax

# Jordan's a x + b x^3 + c x^5: five steps take singular values of 0.01 to 1 to between 0.68 and 1.13.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
EXACT = jax.lax.Precision.HIGHEST  # otherwise GPUs round products to fewer bits: see orthogonalize


def scale_by_muon(momentum: float, nesterov: bool) -> optax.GradientTransformation:
    """Return the orthogonalised momentum of kernels f32[3, 3, C_in, C_out], each as a matrix [9 * C_in, C_out].

    Steps have a root mean square of 0.2, the usual size of Adam's (Liu et al. 2025, https://arxiv.org/abs/2502.16982).
    """

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        kernels, structure = jax.tree.flatten(updates)
        if not kernels:  # a network without convolutions
            return updates, state
        matrices = [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels]
        steps = orthogonalize(matrices, [0.2 * max(matrix.shape) ** 0.5 for matrix in matrices])
        steps = [step.reshape(kernel.shape) for step, kernel in zip(steps, kernels, strict=True)]
        return jax.tree.unflatten(structure, steps), state

    return optax.chain(
        optax.trace(decay=momentum, nesterov=nesterov),
        optax.GradientTransformation(lambda params: optax.EmptyState(), update),
    )


def orthogonalize(matrices: list[jax.Array], sizes: list[float]) -> list[jax.Array]:
    """Return each f32[n, m] with all its singular values brought near its size; zeros stay zeros.

    A Newton-Schulz step X -> a X + b (X X^T) X + c (X X^T)^2 X is P X. P is a polynomial of the Gram matrix A = X X^T
    of the shorter side, and the next Gram matrix is P A P. So five steps need small square matrices only, and X is
    multiplied once by the product of the five P. Products are exact to float32: with less precision small negative
    eigenvalues of A appear and grow.
    """
    sides = [min(matrix.shape) for matrix in matrices]
    groups = [[i for i, side in enumerate(sides) if side == length] for length in sorted(set(sides))]
    grams = [[_gram(matrices[i]) for i in group] for group in groups]

    # All Frobenius norms in one array, in the order of the groups: less to compile.
    diagonals = [gram.reshape(-1)[:: len(gram) + 1] for group in grams for gram in group]
    squares = jnp.stack([jnp.pad(row, (0, max(sides) - len(row))) for row in diagonals]).sum(axis=1) + 1e-16
    boundaries = list(itertools.accumulate(map(len, groups)))[:-1]
    shrink = jnp.split(1 / squares, boundaries)
    scale = jnp.split(jnp.asarray([sizes[i] for group in groups for i in group]) * jax.lax.rsqrt(squares), boundaries)

    initial = [
        (jnp.stack(gram) * inverse[:, None, None], factor[:, None, None] * jnp.eye(len(gram[0])))
        for gram, inverse, factor in zip(grams, shrink, scale, strict=True)
    ]
    final = jax.lax.fori_loop(0, STEPS, lambda _, pairs: [_step(*pair) for pair in pairs], initial)
    products: dict[int, jax.Array] = {}
    for group, (_, product) in zip(groups, final, strict=True):
        products |= zip(group, product, strict=True)
    return [_times(products[i], matrix) for i, matrix in enumerate(matrices)]


def _gram(matrix: jax.Array) -> jax.Array:
    """The Gram matrix of the shorter side m: f32[m, m]."""
    longer = int(matrix.shape[0] < matrix.shape[1])
    return jnp.tensordot(matrix, matrix, (longer, longer), precision=EXACT)


def _step(gram: jax.Array, product: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P A P, and P times the product so far, f32[k, m, m] each. All these matrices are symmetric and commute."""
    a, b, c = COEFFICIENTS
    polynomial = a * jnp.eye(gram.shape[-1]) + b * gram + c * jnp.matmul(gram, gram, precision=EXACT)
    return (
        jnp.matmul(jnp.matmul(polynomial, gram, precision=EXACT), polynomial, precision=EXACT),
        jnp.matmul(polynomial, product, precision=EXACT),
    )


def _times(product: jax.Array, matrix: jax.Array) -> jax.Array:
    left, right = (product, matrix) if matrix.shape[0] < matrix.shape[1] else (matrix, product)
    return jnp.matmul(left, right, precision=EXACT)
