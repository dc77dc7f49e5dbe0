"""Teacher predictions in the targets of a run, computed by hand."""

import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from scipy.special import softmax

from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.data import augment, folders, labels, training_set
from fer_jax.data.batching import Examples
from fer_jax.inference import teachers, weights
from fer_jax.inference.teachers import with_soft_targets
from fer_jax.inference.weights import Weights
from fer_jax.models import registry
from fer_jax.training.history import EpochRecord
from fer_jax.training.network import build_network

HISTORY = [EpochRecord(1, 4, {"accuracy": 0.5}, {"accuracy": 0.5}, 0.1)]


def teacher(run: Path, config: ConfigDict, seed: int) -> Any:
    """Write a released network whose variables have different values everywhere, and return these."""
    rng = np.random.default_rng(seed)
    variables = registry.init(build_network(config).model, seed, 48)
    variables = jax.tree.map(lambda leaf: leaf + rng.uniform(-0.1, 0.1, leaf.shape).astype(np.float32), variables)
    with run_folder.claim(run, config):
        weights.save(run, Weights(variables, "best", 4, seed, HISTORY))
    return variables


@cache
def network_of(model: nn.Module) -> Callable[..., jax.Array]:
    """The network without dropout, compiled once for all weights."""
    return jax.jit(partial(model.apply, train=False))


def probabilities_by_hand(config: ConfigDict, variables: Any, images: np.ndarray) -> np.ndarray:
    inputs = augment.render(images, augment.identity(len(images), 48), size=48, normalize=config.image.normalize)
    logits = network_of(build_network(config).model)(variables, inputs)
    return softmax(np.asarray(logits, np.float64), axis=1)


@pytest.mark.slow
def test_targets_are_votes_and_teacher_predictions_in_their_shares(config: ConfigDict, tmp_path: Path) -> None:
    config.data.update(temperature=0.7, smoothing=0.1)
    plain = training_set.training(config)
    networks = [teacher(tmp_path / f"{seed}", config, seed) for seed in (1, 2)]
    config.data.update(teachers=tuple(str(tmp_path / f"{seed}") for seed in (1, 2)), teacher_share=0.3)
    lines: list[str] = []
    soft = with_soft_targets(training_set.training(config), config.data, tmp_path, False, lines.append)
    assert lines == [f"predicting {len(plain.images):,} images with 2 teacher(s), once for this run"]

    predictions = np.mean(
        [
            probabilities_by_hand(config, network, view)
            for network in networks
            for view in (plain.images, np.flip(plain.images, axis=2))
        ],
        axis=0,
    )
    votes, keep = labels.targets(folders.load(config.data.dir, "train").votes, config.data.label_mode)
    target = votes[keep].astype(np.float64) ** (1 / 0.7)
    target = 0.9 * target / target.sum(axis=1, keepdims=True) + 0.1 / 8
    np.testing.assert_allclose(soft.target, 0.7 * target + 0.3 * predictions, atol=3e-4)  # stored in float16
    np.testing.assert_allclose(soft.target.sum(axis=1), 1, atol=1e-6)
    assert soft.target.dtype == np.float32
    assert np.ptp(predictions, axis=0).max() > 0.05  # images in another order would show
    np.testing.assert_array_equal(soft.images, plain.images)

    # A resumed run has the same targets, even if a teacher is gone by now.
    shutil.rmtree(tmp_path / "1")
    resumed = with_soft_targets(training_set.training(config), config.data, tmp_path, True, lines.append)
    np.testing.assert_array_equal(resumed.target, soft.target)
    assert len(lines) == 1
    teacher(tmp_path / "1", config, 3)  # a new run in the same folder uses today's teachers
    other = with_soft_targets(plain, config.data, tmp_path, False, lines.append)
    assert abs(other.target - soft.target).max() > 1e-3
    assert len(lines) == 2


def test_a_resumed_run_needs_its_stored_predictions(config: ConfigDict, tmp_path: Path) -> None:
    """The teachers may have changed since the run began, and nothing else would notice."""
    teacher(tmp_path, config, 1)
    config.data.teachers = (str(tmp_path),)
    plain, path = training_set.training(config), tmp_path / "taught.npz"
    for damage in (lambda: None, lambda: path.write_bytes(b"damaged"), lambda: np.savez(path, said=np.zeros((3, 8)))):
        damage()
        with pytest.raises(UserError, match=r"taught\.npz is missing or damaged; it holds .*: restore it") as error:
            with_soft_targets(plain, config.data, tmp_path, True, print)
        assert "\n" not in str(error.value)


