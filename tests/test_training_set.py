from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from fer_jax.core import schema
from fer_jax.data import folders, labels, training_set


@pytest.fixture
def config(sample_dir: Path) -> ConfigDict:
    config = schema.default_config()
    config.data.dir = str(sample_dir)
    config.data.label_mode = "crossentropy"
    return config


def test_targets_are_the_softened_targets_of_the_label_mode(config: ConfigDict) -> None:
    split = folders.load(config.data.dir, "train")
    target, keep = labels.targets(split.votes, "crossentropy")
    examples = training_set.training(config)
    np.testing.assert_array_equal(examples.images, split.images[keep])
    np.testing.assert_array_equal(examples.target, target[keep])

    config.data.update(temperature=0.7, smoothing=0.1)
    powers = target[keep].astype(np.float64) ** (1 / 0.7)
    expected = 0.9 * powers / powers.sum(axis=1, keepdims=True) + 0.1 / 8
    np.testing.assert_allclose(training_set.training(config).target, expected, atol=1e-6)


def test_drop_repeats_drops_the_duplicates_of_validation_and_test(config: ConfigDict) -> None:
    config.data.drop_repeats = True
    train, *others = (folders.load(config.data.dir, split) for split in ("train", "valid", "test"))
    other_images = {image.tobytes() for other in others for image in other.images}
    is_duplicate = np.array([image.tobytes() in other_images for image in train.images])
    target, keep = labels.targets(train.votes, "crossentropy")
    assert (is_duplicate & keep).any()

    examples = training_set.training(config)
    rows = {image.tobytes(): row for row, image in enumerate(train.images)}
    kept = np.array([rows[image.tobytes()] for image in examples.images])
    assert not is_duplicate[kept].any()
    assert 0.5 * keep.sum() < len(kept) <= (keep & ~is_duplicate).sum()  # near-duplicates are dropped too
    np.testing.assert_array_equal(examples.target, target[kept])


def test_a_fraction_is_a_random_part_that_lies_in_a_larger_one(config: ConfigDict) -> None:
    everything = training_set.training(config)
    rows = {image.tobytes(): row for row, image in enumerate(everything.images)}

    def drawn(fraction: float, seed: int) -> np.ndarray:
        config.data.fraction, config.seed = fraction, seed
        examples = training_set.training(config)
        part = np.array([rows[image.tobytes()] for image in examples.images])
        np.testing.assert_array_equal(examples.target, everything.target[part])
        return part

    half, quarter = drawn(0.5, 0), drawn(0.25, 0)
    assert len(half) == round(0.5 * len(everything.images))
    assert len(quarter) == round(0.25 * len(everything.images))
    assert {*quarter} < {*half}
    assert {*half} != {*drawn(0.5, 1)}
    np.testing.assert_array_equal(drawn(0.5, 0), half)
    assert 0.4 < np.mean(half < len(everything.images) / 2) < 0.6  # from the whole set
    assert len(drawn(1.0, 3)) == len(everything.images)


def test_digest_depends_on_images_targets_and_their_order(config: ConfigDict) -> None:
    examples = training_set.training(config)
    image, target = examples.images.copy(), examples.target.copy()
    image[0, 0, 0] ^= 1
    target[0, 0] += 0.25
    reversed_examples = examples._replace(images=examples.images[::-1], target=examples.target[::-1])
    variants = [examples, examples._replace(images=image), examples._replace(target=target), reversed_examples]
    digests = [training_set.digest(variant) for variant in variants]
    assert len({*digests, training_set.digest(examples, examples)}) == 5
    assert training_set.digest(training_set.training(config)) == digests[0]
