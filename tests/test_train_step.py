from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy.special import log_softmax, softmax

from fer_jax.data import augment, batching
from fer_jax.data.batching import Batch
from fer_jax.models import registry
from fer_jax.models.resnet import ResNet
from fer_jax.training import losses, metrics, train_step

RENDER = partial(augment.render_device, size=48, normalize="scale")
SGD = optax.sgd(0.1)


class Linear:
    """A network that is small enough to differentiate by hand: logits = mean pixel x w + b."""

    def apply(self, variables, x, train, mutable=(), rngs=None):
        logits = x.mean((1, 2)) @ variables["params"]["w"] + variables["params"]["b"]
        return (logits, {}) if mutable else logits


LINEAR = {"params": {"w": jnp.linspace(-1, 1, 8)[None], "b": jnp.zeros(8)}, "batch_stats": {}}


def batch_of(n: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, (n, 4, 4, 1)).astype(np.float32)
    return Batch(image, rng.dirichlet(np.ones(8), n).astype(np.float32), np.ones(n, np.float32), None)


@cache
def step_of(model=None, optimizer=SGD, loss="cross_entropy", decay=None):
    """A compiled step, as training has it; the tests share the one of the linear network."""
    return jax.jit(
        partial(
            train_step.train_step,
            model=model or Linear(),
            optimizer=optimizer,
            loss=losses.LOSSES[loss],
            key=jax.random.key(0),
            render=RENDER,
            decay=decay,
        )
    )


def latest(state: train_step.TrainState):
    return train_step.eval_variables(state._replace(average=None))["params"]


