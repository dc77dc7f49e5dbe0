"""The Python reader of faces that are cut out already: what it takes, what it returns, what it imports."""

import csv
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import ROOT, run_python
from PIL import Image

import fer_jax
from fer_jax import inference, predict
from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.faces import reader as reader_lib
from fer_jax.faces.reader import Reader
from fer_jax.inference import weights
from fer_jax.inference.weights import Weights
from fer_jax.models import registry
from fer_jax.training.history import EpochRecord
from fer_jax.training.network import build_network
from tests.small_runs import tiny_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two released networks with confident predictions."""
    folders = []
    for seed in (1, 2):
        folder, config = tmp_path_factory.mktemp("reader") / f"net{seed}", tiny_config()
        variables = registry.init(build_network(config).model, seed, 48)
        variables = jax.tree.map(lambda leaf: leaf * 30 if leaf.shape[-1] == 8 and leaf.ndim == 2 else leaf, variables)
        with run_folder.claim(folder, config):
            weights.save(folder, Weights(variables, "best", 4, seed, [EpochRecord(1, 4, {}, {}, 0.1)]))
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def reader(runs: list[Path]) -> Reader:
    return fer_jax.load(runs[0])


def blocks(count: int, channels: int = 3, side: int = 60) -> np.ndarray:
    """Images of random blocks, u8[count, side, side, channels]."""
    small = np.random.default_rng(0).integers(0, 256, (count, 6, 6, channels), dtype=np.uint8)
    return small.repeat(side // 6, axis=1).repeat(side // 6, axis=2)


@pytest.mark.slow
def test_predictions_equal_those_of_the_command(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")  # restored afterwards: the command changes it
    files = [tmp_path / f"face{i}.png" for i in range(5)]
    for file, image in zip(files, blocks(5), strict=True):
        Image.fromarray(image).save(file)
    out = tmp_path / "out.csv"
    arguments = [*files, "--faces", "cropped", "--run", runs[0], "--run", runs[1], "--csv", out]
    assert predict.main([*map(str, arguments)]) == 0
    _, *rows = csv.reader(out.read_text().splitlines())
    probabilities = fer_jax.load(*runs).predict(files)
    assert (probabilities.shape, probabilities.dtype) == ((5, 8), np.float64)
    np.testing.assert_allclose(probabilities, np.array(rows)[:, -8:].astype(float), atol=6e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert np.ptp(probabilities, axis=0).max() > 0.05  # faces in another order would show


def test_every_form_of_the_same_faces_gives_the_same_probabilities(reader: Reader, tmp_path: Path) -> None:
    colour = blocks(3)
    images = [Image.fromarray(image) for image in colour]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    opaque = np.concatenate([colour, np.full((3, 60, 60, 1), 255, np.uint8)], axis=3)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    expected = reader.predict(colour)
    forms: list[Any] = [
        paths,
        [*map(str, paths)],
        images,
        [*colour],
        opaque,
        [*opaque],
        (paths[0], images[1], colour[2]),
    ]
    for crops in forms:
        np.testing.assert_array_equal(reader.predict(crops), expected)
    for crop in (paths[0], str(paths[0]), images[0]):
        np.testing.assert_allclose(reader.predict(crop), expected[:1], atol=1e-6)

    grey = blocks(3, channels=1)[..., 0]
    expected = reader.predict(grey)
    for crops in ([*grey], [Image.fromarray(image) for image in grey], grey[..., None].repeat(3, axis=3)):
        np.testing.assert_array_equal(reader.predict(crops), expected)


def test_faces_have_any_size_and_the_middle_square_counts(reader: Reader) -> None:
    small, wide = blocks(1, side=48)[0], np.zeros((48, 90, 3), np.uint8)
    wide[:, 21:69] = small
    alone = reader.predict([small])
    np.testing.assert_allclose(reader.predict([small, wide, blocks(1, side=120)[0]])[:2], [alone[0]] * 2, atol=1e-6)


def test_no_face_gives_no_row(reader: Reader) -> None:
    for crops in ([], np.zeros((0, 48, 48), np.uint8)):
        assert reader.predict(crops).shape == (0, 8)


def test_many_faces_are_read_in_chunks_of_few_compiled_sizes(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def traced(variables: Any, x: jax.Array) -> jax.Array:
        sizes.append(len(x))
        return network.parts.model.apply(variables, x, train=False)

    network = inference.restore(runs[0])
    reader, faces = Reader([network._replace(predict=jax.jit(traced))]), blocks(11)
    expected = reader.predict(faces)
    for count in (9, 16, 10):
        reader.predict(blocks(count))
    assert sizes == [32]
    monkeypatch.setattr(reader_lib, "CHUNK", 4)
    np.testing.assert_allclose(reader.predict(faces), expected, atol=1e-6)
    assert sizes == [32, 8]


@pytest.mark.parametrize(
    ("crops", "error", "message"),
    [
        (None, TypeError, "crops of type NoneType: give a path"),
        (7, TypeError, "crops of type int"),
        ([7], TypeError, "crop 0 is of type int"),
        (np.full((2, 48, 48), 255, np.float32), ValueError, "crop 0 has floats from 255 to 255, not 0..1"),
        ([np.zeros((48, 48), np.uint8), np.full((48, 48), np.nan)], ValueError, "crop 1 has floats from nan"),
        (np.zeros((2, 48, 48), np.int64), TypeError, "crop 0 is an array of int64: give u8, u16 or float in 0..1"),
        (np.zeros((48, 48), np.uint8), ValueError, r"is one image: give it in a list, \[image\]"),
        (np.zeros((48, 48, 3), np.uint8), ValueError, "is one image"),
        (np.zeros(48, np.uint8), ValueError, "holds no images"),
        (np.zeros((2, 48, 48, 2), np.uint8), ValueError, r"crop 0 is an array of shape \(48, 48, 2\)"),
        ([np.zeros((1, 48, 48), np.uint8)], ValueError, r"crop 0 is an array of shape \(1, 48, 48\)"),
        ([np.zeros((0, 48), np.uint8)], ValueError, r"crop 0 is an array of shape \(0, 48\)"),
        ("nowhere.png", UserError, "nowhere.png cannot be read as an image"),
        (str(ROOT / "tests"), UserError, "tests cannot be read as an image"),
        (Image.new("I", (48, 48), 65536), UserError, "crop 0 has values from 65536 to 65536, outside 0..65535"),
    ],
)
def test_wrong_input_gets_one_line(reader: Reader, crops: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        reader.predict(crops)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_network_that_does_not_exist_gets_one_line() -> None:
    with pytest.raises(UserError, match=r"no run in .*bets.*name a shipped network"):
        fer_jax.load("bets")
    with pytest.raises(ValueError, match="checkpoint='last' must be 'best' or 'latest'"):
        fer_jax.load("base", checkpoint="last")


# What the base install lacks, or only training needs.
ABSENT = (
    "filelock", "matplotlib", "onnx", "onnxruntime", "optax", "optuna", "orbax", "pandas", "sklearn", "tensorboard",
    "tensorboardX", "threadpoolctl",
)  # fmt: skip
SCRIPT = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # importing one of them raises ModuleNotFoundError
import fer_jax
reader = fer_jax.load("base")
print(json.dumps(reader.predict(sys.argv[2:]).tolist()))
"""


@pytest.mark.slow
def test_a_shipped_network_needs_the_base_install_alone(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, image in zip(files, blocks(2), strict=True):
        Image.fromarray(image).save(file)
    process = run_python("-c", SCRIPT, json.dumps(ABSENT), *map(str, files))
    assert process.returncode == 0, process.stderr
    np.testing.assert_allclose(json.loads(process.stdout), fer_jax.load("base").predict(files), atol=1e-5)


def test_names_in_a_list_are_refused() -> None:
    for names in (["base", "best"], ("base",), b"base"):
        with pytest.raises(TypeError, match="give names as separate arguments"):
            fer_jax.load(names)  # type: ignore[arg-type]
