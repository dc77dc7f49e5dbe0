"""Trained networks from their run folders, and their predictions, by hand and by saved states."""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax, logsumexp

from fer_jax import inference
from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.data import augment
from fer_jax.inference import log_probs as log_probs_lib
from fer_jax.inference.network import Network
from fer_jax.training import checkpoint, setup, train_step
from fer_jax.training import metrics as metrics_lib
from fer_jax.training.checkpoint import Progress
from fer_jax.training.history import EpochRecord
from fer_jax.training.network import build_network
from tests.small_runs import tiny_config

SIDE = 48


class Linear(nn.Module):
    """A network that can be computed by hand: logits = pixels x w."""

    def apply(self, variables: Any, x: jax.Array, *, train: bool) -> jax.Array:  # type: ignore[override]
        assert not train
        return x.reshape(len(x), -1) @ variables["params"]["w"]


def linear(batch_size: int = 8, renderer: str = "host") -> Network:
    """A network with a weight of its own for every pixel and class."""
    config = tiny_config()
    config.train.eval_batch_size = batch_size
    config.augment.renderer = renderer
    parts = build_network(config)._replace(model=Linear())
    predict = jax.jit(partial(parts.model.apply, train=False))
    w = np.random.default_rng(1).normal(size=(SIDE * SIDE, 8)).astype(np.float32) / SIDE
    return Network(Path("run"), config, parts, predict, {"params": {"w": w}}, 1, [])


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)


def by_hand(network: Network, images: np.ndarray) -> np.ndarray:
    """Log probabilities of a linear network: pixels to -1..1, times w."""
    pixels = images.reshape(len(images), -1) / 127.5 - 1
    return log_softmax(pixels @ network.variables["params"]["w"].astype(np.float64), axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 7, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 9, 100])
def test_every_image_is_predicted_once_and_in_order(count: int, batch_size: int) -> None:
    network, images = linear(batch_size), noise(count)
    log_probs = inference.log_probabilities(network, images)
    assert log_probs.dtype == np.float64
    np.testing.assert_allclose(log_probs, by_hand(network, images), atol=1e-4)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-12)


def test_the_renderer_of_the_training_does_not_matter_and_mirrored_views_are_predicted_too() -> None:
    images = noise(5)[:, :, ::-1]  # a view, as flip averaging makes
    host, device = (inference.log_probabilities(linear(4, renderer), images) for renderer in ("host", "device"))
    np.testing.assert_allclose(host, by_hand(linear(), images), atol=1e-4)
    np.testing.assert_allclose(device, host, atol=1e-4)


def test_of_a_symmetric_network_one_view_is_predicted() -> None:
    network, images = linear(), noise(5)
    one, both = (inference.log_probabilities(network, images, flip) for flip in (False, True))
    assert np.abs(one - both).max() > 1e-3
    network.config.model.symmetric = True  # linear is not, which shows that the other view is left out
    np.testing.assert_array_equal(inference.log_probabilities(network, images, flip=True), one)


def test_few_sizes_are_compiled_whatever_the_number_of_images() -> None:
    sizes = []

    def traced(variables: Any, x: jax.Array) -> jax.Array:
        sizes.append(len(x))
        return network.parts.model.apply(variables, x, train=False)

    network = linear(256)
    network = network._replace(predict=jax.jit(traced))
    for count in (1, 2, 3, 5, 8, 9, 31, 33, 129, 300, 1, 7):
        np.testing.assert_allclose(
            inference.log_probabilities(network, noise(count)), by_hand(network, noise(count)), atol=1e-4
        )
    assert sizes == [2, 8, 32, 128, 256]  # on two devices, which share a batch


def test_averages_of_log_probabilities_are_those_of_scipy() -> None:
    logits = np.random.default_rng(0).normal(0, 300, (5, 8))
    log_probs = log_probs_lib.log_softmax(logits)
    np.testing.assert_allclose(log_probs, log_softmax(logits, axis=1), rtol=1e-13)
    mean = inference.average([log_probs, log_probs[::-1]])
    np.testing.assert_allclose(mean, logsumexp([log_probs, log_probs[::-1]], axis=0, b=0.5), rtol=1e-13)


def saved_run(run: Path) -> list[Any]:
    """A run folder with checkpoints after steps 4 (the best) and 8; the state of each."""
    config = tiny_config()
    run_folder.claim(run, config)
    rng = np.random.default_rng(0)
    states: list[Any] = []
    history: list[EpochRecord] = []
    with closing(checkpoint.open_manager(run)) as manager:
        for step, accuracy in ((4, 0.5), (8, 0.4)):
            # Different values everywhere: batch statistics too, and the average unlike the weights.
            state = jax.tree.map(
                lambda leaf: leaf + rng.uniform(0.1, 0.3, leaf.shape).astype(leaf.dtype),
                setup.create_train_state(config),
            )
            states.append(state)
            history = [*history, EpochRecord(len(history) + 1, step, {}, {"accuracy": accuracy}, 0.0)]
            tree = {"state": state, "totals": metrics_lib.zeros()}
            checkpoint.save(manager, step, tree, Progress(history, 4), accuracy)
    return states


@pytest.mark.slow
def test_a_network_is_restored_from_its_run_folder_alone(tmp_path: Path) -> None:
    best, latest = saved_run(tmp_path)
    for which, step, state in (("best", 4, best), ("latest", 8, latest)):
        network = inference.restore(tmp_path, which)
        assert (network.step, network.run) == (step, tmp_path)
        assert network.config.to_json() == tiny_config().to_json()
        assert [record.epoch for record in network.history] == [1, 2]  # the whole run, for both checkpoints
        jax.tree.map(np.testing.assert_array_equal, network.variables, train_step.eval_variables(state))

    images = noise(11)
    network.config.train.eval_batch_size = 4
    inputs = augment.render(images, augment.identity(11, SIDE), size=SIDE, normalize="scale")
    variables = train_step.eval_variables(latest)
    logits = np.asarray(jax.jit(partial(network.parts.model.apply, train=False))(variables, inputs))
    log_probs = inference.log_probabilities(network, images)
    np.testing.assert_allclose(
        log_probs, log_softmax(logits.astype(np.float64), axis=1), rtol=1e-6, atol=1e-4
    )  # logits reach 1e4
    assert np.abs(np.diff(log_probs, axis=0)).max(axis=1).min() > 1e-3  # rows in another order would show


@pytest.mark.slow
def test_a_network_trained_in_bfloat16_predicts_in_float32(tmp_path: Path) -> None:
    saved_run(tmp_path)
    images = noise(5)
    before = inference.log_probabilities(inference.restore(tmp_path, "best"), images)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"float32"', '"bfloat16"'))
    network = inference.restore(tmp_path, "best")
    assert network.config.model.dtype == "bfloat16"
    np.testing.assert_array_equal(inference.log_probabilities(network, images), before)


def test_a_folder_without_a_run_or_checkpoint_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        inference.restore(tmp_path, "best")
    run_folder.claim(tmp_path, tiny_config())
    with pytest.raises(UserError, match=r"has no best checkpoint yet; it appears after the first epoch$"):
        inference.restore(tmp_path, "best")


def test_a_device_with_too_little_memory_gets_one_line() -> None:
    network = linear()._replace(predict=lambda *_: jnp.zeros(2**50))  # XLA's own error
    with pytest.raises(UserError, match="out of memory on the device; end other programs") as error:
        inference.log_probabilities(network, noise(3))
    assert "\n" not in str(error.value)
