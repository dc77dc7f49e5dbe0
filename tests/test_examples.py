"""What a run trains on: pictures, their targets, and what teachers say of them."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from fer_jax.experiment import build
from ml_collections import ConfigDict
from scipy.special import softmax

from configs import sample
from fer_jax import examples
from fer_jax.core import config as config_lib
from fer_jax.core.cli import UserError
from fer_jax.data import augment, folders, labels
from fer_jax.inference import weights
from fer_jax.inference.weights import Weights
from fer_jax.models import registry

HISTORY = [{"epoch": 1, "step": 4, "valid": {"accuracy": 0.5}}]


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual network, small enough to compile in a moment."""
    monkeypatch.setitem(registry.MODELS, "small", partial(registry.ResNet, widths=(4, 8), blocks=(0, 0)))


@pytest.fixture
def config(sample_dir: Path) -> ConfigDict:
    config = sample.get_config()
    config.data.dir = str(sample_dir)
    config.model.name = "small"
    return config


def teacher(run: Path, config: ConfigDict, seed: int) -> Any:
    """A released network's folder, its variables with values of their own everywhere; these."""
    rng = np.random.default_rng(seed)
    variables = registry.init(build(config).model, seed, 48)
    variables = jax.tree.map(lambda leaf: leaf + rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), variables)
    with config_lib.claim(run, config):
        weights.save(run, Weights(variables, "best", 4, seed, HISTORY))
    return variables


def said_by_hand(config: ConfigDict, variables: Any, images: np.ndarray) -> np.ndarray:
    pictures = augment.render(images, augment.identity(len(images), 48), size=48, normalize=config.image.normalize)
    logits = jax.jit(partial(build(config).model.apply, train=False))(variables, pictures)
    return softmax(np.asarray(logits, np.float64), axis=1)


def test_teachers_take_their_share_of_the_softened_targets(config: ConfigDict, tmp_path: Path) -> None:
    config.data.update(temperature=0.7, smoothing=0.1)
    plain = examples.training(config)
    networks = [teacher(tmp_path / f"{seed}", config, seed) for seed in (1, 2)]
    config.data.update(teachers=tuple(str(tmp_path / f"{seed}") for seed in (1, 2)), teacher_share=0.3)
    kept, lines = tmp_path / "taught.npz", []
    taught = examples.teach(examples.training(config), config.data, kept, False, lines.append)
    assert lines == [f"asking 2 teacher(s) about {len(plain.images):,} pictures, once for this run"]

    said = np.mean(
        [
            said_by_hand(config, network, view)
            for network in networks
            for view in (plain.images, np.flip(plain.images, axis=2))
        ],
        axis=0,
    )
    votes, keep = labels.targets(folders.load(config.data.dir, "train").votes, config.data.label_mode)
    own = votes[keep].astype(np.float64) ** (1 / 0.7)
    own = 0.9 * own / own.sum(axis=1, keepdims=True) + 0.1 / 8
    np.testing.assert_allclose(taught.target, 0.7 * own + 0.3 * said, atol=1e-5)
    np.testing.assert_allclose(taught.target.sum(axis=1), 1, atol=1e-6)
    assert taught.target.dtype == np.float32
    assert np.ptp(said, axis=0).max() > 0.05  # pictures in another order would show
    np.testing.assert_array_equal(taught.images, plain.images)

    # a run that goes on has the same targets, also where a teacher is gone by now
    shutil.rmtree(tmp_path / "1")
    again = examples.teach(examples.training(config), config.data, kept, True, lines.append)
    np.testing.assert_array_equal(again.target, taught.target)
    assert len(lines) == 1
    teacher(tmp_path / "1", config, 3)  # a run that begins in the same folder hears the teachers of now
    other = examples.teach(plain, config.data, kept, False, lines.append)
    assert abs(other.target - taught.target).max() > 1e-3
    assert len(lines) == 2


def test_a_run_that_goes_on_asks_no_teacher_of_now(config: ConfigDict, tmp_path: Path) -> None:
    """They may have changed since it began, and nothing else would notice."""
    teacher(tmp_path, config, 1)
    config.data.teachers = (str(tmp_path),)
    plain, kept = examples.training(config), tmp_path / "taught.npz"
    for damage in (lambda: None, lambda: kept.write_bytes(b"damaged"), lambda: np.savez(kept, said=np.zeros((3, 8)))):
        damage()
        with pytest.raises(UserError, match=r"taught\.npz is missing or damaged, which .*; bring it back, or") as error:
            examples.teach(plain, config.data, kept, True, print)
        assert "\n" not in str(error.value)


def test_a_teacher_speaks_for_a_picture_and_its_mirror_image(config: ConfigDict, tmp_path: Path) -> None:
    variables = teacher(tmp_path, config, 1)
    images = np.random.default_rng(0).integers(0, 256, (16, 48, 48), dtype=np.uint8)
    images[..., :24] //= 3  # dark on one side
    said = examples.taught((str(tmp_path),), images)
    as_is, mirrored = (said_by_hand(config, variables, view) for view in (images, images[:, :, ::-1]))
    np.testing.assert_allclose(said, (as_is + mirrored) / 2, atol=1e-5)
    assert abs(as_is - mirrored).max() > 1e-3
    np.testing.assert_allclose(said, examples.taught([str(tmp_path)], images[:, :, ::-1]), atol=1e-6)


def test_without_teachers_or_with_no_share_the_targets_are_the_votes(config: ConfigDict, tmp_path: Path) -> None:
    plain = examples.training(config)
    teacher(tmp_path, config, 1)
    config.data.update(teachers=(str(tmp_path),), teacher_share=0.0)
    taught = examples.teach(plain, config.data, tmp_path / "taught.npz", False, print)
    np.testing.assert_allclose(taught.target, plain.target, atol=1e-7)
    config.data.teachers = ()
    assert examples.teach(plain, config.data, tmp_path / "none.npz", False, print) is plain
    assert not (tmp_path / "none.npz").exists()


def test_a_missing_teacher_gets_one_line(config: ConfigDict, tmp_path: Path) -> None:
    config.data.teachers = (str(tmp_path / "nobody"),)
    with pytest.raises(UserError, match=r"no run in .*nobody: .*config\.json is missing") as error:
        examples.teach(examples.training(config), config.data, tmp_path / "taught.npz", False, print)
    assert "\n" not in str(error.value)


def test_a_run_teaches_when_it_has_come_to_its_end(whole: Path, tmp_path: Path) -> None:
    images = np.zeros((1, 48, 48), np.uint8)
    assert examples.taught([str(whole)], images).shape == (1, 8)
    begun = tmp_path / "begun"
    shutil.copytree(whole, begun)
    config = json.loads((begun / "config.json").read_text())
    config["train"]["epochs"] = 9
    (begun / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"begun has trained 3 of its 9 epochs; let it end first") as error:
        examples.taught([str(whole), str(begun)], images)
    assert "\n" not in str(error.value)
