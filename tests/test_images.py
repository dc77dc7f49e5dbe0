"""The reader of image files and arrays: what it takes, what becomes of it, what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer_jax.core.errors import UserError
from fer_jax.data import images

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def pixels(source: Any) -> np.ndarray:
    return np.asarray(images.read(source))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (RGB, RGB),
        (GREY.astype(np.uint16) * 257, GREY),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float32), RGB),
        (np.dstack([RGB, np.full((5, 7), 255, np.uint8)]), RGB),
        (np.dstack([RGB, np.zeros((5, 7), np.uint8)]), np.full((5, 7, 3), 128)),  # transparent
        (GREY[::-1, ::-1], GREY[::-1, ::-1]),
    ],
)
def test_arrays(array: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels(array), expected)


def test_files_of_all_modes(tmp_path: Path) -> None:
    grey, colour = Image.fromarray(GREY), Image.fromarray(RGB)
    palette = colour.quantize(16)
    palette.info["transparency"] = 0
    cases: list[tuple[str, Image.Image, np.ndarray]] = [
        ("grey.png", grey, GREY),
        ("colour.png", colour, RGB),
        ("one_bit.png", Image.fromarray(GREY > 127), np.where(GREY > 127, 255, 0)),
        ("deep.png", Image.fromarray(GREY.astype(np.uint16) * 257), GREY),
        ("deep.tif", Image.fromarray(GREY.astype(np.int32) * 257), GREY),
        ("float.tif", Image.fromarray(GREY.astype(np.float32) / 255), GREY),
        ("cmyk.tif", colour.convert("CMYK"), np.asarray(colour.convert("CMYK").convert("RGB"))),
        ("grey_alpha.png", Image.merge("LA", [grey, Image.new("L", grey.size, 255)]), GREY),
    ]
    for name, image, expected in cases:
        image.save(tmp_path / name)
        seen = images.read(tmp_path / name)
        assert seen.mode in ("L", "RGB")
        np.testing.assert_array_equal(
            np.asarray(seen.convert("RGB")), np.asarray(Image.fromarray(expected.astype(np.uint8)).convert("RGB")), name
        )
        np.testing.assert_array_equal(np.asarray(images.read(str(tmp_path / name))), np.asarray(seen))
    palette.save(tmp_path / "palette.png")
    first = np.asarray(palette) == 0
    assert (pixels(tmp_path / "palette.png")[first] == 128).all()


def test_the_tag_of_phones_turns_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(RGB)).save(tmp_path / "phone.png", exif=exif)
    np.testing.assert_array_equal(pixels(tmp_path / "phone.png"), RGB)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(
        tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")], duration=100
    )
    np.testing.assert_array_equal(pixels(tmp_path / "moving.gif"), [[[255, 0, 0]] * 8] * 8)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (None, TypeError, "image is of type NoneType: give a path, a PIL image or an array u8"),
        (np.zeros((4, 4), bool), TypeError, "image is an array of bool"),
        (np.zeros((4, 4), np.int64), TypeError, "image is an array of int64"),
        (np.zeros(4, np.uint8), ValueError, r"image is an array of shape \(4,\)"),
        (np.zeros((3, 6, 5), np.uint8), ValueError, r"shape \(3, 6, 5\)"),  # channels first
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4), np.uint8), ValueError, r"shape \(0, 4\)"),
        (np.full((4, 4), 255.0), ValueError, "image has floats from 255 to 255, not 0..1: divide by the largest"),
        (np.full((4, 4), np.nan), ValueError, "image has floats from nan to nan"),
        (np.full((4, 4), -0.1), ValueError, "floats from -0.1"),
        (Image.new("F", (4, 4), 2.5), UserError, "image has values from 2.5 to 2.5, outside 0..1"),
        ("nowhere.png", UserError, "nowhere.png cannot be read as an image"),
        (__file__, UserError, "test_images.py cannot be read as an image"),
    ],
)
def test_other_input_is_refused_on_one_line(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        images.read(source)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_an_error_has_the_path_once(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    for path, reason in ((text, "unknown format"), (tmp_path / "none.png", "No such file or directory")):
        with pytest.raises(UserError) as error:
            images.read(path)
        assert str(error.value) == f"{path} cannot be read as an image: {reason}"
