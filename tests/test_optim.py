from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from test_muon import newton_schulz

from configs import base, vgg13
from fer_jax.core.errors import UserError
from fer_jax.data.batching import Batch
from fer_jax.training import checks, optim, train_step
from fer_jax.training.packing import pack, unpack


def schedule_config(**fields) -> ConfigDict:
    config = base.get_config().schedule
    config.update({"warmup_epochs": 0.0, **fields})
    return config


def test_step_schedule_is_the_papers() -> None:
    config = vgg13.get_config()
    schedule = optim.create_schedule(config.optim.learning_rate, config.schedule, steps_per_epoch=10, epochs=100)
    steps = [0, 199, 200, 399, 400, 999]
    rates = 0.05 * np.array([1, 1, 0.5, 0.5, 0.1, 0.1])
    np.testing.assert_allclose([schedule(step) for step in steps], (1 - 0.9) * rates, rtol=1e-6)


def test_vgg13_takes_the_steps_of_the_papers_code() -> None:
    """In the authors' code (CNTK, unit gain) the velocity is 0.9 velocity + 0.1 gradient, the step 0.05 times it."""
    config = vgg13.get_config()
    optimizer = optim.create_optimizer(config.optim, optax.constant_schedule(config.optim.learning_rate))
    params = {"kernel": jnp.ones((3, 2))}
    state, velocity = optimizer.init(params), np.zeros((3, 2))
    rng = np.random.default_rng(0)
    for _ in range(30):
        gradient = rng.normal(size=(3, 2)).astype(np.float32)
        update, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, params)
        velocity = 0.9 * velocity + 0.1 * gradient
        np.testing.assert_allclose(update["kernel"], -0.05 * velocity, rtol=1e-4, atol=1e-7)


def test_cosine_schedule_equals_optax() -> None:
    config = schedule_config(name="cosine", final_scale=0.1)
    schedule = optim.create_schedule(0.3, config, steps_per_epoch=7, epochs=3)
    expected = optax.cosine_decay_schedule(0.3, 21, alpha=0.1)
    np.testing.assert_allclose([schedule(s) for s in range(25)], [expected(s) for s in range(25)], rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_warm_up_is_linear_and_ends_at_the_full_rate(name: str) -> None:
    config = schedule_config(name=name)
    config.warmup_epochs = 2.0
    schedule = optim.create_schedule(0.4, config, steps_per_epoch=5, epochs=10)
    np.testing.assert_allclose([schedule(step) for step in range(10)], 0.04 * np.arange(1, 11), rtol=1e-6)
    assert schedule(49) == pytest.approx(0.4 if name == "constant" else 0, abs=2e-3)


def updates(params, grads, count: int = 3, **fields):
    """The parameters after `count` steps at a rate of 0.01, with the same gradient in each."""
    config = base.get_config().optim
    config.update({"momentum": 0.9, "weight_decay": 0.0, "clip_norm": 0.0, **fields})
    optimizer = optim.create_optimizer(config, optax.constant_schedule(0.01))
    state = optimizer.init(params)
    for _ in range(count):
        change, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, change)
    return params


PARAMS = {"kernel": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "bias": jnp.array([1.0, 1.0])}
GRADS = {"kernel": jnp.array([[0.1, 0.2], [-0.3, 0.4]]), "bias": jnp.array([0.5, -0.5])}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        ({"name": "adam"}, optax.adam(0.01)),
        ({"name": "sgd", "nesterov": True}, optax.sgd(0.01, momentum=0.9, nesterov=True)),
        ({"name": "sgd", "nesterov": False, "momentum": 0.0}, optax.sgd(0.01)),
        (
            {"name": "adamw", "weight_decay": 0.1},
            optax.adamw(0.01, weight_decay=0.1, mask={"kernel": True, "bias": False}),
        ),
        (
            {"name": "lion", "b2": 0.99, "weight_decay": 0.1},
            optax.lion(0.01, weight_decay=0.1, mask={"kernel": True, "bias": False}),
        ),
        (
            {"name": "sgd", "clip_norm": 0.5},
            optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.01, 0.9, True)),
        ),
    ],
)
def test_optimizers_equal_those_of_optax(fields, reference) -> None:
    expected, state = PARAMS, reference.init(PARAMS)
    for _ in range(3):
        change, state = reference.update(GRADS, state, expected)
        expected = optax.apply_updates(expected, change)
    actual = updates(PARAMS, GRADS, **fields)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), actual, expected)


