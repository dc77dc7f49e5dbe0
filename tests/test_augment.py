import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fer_jax.data import augment, jpeg, recipes
from fer_jax.data.augment import AugmentParams
from fer_jax.data.recipes import RECIPES

SIZES = (48, 64, 37)
render_device = jax.jit(augment.render_device, static_argnames=("size", "normalize"))
RENDERERS = (augment.render, render_device)


def noise(n: int, seed: int = 0) -> np.ndarray:
    """Pictures without any smoothness, on which a wrong pixel, cell or weight shows at once."""
    return np.random.default_rng(seed).integers(0, 256, (n, 48, 48), dtype=np.uint8)


def faces(n: int) -> np.ndarray:
    """Smooth, unevenly lit pictures."""
    blurred = ndimage.gaussian_filter(noise(n).astype(float), (0, 4, 4))
    light = np.linspace(-40, 40, 48)
    return np.clip((blurred - 127.5) * 6 + 120 + light[:, None] + 0.5 * light, 0, 255).astype(np.uint8)


def params(matrix: list[list[float]] | np.ndarray, brightness: float = 1, contrast: float = 1) -> AugmentParams:
    return AugmentParams(
        np.array([matrix], np.float32), np.array([brightness], np.float32), np.array([contrast], np.float32)
    )


def from_picture_coordinates(to_source: np.ndarray, size: int = 48) -> AugmentParams:
    """Parameters of 3x3 maps of [-1, 1]^2, by sending three pixel centres through them."""
    pixels = np.array([[0, 0, 1], [size - 1, 0, 1], [0, size - 1, 1]], float).T
    square = np.stack([(2 * pixels[0] + 1) / size - 1, (2 * pixels[1] + 1) / size - 1, pixels[2]])
    there = to_source @ square
    source = np.stack([(there[:, 0] + 1) * 24 - 0.5, (there[:, 1] + 1) * 24 - 0.5], axis=1)
    matrix = source @ np.linalg.inv(pixels)
    ones = np.ones(len(matrix), np.float32)
    return AugmentParams(matrix.astype(np.float32), ones, ones)


def mirrored(k: int) -> int:
    """The pixel that stands at place k of a row of 48 that goes on as its mirror image."""
    k %= 96
    return k if k < 48 else 95 - k


