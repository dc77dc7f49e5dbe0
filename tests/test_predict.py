"""The command that says what networks see in picture files."""

import csv
import os
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT
from fer_jax.experiment import build
from PIL import Image
from scipy.special import softmax

from configs import sample
from fer_jax import inference, predict
from fer_jax.core import config as config_lib
from fer_jax.core.cli import UserError
from fer_jax.data import augment
from fer_jax.data.labels import EMOTIONS
from fer_jax.inference import weights
from fer_jax.inference.weights import Weights
from fer_jax.models import registry


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual network, small enough to compile in a moment."""
    monkeypatch.setitem(registry.MODELS, "small", partial(registry.ResNet, widths=(4, 8), blocks=(0, 0)))
    monkeypatch.setenv("XLA_FLAGS", "")  # put back afterwards: the command changes it


def network(run: Path, seed: int) -> Path:
    """A released network's folder; its last layer is large, so that it is sure of what it says."""
    config = sample.get_config()
    config.model.name = "small"
    variables = registry.init(build(config).model, seed, 48)
    variables = jax.tree.map(lambda leaf: leaf * 30 if leaf.shape[-1] == 8 and leaf.ndim == 2 else leaf, variables)
    with config_lib.claim(run, config):
        weights.save(run, Weights(variables, "best", 4, seed, [{"epoch": 1, "step": 4}]))
    return run


def faces(folder: Path, count: int) -> np.ndarray:
    """ImageBlock files face0.png, ... of random blocks: u8[count, 48, 48]."""
    folder.mkdir()
    small = np.random.default_rng(0).integers(0, 256, (count, 6, 6), dtype=np.uint8)
    images = small.repeat(8, axis=1).repeat(8, axis=2)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"face{i}.png")
    return images


def by_hand(run: Path, images: np.ndarray) -> np.ndarray:
    restored = inference.restore(run, "best")
    pictures = augment.render(images, augment.identity(len(images), 48), size=48, normalize="scale")
    logits = jax.jit(partial(restored.parts.model.apply, train=False))(restored.variables, pictures)
    return softmax(np.asarray(logits, np.float64), axis=1)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
    assert predict.main() == 0


def test_several_networks_and_mirror_images_are_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, images = network(tmp_path / "one", 1), network(tmp_path / "two", 2), faces(tmp_path / "faces", 5)
    for name in ("notes.txt", "._face0.png"):  # macOS leaves the second on other systems' disks
        (tmp_path / "faces" / name).touch()
    files = tmp_path / "faces", tmp_path / "faces" / "face0.png"
    out = tmp_path / "said.csv"
    call(monkeypatch, *files, "--run", one, "--run", two, "--flip", "--csv", out, "--sheet", tmp_path / "said.png")

    expected = np.mean([by_hand(run, view) for run in (one, two) for view in (images, images[:, :, ::-1])], axis=0)
    expected = expected[[0, 1, 2, 3, 4, 0]]
    header, *rows = csv.reader(out.read_text().splitlines())
    assert header == ["file", *EMOTIONS]
    assert [Path(row[0]).name for row in rows] == [f"face{i}.png" for i in (0, 1, 2, 3, 4, 0)]
    np.testing.assert_allclose(np.array(rows)[:, 1:].astype(float), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.05  # pictures in another order would show

    said = [line.split() for line in capsys.readouterr().out.splitlines()[1:7]]
    for line, row in zip(said, expected, strict=True):
        first, second = np.argsort(-row)[:2]
        assert line[1:] == [EMOTIONS[first], f"{row[first]:.1%}", EMOTIONS[second], f"{row[second]:.1%}"]
    with Image.open(tmp_path / "said.png") as sheet:
        assert sheet.size[0] > 500


def test_a_network_of_the_repository_reads_a_face(
    tmp_path: Path, sample_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    face = min((sample_dir / "FER2013Valid").glob("*.png"))
    call(monkeypatch, face, "--run", ROOT / "pretrained" / "base")
    with Image.open(face) as picture:
        images = np.asarray(picture)[None]
    said = inference.log_probabilities(inference.restore(ROOT / "pretrained" / "base", "best"), images)
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[1:3] == [EMOTIONS[said[0].argmax()], f"{np.exp(said[0].max()):.1%}"]


def test_pictures_are_made_grey_upright_square_and_small(tmp_path: Path) -> None:
    wide = np.zeros((96, 192, 3), np.uint8)
    wide[:, 48:96], wide[:, 96:144] = (255, 0, 0), (0, 0, 255)  # the middle: red and blue halves; the rest is black
    Image.fromarray(wide).save(tmp_path / "wide.png")
    read = predict.read(tmp_path / "wide.png")
    assert (read.shape, read.dtype) == ((48, 48), np.uint8)
    # luma of pure red and blue by ITU-R 601-2: 0.299 and 0.114 of 255
    np.testing.assert_allclose(read[:, [2, 10, 37, 45]], [[76, 76, 29, 29]] * 48, atol=3)

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(wide)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(predict.read(tmp_path / "turned.png"), read)

    grey = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(predict.read(tmp_path / "grey.png"), grey)  # of the right size: as it is

    clear = np.dstack([np.zeros((48, 48, 3), np.uint8), np.full((48, 48), 255, np.uint8)])
    clear[:, 24:, 3] = 0  # black, and on the right nothing
    Image.fromarray(clear).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(predict.read(tmp_path / "clear.png")[:, [0, 23, 24, 47]], [[0, 0, 128, 128]] * 48)


def test_names_are_shown_as_they_are_as_far_as_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, image = network(tmp_path / "run", 1), faces(tmp_path / "faces", 1)[0]
    names = [b"$\\frac$.png", b"two\nlines.png", b"no utf-8 \xff.png", b"a,b.png"]
    for name in names:
        Image.fromarray(image).save(tmp_path / "faces" / os.fsdecode(name))
    out = tmp_path / "said.csv"
    call(monkeypatch, tmp_path / "faces", "--run", run, "--csv", out, "--sheet", tmp_path / "said.png")
    shown = {"$\\frac$.png", "two lines.png", "no utf-8 \ufffd.png", "a,b.png", "face0.png"}
    rows = list(csv.reader(out.read_text(encoding="utf-8").splitlines()))[1:]
    assert {Path(row[0]).name for row in rows} == shown
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(shown) + 2


def test_what_is_no_picture_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((48, 48), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("text.png", "text.png cannot be read as a picture"),
        ("cut.png", "cut.png cannot be read as a picture"),
        ("deep.png", "deep.png has more than 8 bits a pixel"),
    ):
        with pytest.raises(UserError, match=message) as error:
            predict.read(tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere.jpg"):
        with pytest.raises(UserError, match=f"no picture .*{path.name}"):
            predict.find([path])


@pytest.mark.parametrize(
    ("option", "file", "message"),
    [
        ("--sheet", "said.jpg", "name a .png file"),
        ("--csv", "none/said.csv", "in a folder that is there"),
        ("--csv", "", ""),
    ],
)
def test_where_nothing_can_be_written_is_said_before_anything_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, file: str, message
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "face.png", "--run", "none", option, tmp_path / file)
    assert message in capsys.readouterr().err