def test_lion_by_hand() -> None:
    optimizer = optim.create_optimizer(
        ConfigDict(
            {"name": "lion", "b1": 0.9, "b2": 0.99, "weight_decay": 0.5, "clip_norm": 0.0, "l2": 0.0, "freeze": ()}
        ),
        optax.constant_schedule(0.01),
    )
    weights, momentum = np.array([[1.0, -2.0, 3.0]]), np.zeros((1, 3))
    state = optimizer.init(weights)
    for gradient in np.array([[[1.0, -1.0, 0.2]], [[-0.05, 0.3, -0.2]], [[0.0, 0.0, 0.0]]]):
        change, state = optimizer.update(jnp.asarray(gradient), state, weights)
        expected = -0.01 * (np.sign(0.9 * momentum + 0.1 * gradient) + 0.5 * weights)
        momentum = 0.99 * momentum + 0.01 * gradient
        np.testing.assert_allclose(change, expected, rtol=1e-5)
        weights = weights + expected


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (3, 3, 1, 12)])
def test_muon_orthogonalises_convolutions_and_uses_adam_elsewhere(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    shapes = {"conv": {"kernel": shape, "bias": shape[-1:]}, "dense": {"kernel": (4, 3), "bias": (3,)}}
    params, grads = (
        jax.tree.map(lambda size: jnp.asarray(rng.normal(size=size)), shapes, is_leaf=lambda x: isinstance(x, tuple))
        for _ in range(2)
    )
    actual = jax.jit(partial(updates, count=1, name="muon", momentum=0.95, weight_decay=0.1))(params, grads)

    flat = np.asarray(grads["conv"]["kernel"], np.float64).reshape(-1, shape[-1])
    step = newton_schulz(flat) * 0.2 * np.sqrt(max(flat.shape))  # in the first step the momentum is the scaled gradient
    assert 0.6 < np.linalg.svd(newton_schulz(flat))[1].min() < np.linalg.svd(newton_schulz(flat))[1].max() < 1.3
    expected = params["conv"]["kernel"] - 0.01 * (step.reshape(shape) + 0.1 * params["conv"]["kernel"])
    np.testing.assert_allclose(actual["conv"]["kernel"], expected, rtol=1e-4, atol=1e-6)

    for layer, name, decay in (("conv", "bias", 0.0), ("dense", "kernel", 0.1), ("dense", "bias", 0.0)):
        leaf, gradient = params[layer][name], grads[layer][name]
        adam = optax.nadam(0.01)  # with Nesterov momentum, like Muon's
        change, _ = adam.update(gradient, adam.init(leaf))
        np.testing.assert_allclose(actual[layer][name], leaf + change - 0.01 * decay * leaf, rtol=1e-5)


def test_muon_steps_do_not_depend_on_the_size_of_the_gradient() -> None:
    params = {"kernel": jnp.zeros((3, 3, 4, 8))}
    grads = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 8)))}
    muon = jax.jit(partial(updates, count=2, name="muon"))
    small, large = (muon(params, {"kernel": factor * grads["kernel"]})["kernel"] for factor in (1e-2, 1e2))
    np.testing.assert_allclose(small, large, rtol=1e-3, atol=1e-6)
    assert float(jnp.vdot(small, grads["kernel"])) < 0
    assert float(jnp.sqrt(jnp.mean(small**2))) == pytest.approx(2 * 0.01 * 0.2, rel=0.25)  # two steps at 0.01
    np.testing.assert_array_equal(muon(grads, params)["kernel"], grads["kernel"])  # no gradient, no step


def test_muon_of_a_network_without_convolutions_is_adam() -> None:
    actual, expected = (updates(PARAMS, GRADS, name=name, nesterov=False) for name in ("muon", "adam"))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_l2_is_added_to_the_gradient_of_kernels() -> None:
    # SGD by hand: w - rate * (g + l2 * w).
    params = updates(PARAMS, GRADS, count=1, name="sgd", momentum=0.0, nesterov=False, l2=0.1)
    np.testing.assert_allclose(params["kernel"], PARAMS["kernel"] - 0.01 * (GRADS["kernel"] + 0.1 * PARAMS["kernel"]))
    np.testing.assert_allclose(params["bias"], PARAMS["bias"] - 0.01 * GRADS["bias"])
    # Adam divides by the size of the gradient, so L2 with a gradient of zero moves the weight at the full rate.
    zero = jax.tree.map(jnp.zeros_like, GRADS)
    coupled = updates(PARAMS, zero, count=1, name="adam", l2=1e-3)
    np.testing.assert_allclose(coupled["kernel"], PARAMS["kernel"] - 0.01 * jnp.sign(PARAMS["kernel"]), rtol=1e-3)
    decoupled = updates(PARAMS, zero, count=1, name="adamw", weight_decay=1e-3)
    np.testing.assert_allclose(decoupled["kernel"], PARAMS["kernel"] * (1 - 1e-5), rtol=1e-6)


