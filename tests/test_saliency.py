"""Saliency maps against gradients computed by hand and slopes of the log probability."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from fer_jax import inference
from fer_jax.inference.saliency import saliency
from tests.test_inference import SIDE, by_hand, linear, noise, saved_run


def test_saliency_of_a_linear_network_by_hand() -> None:
    network = linear()
    images = noise(90)
    label = np.where(np.arange(90) % 9 < 8, 1, 6)  # 80 of happiness, 10 of fear
    result = saliency(network, images, label)
    assert result.count.tolist() == [0, 32, 0, 0, 0, 0, 10, 0]
    w = network.variables["params"]["w"].astype(np.float64)
    for c in range(8):
        examples = images[label == c][:32]
        if not len(examples):
            assert not result.maps[c].any()
            assert not result.faces[c].any()
            continue
        p = softmax(by_hand(network, examples), axis=1)
        gradient = w[:, c] - p @ w.T  # of log p_c: w_c minus the mean of all w
        np.testing.assert_allclose(result.maps[c], np.abs(gradient).mean(axis=0).reshape(SIDE, SIDE), atol=1e-5)
        np.testing.assert_allclose(result.faces[c], examples.mean(axis=0), rtol=1e-5)


@pytest.mark.slow
def test_saliency_is_the_slope_of_the_log_probability(tmp_path: Path) -> None:
    saved_run(tmp_path)
    network = inference.restore(tmp_path, "best")
    images, label, step = noise(1), np.array([3]), 0.02
    gradient = saliency(network, images, label).maps[3]
    rows, columns = np.unravel_index(np.argsort(-gradient, axis=None)[:2000:400], gradient.shape)
    moved = np.repeat(images / 127.5 - 1, 10, axis=0).astype(np.float32)
    moved[np.arange(10), np.tile(rows, 2), np.tile(columns, 2)] += np.repeat([step, -step], 5).astype(np.float32)
    logits = jax.jit(partial(network.parts.model.apply, train=False))(network.variables, moved[..., None])
    up, down = log_softmax(np.asarray(logits, np.float64), axis=1)[:, 3].reshape(2, 5)
    np.testing.assert_allclose(np.abs(up - down) / (2 * step), gradient[rows, columns], rtol=0.05)


def test_saliency_has_the_size_of_the_stored_images() -> None:
    network = linear()
    render = network.parts.render._replace(size=64)
    w = np.zeros((64, 64, 8), np.float32)
    w[32:, :, 2] = 1e-3  # surprise depends on the lower half
    variables = {"params": {"w": w.reshape(-1, 8)}}
    network = network._replace(parts=network.parts._replace(render=render), variables=variables)
    maps = saliency(network, noise(3), np.full(3, 2)).maps
    assert maps.shape == (8, SIDE, SIDE)
    assert not maps[2, :23].any()
    np.testing.assert_allclose(maps[2, 25:], maps[2, -1, -1], rtol=1e-5)
    assert maps[2, -1, -1] > 1e-4
