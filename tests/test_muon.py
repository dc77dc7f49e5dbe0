import jax
import numpy as np
import optax.contrib
import pytest

from fer_jax.training import muon

SHAPES = [(36, 32), (288, 64), (9, 64), (64, 64), (576, 64), (9, 32), (5, 5)]
orthogonalize = jax.jit(muon.orthogonalize)


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Five steps as Jordan's code has them, in float64."""
    matrix = matrix.astype(np.float64) / np.linalg.norm(matrix)
    for _ in range(5):
        square = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.7750 * square + 2.0315 * square @ square) @ matrix
    return matrix


@pytest.mark.parametrize("factor", [1e-5, 1.0, 1e4])
def test_orthogonalize_equals_the_iteration_on_whole_matrices(factor: float) -> None:
    rng = np.random.default_rng(0)
    matrices = [np.float32(factor * rng.normal(size=shape)) for shape in SHAPES]
    sizes = [1.0 + i for i in range(len(SHAPES))]
    steps = orthogonalize(matrices, sizes)
    for step, matrix, size in zip(steps, matrices, sizes, strict=True):
        np.testing.assert_allclose(step / size, newton_schulz(matrix), atol=1e-4)


def test_matrices_of_low_rank_and_of_widely_spread_singular_values() -> None:
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(size, 32)))[0] for size in (288, 32))
    spread = left * np.logspace(0, -6, 32) @ right.T  # its Gram matrix has eigenvalues below float32's precision
    deficient = left[:, :3] @ right[:, :3].T
    for matrix in (spread, deficient):
        (step,) = orthogonalize([matrix.astype(np.float32)], [1.0])
        np.testing.assert_allclose(step, newton_schulz(matrix), atol=2e-3)


def test_singular_values_end_near_one_and_singular_vectors_stay() -> None:
    matrix = np.float32(np.random.default_rng(2).normal(size=(90, 12)))
    (step,) = orthogonalize([matrix], [1.0])
    values = np.linalg.svd(step, compute_uv=False)
    assert 0.6 < values.min() < values.max() < 1.3
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    aligned = left.T @ step @ right.T
    np.testing.assert_allclose(aligned, np.diag(np.diag(aligned)), atol=1e-4)
    np.testing.assert_allclose(np.sort(np.diag(aligned)), np.sort(values), atol=1e-4)


def test_zeros_stay_zeros() -> None:
    (step,) = orthogonalize([np.zeros((90, 12), np.float32)], [1.0])
    np.testing.assert_array_equal(step, 0)


@pytest.mark.slow
@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_equal_the_orthogonalised_momentum_by_hand_and_optax(nesterov: bool) -> None:
    rng = np.random.default_rng(3)
    shapes = {"stem": (3, 3, 4, 8), "a": (3, 3, 8, 16), "b": (3, 3, 16, 16), "wide": (3, 3, 1, 16)}
    numbers = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    theirs = optax.contrib.scale_by_muon(
        ns_coeffs=(muon.COEFFICIENTS,) * muon.STEPS,  # five equal steps make a loop, which compiles faster
        beta=0.9,
        nesterov=nesterov,
        weight_dimension_numbers=dict.fromkeys(shapes, numbers),
    )
    ours = muon.scale_by_muon(0.9, nesterov)
    momentum = {name: np.zeros(shape) for name, shape in shapes.items()}
    states = ours.init(momentum), theirs.init(momentum)
    our_update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
    for _ in range(4):
        grads = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        our_steps, our_state = our_update(grads, states[0])
        their_steps, their_state = ({}, states[1]) if nesterov else their_update(grads, states[1])
        states = our_state, their_state
        for name, shape in shapes.items():
            size = 0.2 * max(shape[-1], 9 * shape[2]) ** 0.5
            momentum[name] = grads[name] + 0.9 * momentum[name]
            direction = grads[name] + 0.9 * momentum[name] if nesterov else momentum[name]
            expected = newton_schulz(direction.reshape(-1, shape[-1])).reshape(shape)
            np.testing.assert_allclose(our_steps[name] / size, expected, atol=1e-4)
            if not nesterov:  # optax corrects Nesterov's first steps
                np.testing.assert_allclose(our_steps[name] / size, their_steps[name], atol=1e-4)