def slow_warp(values: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """One picture, one pixel at a time, as the definition reads."""
    matrix = np.round(matrix.astype(float) * 65536) / 65536
    out = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            x, y = matrix @ (column, row, 1)
            left, top = math.floor(x), math.floor(y)
            out[row, column] = sum(
                (1 - abs(x - k)) * (1 - abs(y - m)) * float(values[mirrored(m), mirrored(k)])
                for m in (top, top + 1)
                for k in (left, left + 1)
            )
    return out


def slow_erase(picture: np.ndarray, erased: np.ndarray) -> np.ndarray:
    out = picture.copy()
    left, top, right, bottom = erased
    out[top:bottom, left:right] = picture.mean()
    return out


def slow_blur(warped: np.ndarray, share: float) -> np.ndarray:
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    return (1 - float(share)) * warped + float(share) * ndimage.convolve(warped, kernel, mode="reflect")


def slow_scale(warped: np.ndarray, brightness: float, contrast: float, gamma: float = 1) -> np.ndarray:
    bright = np.clip(255 * (warped / 255) ** float(gamma) * float(brightness), 0, 255)
    return np.clip(bright.mean() + float(contrast) * (bright - bright.mean()), 0, 255) / 127.5 - 1


def published_equalization(image: np.ndarray) -> np.ndarray:
    cdf = np.cumsum(np.bincount(image.reshape(-1), minlength=256))
    return (cdf * (2.0 / cdf[-1]) - 1.0)[image]


def published_plane_removal(x: np.ndarray) -> np.ndarray:
    across, down = np.meshgrid(np.arange(x.shape[1]), np.arange(x.shape[0]))
    basis = np.stack([np.ones(x.size), across.reshape(-1), down.reshape(-1)], axis=1)
    rest = x.reshape(-1) - basis @ np.linalg.lstsq(basis, x.reshape(-1), rcond=None)[0]
    deviation = np.sqrt(np.mean(rest**2))
    return (rest / deviation if deviation > 1e-6 else rest).reshape(x.shape)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("recipe", "normalize"),
    [("emotion_cnn", "scale"), ("ferplus", "ferplus"), ("photo", "scale"), ("photo", "ferplus"), ("jpeg", "scale")],
)
def test_renderers_equal_the_definition(recipe: str, normalize: str, size: int) -> None:
    images = np.concatenate([noise(2), faces(2)])
    drawn = augment.sample(np.random.default_rng(size), len(images), recipe, size, erase=0.6)
    assert 0 < drawn.erased.any(axis=1).sum() < len(images)
    host = augment.render(images, drawn, size=size, normalize=normalize)
    device = render_device(images, drawn, size=size, normalize=normalize)
    assert host.shape == device.shape == (4, size, size, 1)
    assert host.dtype == device.dtype == np.float32
    assert recipe != "photo" or 0 < (drawn.blur > 0).sum() < len(images)
    assert recipe != "jpeg" or 0 < (drawn.jpeg > 0).sum() < len(images)
    every = drawn._replace(
        gamma=np.ones(4) if drawn.gamma is None else drawn.gamma,
        blur=np.zeros(4) if drawn.blur is None else drawn.blur,
        jpeg=np.zeros(4, int) if drawn.jpeg is None else drawn.jpeg,
    )
    for image, row, *rendered in zip(images, zip(*every, strict=True), host, device, strict=True):
        matrix, brightness, contrast, erased, gamma, blur, quality = row
        image = jpeg.compress(image[None], np.array([quality]), np)[0]
        if normalize == "scale":
            expected = slow_scale(slow_blur(slow_warp(image, matrix, size), blur), brightness, contrast, gamma)
        else:
            warped = slow_blur(slow_warp(published_equalization(image), matrix, size), blur)
            expected = published_plane_removal(warped)
        for picture in rendered:
            np.testing.assert_allclose(picture[..., 0], slow_erase(expected, erased), rtol=0, atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("normalize", augment.NORMALIZATIONS)
def test_renderers_are_equal_on_many_pictures(recipe: str, normalize: str) -> None:
    """Some of 300 drawn maps put pixels so close to a cell's border that rounding decides which cell is read."""
    images, drawn = noise(300), augment.sample(np.random.default_rng(1), 300, recipe, 48, erase=0.5)
    host = augment.render(images, drawn, size=48, normalize=normalize)
    device = render_device(images, drawn, size=48, normalize=normalize)
    np.testing.assert_allclose(device, host, rtol=0, atol=1e-5)


def test_pixels_beside_a_cell_border() -> None:
    """Coordinates a hair below or above whole numbers: a cell from one side with a weight from the other is wrong."""
    images = np.where(np.indices((48, 48)).sum(axis=0) % 2, 255, 0).astype(np.uint8)[None].repeat(64, axis=0)
    matrix = np.tile(np.eye(2, 3), (64, 1, 1)) + np.random.default_rng(0).normal(0, 3e-7, (64, 2, 3))
    ones = np.ones(64, np.float32)
    drawn = AugmentParams(matrix.astype(np.float32), ones, ones)
    expected = images / 127.5 - 1
    device = render_device(images, drawn, size=48, normalize="scale")
    for rendered in (augment.render(images, drawn, size=48, normalize="scale"), device):
        np.testing.assert_allclose(rendered[..., 0], expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0, -30.25], [0, 1, 41.5]],  # mostly mirror image
        [[0.5, 1.5, -60], [-1.25, 0.25, 70]],  # beyond the mirror image's far border
        [[1, 0, 500.5], [0, 1, -700.25]],  # five and seven pictures away
        [[0, 0, 47.75], [0, 0, -0.25]],  # one point, between a corner and its mirror image
    ],
)
def test_warp_equals_scipy(render, matrix: list[list[float]]) -> None:
    image = noise(1)
    down, across = np.indices((48, 48))
    x, y = (row[0] * across + row[1] * down + row[2] for row in np.array(matrix))
    expected = ndimage.map_coordinates(image[0].astype(float), [y, x], order=1, mode="reflect")
    rendered = render(image, params(matrix), size=48, normalize="scale")
    np.testing.assert_allclose((rendered[0, ..., 0] + 1) * 127.5, expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("render", RENDERERS)
def test_identity_keeps_every_pixel(render) -> None:
    images = noise(50)
    rendered = render(images, augment.identity(50, 48), size=48, normalize="scale")
    np.testing.assert_allclose(rendered[..., 0], images / 127.5 - 1, rtol=0, atol=1.5e-7)  # f32 near 1 is no finer


@pytest.mark.parametrize("normalize", augment.NORMALIZATIONS)
def test_unmoved_pictures_need_no_warp(normalize: str) -> None:
    images = np.random.default_rng(3).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    expected = augment.render(images, augment.identity(5, 48), size=48, normalize=normalize)
    np.testing.assert_allclose(jax.jit(partial(augment.unmoved, normalize=normalize))(images), expected, atol=1e-5)


@pytest.mark.parametrize("size", [96, 64, 24])
def test_identity_at_another_size_is_a_plain_resize(size: int) -> None:
    """Pillow's affine transform also samples bilinearly at pixel centres, but knows no mirror image: borders differ."""
    images = faces(2)
    rendered = augment.render(images, augment.identity(2, size), size=size, normalize="scale")
    for image, picture in zip(images, rendered, strict=True):
        resized = Image.fromarray(image.astype(np.float32)).transform(
            (size, size), Image.Transform.AFFINE, (48 / size, 0, 0, 0, 48 / size, 0), Image.Resampling.BILINEAR
        )
        np.testing.assert_allclose(
            (picture[1:-1, 1:-1, 0] + 1) * 127.5, np.asarray(resized)[1:-1, 1:-1], rtol=0, atol=0.01
        )


def test_flip_and_turn_have_pillows_sense() -> None:
    image = faces(1)
    none, one, zero = np.zeros(1), np.ones(1), np.zeros((2, 1))
    flipped = from_picture_coordinates(recipes.emotion_cnn_map(one > 0, none, one, zero, none, zero))
    rendered = augment.render(image, flipped, size=48, normalize="scale")
    np.testing.assert_allclose((rendered[0, ..., 0] + 1) * 127.5, image[0, :, ::-1], rtol=0, atol=1e-3)

    turned = from_picture_coordinates(recipes.emotion_cnn_map(one < 0, 10 * one, one, zero, none, zero))
    rendered = augment.render(image, turned, size=48, normalize="scale")
    clockwise = Image.fromarray(image[0].astype(np.float32)).rotate(-10, Image.Resampling.BILINEAR)
    np.testing.assert_allclose(
        (rendered[0, 8:40, 8:40, 0] + 1) * 127.5, np.asarray(clockwise)[8:40, 8:40], rtol=0, atol=0.05
    )


def test_brightness_and_contrast_by_hand() -> None:
    image = np.full((1, 48, 48), 100, np.uint8)
    image[0, :, 24:] = 250
    # 110 and 250 * 1.1 = 275, cut to 255: mean 182.5, distances of 72.5 stretched to 79.75: 102.75 and 262.25, cut
    expected = np.where(image == 100, 102.75, 255) / 127.5 - 1
    drawn = params(np.eye(2, 3), brightness=1.1, contrast=1.1)
    for render in RENDERERS:
        rendered = render(image, drawn, size=48, normalize="scale")
        np.testing.assert_allclose(rendered[..., 0], expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("render", RENDERERS)
def test_gamma_by_hand_and_before_brightness(render) -> None:
    image = np.zeros((1, 48, 48), np.uint8)
    image[0, :, :12], image[0, :, 12:24], image[0, :, 24:36] = 51, 204, 255  # 1/5, 4/5 and all of 255; the rest is 0
    squared = params(np.eye(2, 3), brightness=1.25)._replace(gamma=np.array([2], np.float32))
    expected = np.repeat([10.2 * 1.25, 163.2 * 1.25, 255, 0], 12) / 127.5 - 1
    rendered = render(image, squared, size=48, normalize="scale")
    np.testing.assert_allclose(rendered[0, ..., 0], np.tile(expected, (48, 1)), rtol=0, atol=1e-5)
    root = params(np.eye(2, 3))._replace(gamma=np.array([0.5], np.float32))
    expected = np.repeat([math.sqrt(51 * 255), math.sqrt(204 * 255), 255, 0], 12) / 127.5 - 1
    rendered = render(image, root, size=48, normalize="scale")
    np.testing.assert_allclose(rendered[0, ..., 0], np.tile(expected, (48, 1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("share", [0.25, 1])
def test_blur_equals_scipy(render, share: float) -> None:
    image = noise(1)
    drawn = params(np.eye(2, 3))._replace(blur=np.array([share], np.float32))
    expected = slow_blur(image[0].astype(float), share)
    rendered = render(image, drawn, size=48, normalize="scale")
    np.testing.assert_allclose((rendered[0, ..., 0] + 1) * 127.5, expected, rtol=0, atol=1e-3)
    assert abs(expected - image[0]).max() > 20  # or the comparison says nothing


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("normalize", augment.NORMALIZATIONS)
def test_gamma_1_and_blur_0_change_nothing(render, normalize: str) -> None:
    images, drawn = noise(30), augment.sample(np.random.default_rng(0), 30, "strong", 48)
    assert drawn.gamma is None
    assert drawn.blur is None
    neutral = drawn._replace(gamma=np.ones(30, np.float32), blur=np.zeros(30, np.float32))
    with_fields, without = (render(images, p, size=48, normalize=normalize) for p in (neutral, drawn))
    np.testing.assert_allclose(with_fields, without, rtol=0, atol=1e-5)


@pytest.mark.parametrize("render", RENDERERS)
def test_ferplus_ignores_gamma(render) -> None:
    drawn = augment.sample(np.random.default_rng(0), 10, "photo", 48)
    with_gamma, without = (
        render(noise(10), p, size=48, normalize="ferplus") for p in (drawn, drawn._replace(gamma=None))
    )
    np.testing.assert_array_equal(with_gamma, without)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("size", [48, 37])
def test_flat_pictures(render, size: int) -> None:
    levels = np.arange(0, 256, 5)
    images = levels.astype(np.uint8)[:, None, None].repeat(48, axis=1).repeat(48, axis=2)
    drawn = augment.sample(np.random.default_rng(0), len(images), "ferplus", size)
    scaled = np.asarray(render(images, drawn, size=size, normalize="scale"))
    np.testing.assert_allclose(scaled.min(axis=(1, 2, 3)), levels / 127.5 - 1, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scaled.max(axis=(1, 2, 3)), levels / 127.5 - 1, rtol=0, atol=1e-5)
    standardized = render(images, drawn, size=size, normalize="ferplus")
    np.testing.assert_allclose(standardized, np.zeros_like(scaled), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [48, 64])
def test_ferplus_output_has_no_plane_and_unit_variance(size: int) -> None:
    drawn = augment.sample(np.random.default_rng(0), 40, "ferplus", size)
    rendered = augment.render(faces(40), drawn, size=size, normalize="ferplus")[..., 0].astype(float)
    ramp = np.linspace(-1, 1, size)
    for plane in (np.ones((size, size)), np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size))):
        np.testing.assert_allclose((rendered * plane).mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(rendered.std(axis=(1, 2)), 1, atol=1e-5)


def test_flip_mirrors_half_of_the_pictures_and_leaves_the_others() -> None:
    images, drawn = noise(300), augment.sample(np.random.default_rng(0), 300, "flip", 48)
    rendered = augment.render(images, drawn, size=48, normalize="scale")[..., 0]
    plain = augment.render(images, augment.identity(300, 48), size=48, normalize="scale")[..., 0]
    as_is = (rendered == plain).all(axis=(1, 2))
    assert 110 < as_is.sum() < 190
    np.testing.assert_allclose(rendered[~as_is], plain[~as_is, :, ::-1], atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_pixels_stay_in_range_and_their_mean_near(recipe: str) -> None:
    images = faces(200)
    drawn = augment.sample(np.random.default_rng(0), 200, recipe, 48)
    rendered = augment.render(images, drawn, size=48, normalize="scale")
    assert rendered.min() >= -1
    assert rendered.max() <= 1
    means = rendered.mean(axis=(1, 2, 3)) - (images.mean(axis=(1, 2)) / 127.5 - 1)
    assert abs(means.mean()) < (0.03 if recipe in ("light", "photo") else 0.01)
    assert abs(means).max() < {"strong": 0.3, "light": 0.6, "photo": 0.6}.get(recipe, 0.2)


@pytest.mark.parametrize("size", [48, 64])
def test_erased_rectangles_have_their_frequency_area_shape_and_place(size: int) -> None:
    erased = augment.sample(np.random.default_rng(0), 20_000, "none", size, erase=0.3).erased
    some = erased.any(axis=1)
    assert abs(some.mean() - 0.3) < 0.01
    left, top, right, bottom = erased[some].T
    assert 0 <= min(left.min(), top.min()) <= max(right.max(), bottom.max()) <= size
    width, height = right - left, bottom - top
    area, aspect = width * height / size**2, height / width
    assert abs(area.mean() - 0.11) < 0.002  # uniform in 0.02..0.2, but for the rounding to pixels
    assert 0.01 < area.min() < 0.025
    assert 0.195 < area.max() < 0.22
    assert abs(np.log(aspect).mean()) < 0.02  # lying as often as standing
    assert abs(np.log(aspect).std() - math.log(1 / 0.3) / math.sqrt(3)) < 0.02
    assert 0.3 / 1.3 < aspect.min() < aspect.max() < 1.3 / 0.3
    for start, extent in ((left, width), (top, height)):
        share = start / (size - extent)
        assert abs(share.mean() - 0.5) < 0.02
        assert abs(share.std() - 1 / math.sqrt(12)) < 0.02


def test_rendering_under_vmap_and_scan() -> None:
    images = noise(12).reshape(3, 4, 48, 48)
    drawn = augment.sample(np.random.default_rng(0), 12, "photo", 37, erase=0.5)
    drawn = drawn._replace(jpeg=np.arange(0, 96, 8, dtype=np.int32))
    stacked = jax.tree.map(lambda field: jnp.asarray(field).reshape(3, 4, *field.shape[1:]), drawn)

    def render(images: jax.Array, drawn: AugmentParams) -> jax.Array:
        return augment.render_device(images, drawn, size=37, normalize="scale")

    expected = augment.render(images.reshape(12, 48, 48), drawn, size=37, normalize="scale").reshape(3, 4, 37, 37, 1)
    np.testing.assert_allclose(jax.jit(jax.vmap(render))(images, stacked), expected, rtol=0, atol=1e-5)
    scanned = jax.lax.scan(lambda carry, batch: (carry, render(*batch)), 0, (images, stacked))[1]
    np.testing.assert_allclose(scanned, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1, augment.CHUNK, augment.CHUNK + 1])
def test_a_picture_does_not_depend_on_its_batch(n: int) -> None:
    images = noise(2 * augment.CHUNK)
    drawn = augment.sample(np.random.default_rng(0), len(images), "photo", 48, erase=0.5)
    drawn = drawn._replace(jpeg=np.arange(len(images), dtype=np.int32))
    every = augment.render(images, drawn, size=48, normalize="ferplus")
    some = augment.render(images[:n], jax.tree.map(lambda field: field[:n], drawn), size=48, normalize="ferplus")
    np.testing.assert_array_equal(some, every[:n])


@pytest.mark.parametrize("recipe", RECIPES)
def test_sample_depends_on_the_generator_alone(recipe: str) -> None:
    np.random.seed(0)  # noqa: NPY002 the global state, which must not matter
    first = augment.sample(np.random.default_rng((7, 3)), 50, recipe, 48, erase=0.5)
    np.random.seed(1)  # noqa: NPY002
    second = augment.sample(np.random.default_rng((7, 3)), 50, recipe, 48, erase=0.5)
    other = augment.sample(np.random.default_rng((7, 4)), 50, recipe, 48)
    assert first.matrix.shape == (50, 2, 3)
    drawn = RECIPES[recipe](np.random.default_rng(0), 50)
    floats = ["float32"] * ((drawn.gamma is not None) + (drawn.blur is not None))
    integers = ["int32"] * (drawn.jpeg is not None)
    types = ["float32", "float32", "float32", "int32", *floats, *integers]
    assert [leaf.dtype.name for leaf in jax.tree.leaves(first)] == types
    assert all(len(leaf) == 50 for leaf in jax.tree.leaves(first))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    without = augment.sample(np.random.default_rng((7, 3)), 50, recipe, 48)
    assert without.erased is None
    jax.tree.map(np.testing.assert_array_equal, first._replace(erased=None), without)
    same = jax.tree.map(np.array_equal, without, other)
    assert all(jax.tree.leaves(same)) == (recipe == "none")


@pytest.mark.parametrize("size", [64, 37])
def test_another_size_shows_the_same_draw(size: int) -> None:
    """The output's middle and corners show the same source points at every size."""
    small, large = (augment.sample(np.random.default_rng(5), 30, "ferplus", side) for side in (48, size))
    for at in (0, 0.5, 1):
        ends = [drawn.matrix @ (at * side - 0.5, at * side - 0.5, 1) for drawn, side in ((small, 48), (large, size))]
        np.testing.assert_allclose(*ends, atol=1e-3)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError, match="sepia"):
        augment.sample(np.random.default_rng(0), 1, "sepia", 48)
    for render in RENDERERS:
        with pytest.raises(KeyError, match="whiten"):
            render(noise(1), augment.identity(1, 48), size=48, normalize="whiten")


def test_grid_stretches_each_picture_and_fills_the_last_row() -> None:
    pictures = np.zeros((3, 2, 2, 1), np.float32)
    pictures[0, :, :, 0] = [[-1, 0], [1, 3]]
    pictures[1, :, :, 0] = [[0.5, 0.5], [0.5, 0.7]]
    pictures[2] = 9  # flat
    expected = [
        [0, 64, 0, 0],
        [128, 255, 0, 255],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    laid_out = augment.grid(pictures, columns=2)
    assert laid_out.dtype == np.uint8
    np.testing.assert_array_equal(laid_out, expected)
