import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax.packing import pack, unpack

TREE = {
    "first": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.array([10.0, 11, 12])},
    "second": {"kernel": jnp.arange(12.0).reshape(1, 3, 2, 2), "scale": jnp.array([20.0]), "count": jnp.float32(30)},
}


def test_vectors_lie_end_to_end_in_the_order_of_the_tree() -> None:
    packed = pack(TREE)
    np.testing.assert_array_equal(packed.vectors, [10, 11, 12, 30, 20])
    assert packed.kernels.keys() == {"first/kernel", "second/kernel"}
    assert packed.kernels["second/kernel"] is TREE["second"]["kernel"]


@pytest.mark.parametrize(
    "tree",
    [
        TREE,
        {},
        jnp.float32(2),
        {"kernel": jnp.ones((2, 2))},
        {"a.b": jnp.ones((1, 2)), "a": {"b": jnp.zeros((1, 2))}},
        {f"Block_{i}": {"kernel": jnp.full((2, 2), i), "bias": jnp.full(i, i)} for i in range(12)},
    ],
)
def test_unpack_gives_the_tree_back(tree) -> None:
    packed = jax.tree.map(lambda leaf: leaf + 1, pack(tree))
    expected = jax.tree.map(lambda leaf: leaf + 1, tree)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(unpack)(packed), expected)
    assert jax.tree.structure(unpack(packed)) == jax.tree.structure(tree)


def test_a_gradient_through_unpack_is_the_packed_gradient() -> None:
    def loss(tree) -> jax.Array:
        return sum(jnp.sum(jnp.sin(leaf) * (i + 1)) for i, leaf in enumerate(jax.tree.leaves(tree)))

    got = jax.jit(jax.grad(lambda packed: loss(unpack(packed))))(pack(TREE))
    jax.tree.map(np.testing.assert_allclose, got, pack(jax.grad(loss)(TREE)))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_optimizer_does_the_same_to_a_packed_network(optimizer) -> None:
    update = {
        "adamw": optax.adamw(0.1, weight_decay=0.1, mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)),
        "sgd": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, momentum=0.9)),
    }[optimizer]
    params = TREE
    packed, state, packed_state = pack(params), update.init(params), update.init(pack(params))
    for step in range(3):
        gradient = jax.tree.map(lambda leaf, step=step: jnp.cos(leaf + step), params)
        changes, state = update.update(gradient, state, params)
        packed_changes, packed_state = update.update(pack(gradient), packed_state, packed)
        params, packed = optax.apply_updates(params, changes), optax.apply_updates(packed, packed_changes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), unpack(packed), params)
