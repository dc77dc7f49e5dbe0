"""The networks that are shipped, from their files: they say what they said when they were released."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from fer_jax import inference
from fer_jax.data import folders, labels


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("base", [0.580, 0.005, 0.001, 0.276, 0.137, 0, 0, 0], [0.447, 0.410, 0.005, 0.048, 0.090, 0, 0.001, 0]),
        ("best", [0.135, 0.076, 0.003, 0.764, 0.021, 0, 0, 0], [0.112, 0.181, 0.012, 0.632, 0.062, 0.001, 0.001, 0]),
    ],
)
def test_a_shipped_network_says_of_squares_what_it_said(name: str, first: list[float], last: list[float]) -> None:
    """Grey squares of 8x8 pixels: no face, but whatever is read, scaled or multiplied in another way shows."""
    squares = np.random.default_rng(0).integers(0, 256, (6, 6, 6))
    images = np.kron(squares, np.ones((1, 8, 8), int)).astype(np.uint8)[[0, 5]]
    network = inference.restore(ROOT / "pretrained" / name, "latest")
    said = np.exp(inference.log_probabilities(network, images))
    np.testing.assert_allclose(said, [first, last], rtol=0, atol=2e-3)


def test_the_card_of_base_has_its_accuracy_on_the_real_pictures(real_dir: Path) -> None:
    split = folders.load(real_dir, "valid")
    target, kept = labels.targets(split.votes, "majority")
    network = inference.restore(ROOT / "pretrained" / "base", "latest")
    right = inference.log_probabilities(network, split.images[kept]).argmax(axis=1) == target[kept].argmax(axis=1)
    card = (ROOT / "pretrained" / "base" / "README.md").read_text()
    assert f"| pictures | {len(right):,} |" in card
    assert float(re.search(r"\| accuracy \| ([\d.]+)%", card)[1]) == pytest.approx(100 * right.mean(), abs=0.07)
