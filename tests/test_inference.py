from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fer_jax.experiment import build
from flax import linen as nn
from ml_collections import ConfigDict
from scipy.special import log_softmax, softmax

from configs import sample
from fer_jax import inference
from fer_jax.core import config as config_lib
from fer_jax.core.cli import UserError
from fer_jax.data import augment
from fer_jax.inference.network import Network
from fer_jax.models import registry
from fer_jax.training import checkpoint, train_step
from fer_jax.training import metrics as metrics_lib

SIDE = 48


class Linear(nn.Module):
    """A network that can be worked out by hand: logits = all pixels x w."""

    def apply(self, variables: Any, x: jax.Array, *, train: bool) -> jax.Array:  # type: ignore[override]
        assert not train
        return x.reshape(len(x), -1) @ variables["params"]["w"]


def linear(batch_size: int = 8, renderer: str = "host") -> Network:
    """A network with a weight of its own for every pixel and class."""
    config = small_config()
    config.train.eval_batch_size = batch_size
    config.augment.renderer = renderer
    w = np.random.default_rng(1).normal(size=(SIDE * SIDE, 8)).astype(np.float32) / SIDE
    return Network(Path("run"), config, build(config)._replace(model=Linear()), {"params": {"w": w}}, 1, [])


def small_config() -> ConfigDict:
    config = sample.get_config()
    config.model.name = "small"
    return config


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual network, small enough to compile in a moment."""
    monkeypatch.setitem(registry.MODELS, "small", partial(registry.ResNet, widths=(4, 8), blocks=(0, 0)))


def photographs(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)


def by_hand(network: Network, images: np.ndarray) -> np.ndarray:
    """Log probabilities of a linear network: pixels to -1..1, times w."""
    pixels = images.reshape(len(images), -1) / 127.5 - 1
    return log_softmax(pixels @ network.variables["params"]["w"].astype(np.float64), axis=1)


@pytest.mark.parametrize("count", [1, 7, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 9, 100])
def test_every_picture_is_predicted_once_and_in_order(count: int, batch_size: int) -> None:
    network, images = linear(batch_size), photographs(count)
    got = inference.log_probabilities(network, images)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, by_hand(network, images), atol=1e-4)
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1, rtol=1e-12)


def test_pictures_rendered_on_the_device_and_mirrored_views_are_predicted_too() -> None:
    images = photographs(5)[:, :, ::-1]  # a view, as flip averaging makes
    host, device = (inference.log_probabilities(linear(4, renderer), images) for renderer in ("host", "device"))
    np.testing.assert_allclose(host, by_hand(linear(), images), atol=1e-4)
    np.testing.assert_allclose(device, host, atol=1e-4)


def saved_run(run: Path) -> list[Any]:
    """A run folder with checkpoints after steps 4 (the best) and 8; what it kept of each step."""
    config = small_config()
    config_lib.claim(run, config)
    rng = np.random.default_rng(0)
    states: list[Any] = []
    history: list[dict[str, int]] = []
    with closing(checkpoint.open_manager(run)) as manager:
        for step, accuracy in ((4, 0.5), (8, 0.4)):
            # values of their own for all: batch statistics too, and the average unlike the weights
            state = jax.tree.map(
                lambda leaf: leaf + rng.uniform(0.1, 0.3, leaf.shape).astype(leaf.dtype), build(config).init()
            )
            states.append(state)
            history = [*history, {"epoch": len(history) + 1, "step": step}]
            tree = {"state": state, "totals": metrics_lib.zeros()}
            checkpoint.save(manager, step, tree, {"history": history, "steps_per_epoch": 4}, accuracy)
    return states


def test_a_network_is_restored_from_its_run_folder_alone(tmp_path: Path) -> None:
    best, latest = saved_run(tmp_path)
    for which, step, state in (("best", 4, best), ("latest", 8, latest)):
        network = inference.restore(tmp_path, which)
        assert (network.step, network.run) == (step, tmp_path)
        assert network.config.model.name == "small"
        assert [record["epoch"] for record in network.history] == [1, 2]  # the whole run, whichever checkpoint
        jax.tree.map(np.testing.assert_array_equal, network.variables, train_step.eval_variables(state))

    images = photographs(11)
    network.config.train.eval_batch_size = 4
    pictures = augment.render(images, augment.identity(11, SIDE), size=SIDE, normalize="scale")
    variables = train_step.eval_variables(latest)
    logits = np.asarray(jax.jit(partial(network.parts.model.apply, train=False))(variables, pictures))
    got = inference.log_probabilities(network, images)
    np.testing.assert_allclose(got, log_softmax(logits.astype(np.float64), axis=1), atol=1e-4)
    assert np.abs(np.diff(got, axis=0)).max(axis=1).min() > 1e-3  # so that rows in another order would show


def test_a_network_predicts_in_float32_whatever_it_was_trained_in(tmp_path: Path) -> None:
    saved_run(tmp_path)
    images = photographs(5)
    before = inference.log_probabilities(inference.restore(tmp_path, "best"), images)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"float32"', '"bfloat16"'))
    network = inference.restore(tmp_path, "best")
    assert network.config.model.dtype == "bfloat16"
    np.testing.assert_array_equal(inference.log_probabilities(network, images), before)


def test_a_folder_without_a_run_or_checkpoint_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        inference.restore(tmp_path, "best")
    config_lib.claim(tmp_path, small_config())
    with pytest.raises(UserError, match=r"has no best checkpoint yet; it appears after the first epoch$"):
        inference.restore(tmp_path, "best")


def test_saliency_of_a_linear_network_by_hand() -> None:
    network = linear()
    images = photographs(90)
    label = np.where(np.arange(90) % 9 < 8, 1, 6)  # 80 of happiness, 10 of fear
    got = inference.saliency(network, images, label)
    assert got.count.tolist() == [0, 32, 0, 0, 0, 0, 10, 0]
    w = network.variables["params"]["w"].astype(np.float64)
    for c in range(8):
        chosen = images[label == c][:32]
        if not len(chosen):
            assert not got.maps[c].any()
            assert not got.faces[c].any()
            continue
        p = softmax(by_hand(network, chosen), axis=1)
        gradient = w[:, c] - p @ w.T  # of log p_c: w_c less the mean of all w
        np.testing.assert_allclose(got.maps[c], np.abs(gradient).mean(axis=0).reshape(SIDE, SIDE), atol=1e-5)
        np.testing.assert_allclose(got.faces[c], chosen.mean(axis=0), rtol=1e-5)


def test_saliency_is_the_slope_of_the_log_probability(tmp_path: Path) -> None:
    saved_run(tmp_path)
    network = inference.restore(tmp_path, "best")
    images, label, step = photographs(1), np.array([3]), 0.02
    saliency = inference.saliency(network, images, label).maps[3]
    rows, columns = np.unravel_index(np.argsort(-saliency, axis=None)[:2000:400], saliency.shape)
    moved = np.repeat(images / 127.5 - 1, 10, axis=0).astype(np.float32)
    moved[np.arange(10), np.tile(rows, 2), np.tile(columns, 2)] += np.repeat([step, -step], 5).astype(np.float32)
    logits = jax.jit(partial(network.parts.model.apply, train=False))(network.variables, moved[..., None])
    up, down = log_softmax(np.asarray(logits, np.float64), axis=1)[:, 3].reshape(2, 5)
    np.testing.assert_allclose(np.abs(up - down) / (2 * step), saliency[rows, columns], rtol=0.05)


def test_saliency_is_shown_at_the_size_of_the_pictures() -> None:
    network = linear()
    render = network.parts.render._replace(size=64)
    w = np.zeros((64, 64, 8), np.float32)
    w[32:, :, 2] = 1e-3  # surprise is seen in the lower half
    variables = {"params": {"w": w.reshape(-1, 8)}}
    network = network._replace(parts=network.parts._replace(render=render), variables=variables)
    got = inference.saliency(network, photographs(3), np.full(3, 2)).maps
    assert got.shape == (8, SIDE, SIDE)
    assert not got[2, :23].any()
    np.testing.assert_allclose(got[2, 25:], got[2, -1, -1], rtol=1e-5)
    assert got[2, -1, -1] > 1e-4


def test_a_device_without_enough_memory_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "predict_step", lambda *_, **__: jnp.zeros(2**50))  # what XLA says is real
    with pytest.raises(UserError, match="out of memory on the device; end other programs") as error:
        inference.log_probabilities(linear(), photographs(3))
    assert "\n" not in str(error.value)
