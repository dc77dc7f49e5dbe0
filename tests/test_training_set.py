import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from fer_jax.core import schema
from fer_jax.data import digests, folders, labels, training_set


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
    split = folders.load(config.data.dir, "train")
    target, _ = labels.targets(split.votes, "argmax")
    image = split.images.copy()
    image[0, 0, 0] ^= 1
    changed = target.copy()
    changed[0, 0] += 0.25
    found = digests.of_images(split.images)
    variants = [(found, target), (digests.of_images(image), target), (found, changed), (found[::-1], target[::-1])]
    different = [training_set.digest(variant) for variant in variants]
    assert len({*different, training_set.digest(variants[0], variants[0])}) == 5
    assert training_set.digest((split.digests, target)) == different[0]


def test_a_run_recognises_its_data_not_the_images_that_it_leaves_out(
    config: ConfigDict, sample_dir: Path, tmp_path: Path
) -> None:
    config.data.dir = str(tmp_path)
    for name in ("FER2013Train", "FER2013Valid"):
        shutil.copytree(sample_dir / name, tmp_path / name)
    first = training_set.read(config)
    assert training_set.read(config).digest == first.digest

    split = folders.load(tmp_path, "train")
    _, keep = labels.targets(split.votes, "crossentropy")
    for kept, same in ((False, True), (True, False)):
        name = split.names[keep == kept][0]
        Image.fromarray(np.full((48, 48), 77, np.uint8)).save(tmp_path / "FER2013Train" / name)
        assert (training_set.read(config).digest == first.digest) == same


def test_pixel_digest_is_that_of_older_runs(config: ConfigDict) -> None:
    inputs = training_set.read(config)
    sha = hashlib.sha256()
    for split, mode in (("train", "crossentropy"), ("valid", "majority")):
        images, votes, *_ = folders.load(config.data.dir, split)
        target, keep = labels.targets(votes, mode)
        sha.update(images[keep].tobytes() + target[keep].tobytes())
    assert training_set.pixel_digest(inputs.training, inputs.valid) == sha.hexdigest()
