"""The command that predicts the expressions in image files, and the reading of those files."""

import csv
import os
import re
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from fer_jax import inference, predict
from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.data import augment
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import crop, inputs
from fer_jax.inference import weights
from fer_jax.inference.weights import Weights
from fer_jax.models import registry
from fer_jax.training.history import EpochRecord
from fer_jax.training.network import build_network
from tests.small_runs import tiny_config


@pytest.fixture(autouse=True)
def xla_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is restored after each test: the command changes XLA_FLAGS."""
    monkeypatch.setenv("XLA_FLAGS", "")


def network(run: Path, seed: int) -> Path:
    """A released network's folder; its last layer is large, so that its predictions are confident."""
    config = tiny_config()
    variables = registry.init(build_network(config).model, seed, 48)
    variables = jax.tree.map(lambda leaf: leaf * 30 if leaf.shape[-1] == 8 and leaf.ndim == 2 else leaf, variables)
    with run_folder.claim(run, config):
        weights.save(run, Weights(variables, "best", 4, seed, [EpochRecord(1, 4, {}, {}, 0.1)]))
    return run


def faces(folder: Path, count: int) -> np.ndarray:
    """Write face0.png, ... of random blocks, and return them: u8[count, 48, 48]."""
    folder.mkdir()
    small = np.random.default_rng(0).integers(0, 256, (count, 6, 6), dtype=np.uint8)
    images = small.repeat(8, axis=1).repeat(8, axis=2)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"face{i}.png")
    return images


def by_hand(run: Path, images: np.ndarray) -> np.ndarray:
    restored = inference.restore(run, "best")
    inputs = augment.render(images, augment.identity(len(images), 48), size=48, normalize="scale")
    logits = jax.jit(partial(restored.parts.model.apply, train=False))(restored.variables, inputs)
    return softmax(np.asarray(logits, np.float64), axis=1)


def call(*arguments: object) -> None:
    assert predict.main([*map(str, arguments)]) == 0


@pytest.mark.slow
def test_several_networks_and_mirror_images_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, images = network(tmp_path / "one", 1), network(tmp_path / "two", 2), faces(tmp_path / "faces", 5)
    for name in ("notes.txt", "._face0.png"):  # macOS writes the second on foreign disks
        (tmp_path / "faces" / name).touch()
    files = tmp_path / "faces", tmp_path / "faces" / "face0.png"
    out, sheet = tmp_path / "out.csv", tmp_path / "out.png"
    call(*files, "--run", one, "--run", two, "--flip", "--csv", out, "--sheet", sheet)

    expected = np.mean([by_hand(run, view) for run in (one, two) for view in (images, images[:, :, ::-1])], axis=0)
    expected = expected[[0, 1, 2, 3, 4, 0]]
    header, *rows = csv.reader(out.read_text().splitlines())
    assert header == [
        *("file", "time_s", "face", "track", "x", "y", "width", "height", "found", "emotion", "probability"),
        *EMOTIONS,
    ]
    assert [Path(row[0]).name for row in rows] == [f"face{i}.png" for i in (0, 1, 2, 3, 4, 0)]
    np.testing.assert_allclose(np.array(rows)[:, -8:].astype(float), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.05  # images in another order would show

    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:7]]
    for cells, row in zip(lines, expected, strict=True):
        first, second = np.argsort(-row)[:2]
        assert cells[1:] == [EMOTIONS[first], f"{row[first]:.1%}", EMOTIONS[second], f"{row[second]:.1%}"]
    with Image.open(sheet) as image:
        assert image.size[0] > 500


def test_the_default_network_reads_a_face(sample_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    face = min((sample_dir / "FER2013Valid").glob("*.png"))
    call(face)
    with Image.open(face) as image:
        images = np.asarray(image)[None]
    log_probs = inference.log_probabilities(inference.restore("best"), images)
    cells = capsys.readouterr().out.splitlines()[1].split()
    assert cells[1:3] == [EMOTIONS[log_probs[0].argmax()], f"{np.exp(log_probs[0].max()):.1%}"]


def test_images_become_grey_upright_square_and_small(tmp_path: Path) -> None:
    wide = np.zeros((96, 192, 3), np.uint8)
    wide[:, 48:96], wide[:, 96:144] = (255, 0, 0), (0, 0, 255)  # the middle: red and blue halves; the rest is black
    Image.fromarray(wide).save(tmp_path / "wide.png")
    square = crop.read(tmp_path / "wide.png")
    assert (square.shape, square.dtype) == ((48, 48), np.uint8)
    # luma of pure red and blue by ITU-R 601-2: 0.299 and 0.114 of 255
    np.testing.assert_allclose(square[:, [2, 10, 37, 45]], [[76, 76, 29, 29]] * 48, atol=3)

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(wide)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(crop.read(tmp_path / "turned.png"), square)

    grey = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(crop.read(tmp_path / "grey.png"), grey)  # of the right size: unchanged

    clear = np.dstack([np.zeros((48, 48, 3), np.uint8), np.full((48, 48), 255, np.uint8)])
    clear[:, 24:, 3] = 0  # black on the left, transparent on the right
    Image.fromarray(clear).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(crop.read(tmp_path / "clear.png")[:, [0, 23, 24, 47]], [[0, 0, 128, 128]] * 48)


def test_file_names_of_any_bytes_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, image = network(tmp_path / "run", 1), faces(tmp_path / "faces", 1)[0]
    names = [b"$\\frac$.png", b"two\nlines.png", b"no utf-8 \xff.png", b"a,b.png"]
    for name in names:
        Image.fromarray(image).save(tmp_path / "faces" / os.fsdecode(name))
    out, sheet = tmp_path / "out.csv", tmp_path / "out.png"
    call(tmp_path / "faces", "--run", run, "--csv", out, "--sheet", sheet)
    shown = {"$\\frac$.png", "two lines.png", "no utf-8 \ufffd.png", "a,b.png", "face0.png"}
    rows = list(csv.reader(out.read_text(encoding="utf-8").splitlines()))[1:]
    assert {Path(row[0]).name for row in rows} == shown
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(shown) + 2 + 2


def test_a_file_that_is_no_image_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "nothing.png").touch()
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "deep.tif")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    for name, message in (
        ("text.png", "text.png cannot be read as an image"),
        ("cut.png", "cut.png cannot be read as an image"),
        ("nothing.png", "nothing.png cannot be read as an image: it is empty"),
        ("deep.tif", "deep.tif has values from 0 to 70000, outside 0..65535"),
    ):
        with pytest.raises(UserError, match=message) as error:
            crop.read(tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "no image or film in .*empty"), ("nowhere.jpg", "nowhere.jpg does not exist")):
        assert re.search(message, inputs.find([tmp_path / name]).problems[0])
    address = "https://example.org/a.jpg"
    assert "a.jpg is a web address: download it first" in inputs.find([Path(address)]).problems[0]
    with pytest.raises(UserError, match="is a web address: download it first"):
        crop.read(address)


@pytest.mark.parametrize(
    ("option", "file", "message"),
    [
        ("--sheet", "out.jpg", "name a .png file"),
        ("--csv", "none/out.csv", "the parent folder does not exist"),
        ("--csv", "", ""),
    ],
)
def test_output_files_are_checked_before_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, file: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        call("face.png", "--run", "none", option, tmp_path / file)
    assert message in capsys.readouterr().err
