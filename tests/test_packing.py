import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from fer_jax.training import optim
from fer_jax.training.packing import layouts, pack, unpack

TREE = {
    "first": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.array([10, 11, 12], np.float32)},
    "second": {
        "kernel": np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2),
        "scale": np.array([20], np.float32),
        "count": np.float32(30),
    },
}


def test_vectors_are_concatenated_in_the_order_of_the_tree() -> None:
    packed = pack(TREE)
    np.testing.assert_array_equal(packed.vectors, [10, 11, 12, 30, 20])
    assert packed.kernels.keys() == {"first/kernel", "second/kernel"}
    assert packed.kernels["second/kernel"] is TREE["second"]["kernel"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "tree",
    [
        TREE,
        {},
        np.float32(2),
        {"kernel": np.ones((2, 2), np.float32)},
        {"a.b": np.ones((1, 2), np.float32), "a": {"b": np.zeros((1, 2), np.float32)}},
        {f"Block_{i}": {"kernel": np.full((2, 2), i), "bias": np.full(i, i)} for i in range(12)},
    ],
)
def test_unpack_returns_the_tree(tree) -> None:
    packed = jax.tree.map(lambda leaf: leaf + 1, pack(tree))
    expected = jax.tree.map(lambda leaf: leaf + 1, tree)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(unpack)(packed), expected)
    assert jax.tree.structure(unpack(packed)) == jax.tree.structure(tree)


@pytest.mark.slow
def test_a_gradient_through_unpack_is_the_packed_gradient() -> None:
    def loss(tree) -> jax.Array:
        return sum(jnp.sum(jnp.sin(leaf) * (i + 1)) for i, leaf in enumerate(jax.tree.leaves(tree)))

    gradient = jax.jit(jax.grad(lambda packed: loss(unpack(packed))))(pack(TREE))
    jax.tree.map(np.testing.assert_allclose, gradient, pack(jax.grad(loss)(TREE)))


def test_vectors_of_several_dtypes_are_an_error() -> None:
    with pytest.raises(TypeError):
        pack({"a": jnp.zeros(2), "b": jnp.zeros(2, jnp.bfloat16)})


@pytest.mark.slow
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
@pytest.mark.parametrize("tree", [TREE, {"kernel": jnp.ones((3, 3, 1, 2))}])
def test_an_optimizer_changes_a_packed_network_equally(name, tree) -> None:
    config = base.get_config()
    config.optim.update(name=name, l2=0.1, weight_decay=0.1)
    optimizer = optim.create_optimizer(config.optim, lambda step: 0.1)
    update = jax.jit(optimizer.update)
    plain, packed = tree, pack(tree)
    states = optimizer.init(plain), optimizer.init(packed)
    for step in range(3):
        gradient = jax.tree.map(lambda leaf, step=step: jnp.cos(leaf + step), tree)
        changes, plain_state = update(gradient, states[0], plain)
        packed_changes, packed_state = update(pack(gradient), states[1], packed)
        states = plain_state, packed_state
        plain, packed = optax.apply_updates(plain, changes), optax.apply_updates(packed, packed_changes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), unpack(packed), plain)
    assert not np.allclose(jax.tree.leaves(plain)[0], jax.tree.leaves(tree)[0])


def test_layouts_list_the_paths_and_shapes_of_each_kind() -> None:
    packed, other = pack({"a": {"b": jnp.zeros(2)}, "w": jnp.zeros((2, 1))}), pack({"c": jnp.zeros(2)})
    tree = {"first": packed, "second": (packed, other), "plain": jnp.zeros(3)}
    assert layouts(tree) == [[["a/b", [2]], ["w", [2, 1]]], [["c", [2]]]]
