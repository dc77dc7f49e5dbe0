"""The shipped networks: their predictions are those of their release."""

import re
from pathlib import Path

import numpy as np
import pytest

from fer_jax import inference
from fer_jax.core import config, run_folder, shipped
from fer_jax.data import folders, labels, soft_targets


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        (
            "base",
            [0.773, 0.038, 0.011, 0.111, 0.061, 0.001, 0.002, 0.004],
            [0.481, 0.225, 0.036, 0.166, 0.082, 0.001, 0.003, 0.004],
        ),
        (
            "best",
            [0.559, 0.118, 0.035, 0.156, 0.124, 0.003, 0.003, 0.002],
            [0.462, 0.282, 0.080, 0.106, 0.054, 0.005, 0.008, 0.003],
        ),
    ],
)
def test_a_shipped_network_predicts_squares_as_at_its_release(name: str, first: list[float], last: list[float]) -> None:
    """Grey squares of 8x8 pixels: no face, but a change in reading, scaling or arithmetic shows."""
    squares = np.random.default_rng(0).integers(0, 256, (6, 6, 6))
    images = np.kron(squares, np.ones((1, 8, 8), int)).astype(np.uint8)[[0, 5]]
    probabilities = np.exp(inference.log_probabilities(inference.restore(name), images))
    np.testing.assert_allclose(probabilities, [first, last], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["base", "best"])
def test_a_card_has_the_accuracy_on_the_real_images(name: str, real_dir: Path) -> None:
    split = folders.load(real_dir, "valid")
    target, keep = labels.targets(split.votes, "majority")
    log_probs = inference.log_probabilities(inference.restore(name), split.images[keep])
    correct = log_probs.argmax(axis=1) == target[keep].argmax(axis=1)
    card = (shipped.networks()[name] / "README.md").read_text()
    assert f"| images | {len(correct):,} |" in card
    assert float(re.search(r"\| accuracy \| ([\d.]+)%", card)[1]) == pytest.approx(100 * correct.mean(), abs=0.07)


def test_the_teachers_of_best_have_predicted_every_training_image(real_dir: Path) -> None:
    split = folders.load(real_dir, "train")
    options = config.load("best").data
    target, keep = labels.targets(split.votes, options.label_mode)
    (name,) = options.teachers
    stored = soft_targets.load(run_folder.find_predictions(name))
    taught = stored.find(split.digests[keep])
    assert not np.isnan(taught).any()
    np.testing.assert_allclose(taught.sum(axis=1), 1, atol=0.01)
    assert (taught.argmax(axis=1) == target[keep].argmax(axis=1)).mean() > 0.85