def test_a_file_of_predictions_teaches_as_its_networks_did(config: ConfigDict, tmp_path: Path) -> None:
    """The images are found by their pixels, in whatever order; those that the file lacks keep their votes."""
    plain, first, lines = training_set.training(config), tmp_path / "first", []
    teacher(tmp_path / "network", config, 1)
    first.mkdir()
    config.data.teachers = (str(tmp_path / "network"),)
    expected = with_soft_targets(plain, config.data, first, False, lines.append)

    config.data.teachers = (str(first / "taught.npz"),)
    rows = np.random.default_rng(0).permutation(len(plain.images))
    shuffled = Examples(plain.images[rows], plain.target[rows])
    shuffled.images[0] = 255 - shuffled.images[0]  # an image that the network has not seen
    soft = with_soft_targets(shuffled, config.data, tmp_path, False, lines.append)
    np.testing.assert_array_equal(soft.target[1:], expected.target[rows[1:]])
    np.testing.assert_array_equal(soft.target[0], shuffled.target[0])
    assert lines[1:] == [f"no teacher knows 1 of the {len(rows):,} training images; they keep their votes"]
    resumed = with_soft_targets(shuffled, config.data, tmp_path, True, lines.append)
    np.testing.assert_array_equal(resumed.target, soft.target)

    # A file and a network count as a teacher each; where the file is silent the network predicts alone.
    other = teacher(tmp_path / "other", config, 2)
    both = teachers.mean_predictions((str(first / "taught.npz"), str(tmp_path / "other")), shuffled.images, print)
    views = [probabilities_by_hand(config, other, view) for view in (shuffled.images, shuffled.images[:, :, ::-1])]
    by_network = np.mean(views, axis=0)
    by_file = np.load(first / "taught.npz")["said"][rows]
    np.testing.assert_allclose(both[1:], (by_network[1:] + by_file[1:]) / 2, atol=1e-5)
    np.testing.assert_allclose(both[0], by_network[0], atol=1e-5)


def test_a_file_without_digests_or_a_damaged_one_gets_one_line(config: ConfigDict, tmp_path: Path) -> None:
    path = tmp_path / "taught.npz"
    config.data.teachers = (str(path),)
    plain = training_set.training(config)
    with pytest.raises(UserError, match=r"no file of predictions .*taught\.npz; name the taught\.npz of a run"):
        with_soft_targets(plain, config.data, tmp_path, False, print)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"data\.teachers: .*taught\.npz is missing or damaged: name another file"):
        with_soft_targets(plain, config.data, tmp_path, False, print)
    np.savez(path, said=np.full((len(plain.images), 8), 1 / 8))
    with pytest.raises(UserError, match=r"taught\.npz is of an older version and does not say whose predictions"):
        with_soft_targets(plain, config.data, tmp_path, False, print)
    # A run that was begun with the older version goes on with it.
    soft = with_soft_targets(plain, config.data, tmp_path, True, print)
    np.testing.assert_allclose(soft.target, (plain.target + 1 / 8) / 2, atol=1e-6)


@pytest.mark.slow
def test_a_teacher_predicts_an_image_and_its_mirror_image(config: ConfigDict, tmp_path: Path) -> None:
    variables = teacher(tmp_path, config, 1)
    images = np.random.default_rng(0).integers(0, 256, (16, 48, 48), dtype=np.uint8)
    images[..., :24] //= 3  # dark on one side
    predictions = teachers.mean_predictions((str(tmp_path),), images, print)
    straight, mirrored = (probabilities_by_hand(config, variables, view) for view in (images, images[:, :, ::-1]))
    np.testing.assert_allclose(predictions, (straight + mirrored) / 2, atol=1e-5)
    assert abs(straight - mirrored).max() > 1e-3
    mirrored_first = teachers.mean_predictions([str(tmp_path)], images[:, :, ::-1], print)
    np.testing.assert_allclose(predictions, mirrored_first, atol=1e-6)


def test_without_teachers_or_with_a_share_of_zero_the_targets_are_the_votes(config: ConfigDict, tmp_path: Path) -> None:
    plain = training_set.training(config)
    teacher(tmp_path, config, 1)
    config.data.update(teachers=(str(tmp_path),), teacher_share=0.0)
    soft = with_soft_targets(plain, config.data, tmp_path, False, print)
    np.testing.assert_allclose(soft.target, plain.target, atol=1e-7)
    config.data.teachers = ()
    run = tmp_path / "run"
    run.mkdir()
    assert with_soft_targets(plain, config.data, run, False, print) is plain
    assert not (run / "taught.npz").exists()


def test_a_missing_teacher_gets_one_line(config: ConfigDict, tmp_path: Path) -> None:
    config.data.teachers = (str(tmp_path / "nobody"),)
    with pytest.raises(UserError, match=r"no run in .*nobody: .*config\.json is missing") as error:
        with_soft_targets(training_set.training(config), config.data, tmp_path, False, print)
    assert "\n" not in str(error.value)


def test_a_run_teaches(finished_run: Path) -> None:
    images = np.zeros((1, 48, 48), np.uint8)
    assert teachers.mean_predictions([str(finished_run)], images, print).shape == (1, 8)
