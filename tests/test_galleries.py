from typing import Any

import numpy as np
import pytest
from legible import check, segments, words
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb, to_rgba_array

from fer_jax.data.labels import EMOTIONS, VOTES
from fer_jax.reporting import galleries, plots
from fer_jax.reporting.style import BLUE, DPI, ORANGE

pytestmark = pytest.mark.filterwarnings("error")
ROW, CONTEMPT = 0.148, 7  # height of the bars of an emotion in inches; the last emotion


def drawn(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 48, 48), np.uint8)
    votes = rng.multinomial(10, np.full(10, 0.1), count)
    return images, votes, rng.dirichlet(np.ones(8), count), rng.integers(0, 8, count)


def bars(figure: Any, colour: str) -> np.ndarray:
    """The lines of one colour: f64[bars, 2, 2], (x, y) of both ends, in inches from the top left."""
    collections = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    (bars,) = (c for c in collections if np.allclose(to_rgba_array(c.get_color())[0, :3], to_rgb(colour)))
    return segments(bars)


def at(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The pixel of a drawn plot at a distance in inches from the top left: f64[3]."""
    return image[round(y * DPI), round(x * DPI)].astype(float)


def test_gallery_shows_each_face_next_to_its_caption_and_bars() -> None:
    images, votes, probabilities, label = drawn(5)
    images[3, :, :24], images[3, :, 24:] = 30, 210
    figure: Any = galleries.gallery(images, votes, probabilities, label, "most confident errors")
    axes = figure.axes[0]
    for image, drawn_image in zip(images, axes.images, strict=True):
        np.testing.assert_array_equal(drawn_image.get_array(), image)
    pixels = plots.pixels(figure)
    left, right, bottom, top = axes.images[3].get_extent()
    middle = (bottom + top) / 2
    np.testing.assert_allclose(at(pixels, left + 0.2, middle), 30, atol=2)
    np.testing.assert_allclose(at(pixels, right - 0.2, middle), 210, atol=2)

    voted, predicted = bars(figure, ORANGE), bars(figure, BLUE)
    unit = np.ptp(voted[..., 0], axis=1).sum() / 5  # the ten votes of an image together are 100%
    np.testing.assert_allclose(np.ptp(voted[..., 0], axis=1), unit * votes.ravel() / 10, atol=1e-9)
    np.testing.assert_allclose(np.ptp(predicted[..., 0], axis=1), unit * probabilities.ravel(), atol=1e-9)
    names = [text for text in axes.texts if text.get_text() in VOTES]
    assert [text.get_text() for text in names] == [*VOTES] * 5
    places = np.array([text.get_position() for text in names])
    emotions = np.arange(50) % 10 < 8
    for place, vote in zip(places, voted, strict=True):
        assert place[0] < vote[0, 0] < place[0] + 0.1  # bars begin next to the name,
        assert 0 < place[1] - vote[0, 1] < ROW / 2  # that of the votes in the upper half of the row
    for place, probability in zip(places[emotions], predicted, strict=True):
        assert place[0] < probability[0, 0] < place[0] + 0.1
        assert 0 < probability[0, 1] - place[1] < ROW / 2  # and that of the model in the lower half
    captions = [text for text in axes.texts if text.get_text().startswith("label")]
    for i in range(5):
        left, right, bottom, top = axes.images[i].get_extent()
        assert captions[i].get_text() == f"label {EMOTIONS[label[i]]}\nmodel {EMOTIONS[probabilities[i].argmax()]}"
        assert captions[i].get_position()[0] == left
        assert bottom < captions[i].get_position()[1] < bottom + 0.1
        assert (right < places[10 * i : 10 * i + 10, 0]).all()
        assert (np.diff([top, *places[10 * i : 10 * i + 10, 1], bottom + 0.5]) > 0).all()
    check(figure)


def test_predictions_show_each_face_with_its_name_and_probabilities() -> None:
    images, _, probabilities, _ = drawn(3)
    names = ["face.png", "a" * 40 + "b.png", "c.jpg"]
    figure: Any = galleries.predictions(images, probabilities, names, "two networks")
    for image, drawn_image in zip(images, figure.axes[0].images, strict=True):
        np.testing.assert_array_equal(drawn_image.get_array(), image)
    lengths = np.ptp(bars(figure, BLUE)[..., 0], axis=1).reshape(3, 8)
    np.testing.assert_allclose(lengths / lengths.sum(axis=1, keepdims=True), probabilities, atol=1e-9)
    texts = words(figure)
    assert f"face.png\n{EMOTIONS[probabilities[0].argmax()]}" in texts
    assert f"\n...{'a' * 16}b.png\n" in f"\n{texts}\n"
    assert f"{probabilities[2].max():.0%}" in texts
    check(figure)


def test_gallery_shows_names_where_they_are_given() -> None:
    images, votes, probabilities, label = drawn(3)
    names = ["face.png", "a" * 40 + "b.png", "c.jpg"]
    figure: Any = galleries.gallery(images, votes, probabilities, label, "doubtful", names)
    texts = words(figure)
    assert f"label {EMOTIONS[label[0]]}\nmodel {EMOTIONS[probabilities[0].argmax()]}\n" in texts
    assert {"face.png", f"...{'a' * 16}b.png", "c.jpg"} < {*texts.split("\n")}
    check(figure)


def test_gallery_writes_the_probability_of_the_prediction() -> None:
    images, votes, _, label = drawn(2)
    probabilities = np.full((2, 8), 0.01)
    probabilities[0, 3], probabilities[1, 6] = 0.93, 0.934
    figure: Any = galleries.gallery(images, votes, probabilities, label, "two")
    assert words(figure).split("\n").count("93%") == 2
    assert "model sadness" in words(figure)
    assert "model fear" in words(figure)


@pytest.mark.parametrize("count", [1, 12])
def test_gallery_of_any_size_can_be_read(count: int) -> None:
    images, votes, _, _ = drawn(count)
    # the longest captions and bars
    certain = np.eye(8)[np.full(count, EMOTIONS.index("happiness"))]
    figure: Any = galleries.gallery(images, votes * 0, certain, np.full(count, CONTEMPT), "errors " * 20)
    check(figure)
    assert len(figure.axes[0].images) == count
    assert np.ptp(bars(figure, ORANGE)[..., 0], axis=1).max() == 0  # no votes, no bars


def test_an_empty_gallery_says_so() -> None:
    figure: Any = galleries.gallery(*drawn(0), "most confident errors")
    assert words(figure).split("\n") == ["There is no such image.", "most confident errors (0\xa0images)"]
    check(figure)


def peaks() -> np.ndarray:
    """Maps of one square each, about pixel 10 + 4 i of class i, half as high in odd classes."""
    maps = np.zeros((8, 48, 48))
    for i in range(8):
        maps[i, 7 + 4 * i : 14 + 4 * i, 7 + 4 * i : 14 + 4 * i] = 0.5 if i % 2 else 1.0
    return maps


def test_saliency_shows_the_peak_on_the_face_and_alone() -> None:
    faces = np.tile(np.linspace(0, 200, 48), (8, 48, 1))
    figure: Any = galleries.saliency(peaks(), faces, np.arange(1, 9), "Occlusion: base", "fall of the probability")
    axes, pixels = figure.axes[0], plots.pixels(figure)
    over, alone = axes.images[::2], axes.images[1::2]
    contours = [collection.get_paths()[0].vertices for collection in axes.collections]
    for i in range(8):
        assert alone[i].get_clim() == (0, 1)
        level = alone[i].get_array()
        assert np.unravel_index(level.argmax(), level.shape) == (10 + 4 * i, 10 + 4 * i)
        assert level.max() == pytest.approx(1)  # relative, so all classes can be read
        left, right, bottom, top = over[i].get_extent()
        assert alone[i].get_extent()[:2] == [left, right]
        assert alone[i].get_extent()[3] > bottom  # below the face
        place, elsewhere = (10.5 + 4 * i) / 48, (37.5 - 4 * i) / 48
        inside = left + place * (right - left), top + place * (bottom - top)
        outside = left + elsewhere * (right - left), top + (elsewhere + 0.35) % 1 * (bottom - top)
        assert np.ptp(at(pixels, *outside)) == 0  # plain grey where the map is zero
        assert np.ptp(at(pixels, *inside)) > 40  # coloured where it is high
        np.testing.assert_allclose(contours[i].mean(axis=0), inside, atol=0.05)
        down = alone[i].get_extent()[3] - top
        assert at(pixels, inside[0], inside[1] + down).sum() > 600
        assert at(pixels, outside[0], outside[1] + down).sum() < 50
    maxima = [text.get_text() for text in axes.texts if text.get_text().startswith("maximum")]
    heights = [float(text.split()[1]) for text in maxima]
    np.testing.assert_allclose(heights, np.tile([1, 0.5], 4), atol=0.05)  # smoothing takes a little away
    assert all(f"{emotion} ({i + 1})" in words(figure) for i, emotion in enumerate(EMOTIONS))
    assert figure.get_suptitle() == "Occlusion: base (36\xa0images)"
    assert figure.axes[1].get_xlabel() == "fall of the probability, relative to the class's maximum"
    check(figure)


def test_saliency_of_classes_without_images_and_of_flat_maps() -> None:
    maps = peaks()
    maps[7] = np.nan
    figure: Any = galleries.saliency(maps, maps * 100, np.array([3] * 7 + [0]), "Saliency " * 12, "gradient")
    assert len(figure.axes[0].images) == 14
    assert "no images" in words(figure)
    assert "contempt (0)" in words(figure)
    check(figure)
    for flat in (np.zeros((8, 48, 48)), np.full((8, 48, 48), 1e-9)):
        check(galleries.saliency(flat, flat, np.ones(8, int), "Saliency", "gradient"))
    check(galleries.saliency(maps, maps, np.zeros(8, int), "Saliency", "gradient"))