def test_one_step_by_hand() -> None:
    """The step is w - rate x the mean gradient of the cross entropy, and nothing else."""
    batch = batch_of(6)
    state, counted = step_of()(train_step.create_state(LINEAR, SGD, averaged=False), batch)

    x = batch.image.mean((1, 2, 3))
    logits = x[:, None] * np.linspace(-1, 1, 8)
    error = (softmax(logits, axis=1) - batch.target) / 6  # the gradient of the mean loss with respect to the logits
    np.testing.assert_allclose(latest(state)["b"], -0.1 * error.sum(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(latest(state)["w"][0], np.linspace(-1, 1, 8) - 0.1 * x @ error, rtol=1e-5)
    assert int(state.step) == 1

    loss = -(batch.target * log_softmax(logits, axis=1)).sum()
    assert float(counted.loss) == pytest.approx(loss, rel=1e-5)
    assert int(counted.examples) == 6
    norm = np.sqrt((error.sum(0) ** 2).sum() + ((x @ error) ** 2).sum())
    assert float(counted.grad_norm) == pytest.approx(norm, rel=1e-5)
    assert int(counted.bad_step) == metrics.NEVER


@pytest.mark.slow
def test_golden_step_of_the_real_network() -> None:
    """Three steps of resnet_tiny on fixed images, as first recorded.

    If this fails, weights, rendering, network, loss or optimizer have changed, and runs before and after the change
    cannot be compared. If the change is intended, record the new values and say so in the commit.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 48, 48), np.uint8)
    params = augment.sample(rng, 16, "emotion_cnn", 48)
    batch = Batch(images, np.eye(8, dtype=np.float32)[np.arange(16) % 8], np.ones(16, np.float32), params)
    model = registry.create_model("resnet_tiny", 0.0, "float32")
    optimizer = optax.adam(1e-3)
    state = train_step.create_state(registry.init(model, 0, 48), optimizer, averaged=False)
    step = step_of(model, optimizer)
    mean_losses = []
    for _ in range(3):
        state, counted = step(state, batch)
        mean_losses.append(float(counted.loss) / 16)
    np.testing.assert_allclose(mean_losses, GOLDEN_LOSSES, rtol=5e-3)


GOLDEN_LOSSES = [2.928, 1.901, 1.247]


@pytest.mark.slow
def test_padded_rows_change_nothing() -> None:
    batch = batch_of(6)
    padded_batch = Batch(
        np.concatenate([batch.image, np.full((2, 4, 4, 1), 9, np.float32)]),
        np.concatenate([batch.target, np.zeros((2, 8), np.float32)]),
        np.array([1] * 6 + [0] * 2, np.float32),
        None,
    )
    plain = step_of()(train_step.create_state(LINEAR, SGD, averaged=False), batch)
    padded = step_of()(train_step.create_state(LINEAR, SGD, averaged=False), padded_batch)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), plain, padded)


@pytest.mark.slow
def test_step_renders_raw_images() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 48, 48), np.uint8)
    params = augment.sample(rng, 4, "ferplus", 48)
    raw = batch_of(4)._replace(image=images, params=params)
    rendered = raw._replace(image=np.asarray(RENDER(images, params)), params=None)
    state = train_step.create_state(LINEAR, SGD, averaged=False)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), step_of()(state, raw), step_of()(state, rendered))
    assert not np.allclose(rendered.image, raw.image[..., None] / 127.5 - 1)


@pytest.mark.parametrize("devices", [1, 2])
def test_mixed_batches_equal_a_slow_loop_on_any_number_of_devices(devices: int) -> None:
    batch = batch_of(6)._replace(mixing_weight=np.array([1, 0.9, 0.25, 0.5, 0, 0.125], np.float32))
    image, target = np.empty((6, 4, 4, 1), np.float32), np.empty((6, 8), np.float32)
    for row, weight in enumerate(batch.mixing_weight):
        image[row] = weight * batch.image[row] + (1 - weight) * batch.image[5 - row]
        target[row] = weight * batch.target[row] + (1 - weight) * batch.target[5 - row]
    state = train_step.create_state(LINEAR, SGD, averaged=False)
    expected = step_of()(state, batch._replace(image=image, target=target, mixing_weight=None))
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    mixed = step_of()(state, split)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), mixed, expected)


@pytest.mark.parametrize("devices", [1, 2])
def test_cut_batches_equal_a_slow_loop_on_any_number_of_devices(devices: int) -> None:
    boxes = [[0, 0, 4, 4], [0, 0, 0, 0], [1, 2, 4, 3], [0, 1, 1, 4], [2, 2, 2, 4], [3, 0, 4, 2]]
    batch = batch_of(6)._replace(
        box=np.array(boxes, np.int32), mixing_weight=np.array([0, 16, 13, 13, 16, 14], np.float32) / 16
    )
    image, target = batch.image.copy(), np.zeros((6, 8), np.float32)
    for row, (left, top, right, bottom) in enumerate(boxes):
        for y in range(4):
            for x in range(4):
                cut = left <= x < right and top <= y < bottom
                if cut:
                    image[row, y, x] = batch.image[5 - row, y, x]
                target[row] += batch.target[5 - row if cut else row] / 16  # each pixel counts for its image
    state = train_step.create_state(LINEAR, SGD, averaged=False)
    expected = step_of()(state, batch._replace(image=image, target=target, mixing_weight=None, box=None))
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), step_of()(state, split), expected)


@pytest.mark.slow
def test_cutmix_cuts_the_rendered_images() -> None:
    rng = np.random.default_rng(0)
    images, params = rng.integers(0, 256, (4, 48, 48), np.uint8), augment.sample(rng, 4, "ferplus", 48)
    box, weight = batching.cut_boxes(rng, 4, 48, 1.0)
    raw = batch_of(4)._replace(image=images, params=params, mixing_weight=weight, box=box)
    rendered = raw._replace(image=np.asarray(RENDER(images, params)), params=None)
    state = train_step.create_state(LINEAR, SGD, averaged=False)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), step_of()(state, raw), step_of()(state, rendered))


def test_average_follows_the_weights() -> None:
    state = train_step.create_state(LINEAR, SGD, averaged=True)
    average = np.zeros(8)
    averaging = step_of(decay=lambda step: jnp.minimum(0.9, (1 + step) / (10 + step)))
    for step in range(12):
        state, _ = averaging(state, batch_of(6, seed=step))
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * np.asarray(latest(state)["b"])
    np.testing.assert_allclose(train_step.eval_variables(state)["params"]["b"], average, rtol=1e-4)
    without = train_step.create_state(LINEAR, SGD, averaged=False)
    jax.tree.map(np.testing.assert_array_equal, train_step.eval_variables(without), LINEAR)


def test_the_first_step_of_a_non_finite_loss_is_recorded() -> None:
    state = train_step.create_state(LINEAR, SGD, averaged=False)
    state, first = step_of()(state, batch_of(4))
    bad = batch_of(4)
    bad.image[2] = np.nan
    state, second = step_of()(state, bad)
    state, third = step_of()(state, batch_of(4))  # by now the weights are nan
    total = metrics.merge(metrics.merge(first, second), third)
    assert int(total.bad_step) == 1


@pytest.mark.slow
def test_dropout_depends_on_the_step_alone() -> None:
    model = ResNet(widths=(4,), blocks=(0,), dropout=0.5)
    state = train_step.create_state(registry.init(model, 0, 4), SGD, averaged=False)
    step = step_of(model)
    first, second = step(state, batch_of(8))[1], step(state, batch_of(8))[1]
    other = step(state._replace(step=jnp.int32(1)), batch_of(8))[1]
    assert float(first.loss) == float(second.loss)
    assert float(first.loss) != float(other.loss)


def test_eval_step_has_no_dropout_and_counts_no_padded_rows() -> None:
    model = ResNet(widths=(4,), blocks=(0,), dropout=0.5)
    variables = registry.init(model, 0, 4)
    batch = batch_of(6)._replace(mask=np.array([1, 1, 1, 1, 0, 0], np.float32))
    evaluate = jax.jit(partial(train_step.eval_step, model=model, loss=losses.cross_entropy, render=RENDER))
    counted = evaluate(variables, batch)
    logits = np.asarray(jax.jit(partial(model.apply, train=False))(variables, batch.image))
    expected = -(batch.target * log_softmax(logits, axis=1)).sum(1)[:4].sum()
    assert float(counted.loss) == pytest.approx(expected, rel=1e-5)
    assert int(counted.examples) == 4
    assert int(counted.confusion.sum()) == 4