def averaged(steps: int, steps_per_epoch: int, epochs: int, **fields) -> tuple[np.ndarray, np.ndarray]:
    """The weights and their average after each training step: f64[steps] each."""
    config = base.get_config().optim
    config.update({"ema_decay": 0.0, "swa_epochs": 0, **fields})
    decay = optim.create_decay(config, steps_per_epoch, epochs)
    weights = np.random.default_rng(0).normal(size=steps + 1).cumsum()  # the first are before any step
    optimizer = optax.sgd(1.0)
    model = SimpleNamespace(apply=lambda variables, image, **_: (variables["params"] * jnp.ones((len(image), 8)), {}))
    step = jax.jit(
        partial(
            train_step.train_step,
            model=model,
            optimizer=optimizer,
            loss=lambda logits, target: logits[:, 0] * target[:, 0],  # its gradient is the target
            key=jax.random.key(0),
            render=lambda image, params: image,
            decay=decay,
        )
    )
    state = train_step.create_state({"params": jnp.float32(weights[0]), "batch_stats": {}}, optimizer, averaged=True)
    latest, average = [], []
    for change in -np.diff(weights):
        target = np.full((1, 8), change, np.float32)
        batch = Batch(np.zeros((1, 4, 4, 1), np.float32), target, np.ones(1, np.float32), None)
        state, _ = step(state, batch)
        latest.append(float(state.params.vectors[0]))
        average.append(float(train_step.eval_variables(state)["params"]))
    np.testing.assert_allclose(latest, weights[1:], rtol=1e-4, atol=1e-5)
    return np.array(latest), np.array(average)


@pytest.mark.parametrize("swa_epochs", [1, 2, 4])
def test_swa_is_the_mean_over_the_last_epochs_and_earlier_the_latest_weights(swa_epochs: int) -> None:
    latest, average = averaged(20, steps_per_epoch=5, epochs=4, swa_epochs=swa_epochs)
    start = 20 - 5 * swa_epochs
    np.testing.assert_allclose(average[:start], latest[:start], rtol=1e-6)
    for end in range(start + 1, 21):
        assert average[end - 1] == pytest.approx(latest[start:end].mean(), rel=1e-4, abs=1e-5)


def test_moving_average_equals_a_slow_loop() -> None:
    latest, average = averaged(20, steps_per_epoch=5, epochs=4, ema_decay=0.6)
    expected = np.random.default_rng(0).normal()  # the weights before the first step
    for step in range(20):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * latest[step]
        assert average[step] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_no_average_is_kept_without_swa_and_moving_average() -> None:
    config = base.get_config().optim
    config.update(ema_decay=0.0, swa_epochs=0)
    assert optim.create_decay(config, 5, 4) is None


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"optim.name": "adagrad"}, r"optim\.name='adagrad' is unknown: .*adam, adamw, sgd, lion, muon"),
        ({"schedule.name": "linear"}, r"schedule\.name='linear' is unknown: .*constant, step, cosine"),
        ({"schedule.boundaries": (1, 2), "schedule.scales": (0.1,)}, "schedule.boundaries .*schedule.scales"),
        ({"schedule.boundaries": (2, 1), "schedule.scales": (0.1, 0.01)}, r"schedule\.boundaries=\(2, 1\) .*ascending"),
    ],
)
def test_the_checks_refuse_unknown_names_and_wrong_boundaries(fields: dict[str, Any], problem: str) -> None:
    config = base.get_config()
    checks.check(config)
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=problem):
        checks.check(config)


def test_a_new_schedule_is_a_function_and_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optim.SCHEDULES, "linear", lambda config, epoch, epochs: 1 - epoch / epochs)
    schedule = optim.create_schedule(0.4, schedule_config(name="linear"), steps_per_epoch=5, epochs=2)
    np.testing.assert_allclose([schedule(step) for step in range(11)], 0.04 * np.arange(10, -1, -1), atol=1e-7)


def packed() -> Any:
    layers = {"first": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "last": {"kernel": jnp.ones((2, 2))}}
    return pack(layers)


@pytest.mark.slow
def test_frozen_layers_keep_their_weights_and_do_not_count_in_clipping() -> None:
    config = base.get_config().optim
    config.update(name="sgd", learning_rate=1.0, momentum=0.0, nesterov=False, weight_decay=0.5, clip_norm=2.0)
    config.freeze = ("first",)
    optimizer = optim.create_optimizer(config, optax.constant_schedule(config.learning_rate))
    params = packed()
    updates, _ = optimizer.update(jax.tree.map(lambda leaf: 100 * leaf, params), optimizer.init(params), params)
    new = unpack(optax.apply_updates(params, updates))
    np.testing.assert_array_equal(new["first"]["kernel"], 1)
    np.testing.assert_array_equal(new["first"]["bias"], 1)
    # The gradient is clipped from a norm of 200 to 2, 1 for each of the four weights; the decay adds 0.5.
    np.testing.assert_allclose(new["last"]["kernel"], 1 - (1 + 0.5))


def test_a_layer_that_is_not_there_cannot_be_frozen() -> None:
    config = base.get_config().optim
    config.freeze = ("first", "middle")
    optimizer = optim.create_optimizer(config, optax.constant_schedule(1.0))
    with pytest.raises(UserError, match=r"optim\.freeze: the network has no layer 'middle'; it has first, last"):
        optimizer.init(packed())
