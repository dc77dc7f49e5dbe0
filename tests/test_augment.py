import math

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage

from fer_jax.data import augment, degradation, jpeg, recipes
from fer_jax.data.augment import AugmentParams
from fer_jax.data.normalize import NORMALIZATIONS
from fer_jax.data.recipes import RECIPES

FEW = 30  # images where their number does not matter: the same number, for the same compiled program
SIZES = (48, 64, 37)  # at 48 the numpy renderer copies images that stay as they are
render_device = jax.jit(augment.render_device, static_argnames=("size", "normalize"))
RENDERERS = (augment.render, render_device)


def noise(n: int, seed: int = 0) -> np.ndarray:
    """Images of noise, on which a wrong pixel, cell or weight shows at once."""
    return np.random.default_rng(seed).integers(0, 256, (n, 48, 48), dtype=np.uint8)


def faces(n: int) -> np.ndarray:
    """Smooth, unevenly lit images."""
    blurred = ndimage.gaussian_filter(noise(n).astype(float), (0, 4, 4))
    light = np.linspace(-40, 40, 48)
    return np.clip((blurred - 127.5) * 6 + 120 + light[:, None] + 0.5 * light, 0, 255).astype(np.uint8)


def params(matrix: list[list[float]] | np.ndarray, brightness: float = 1, contrast: float = 1) -> AugmentParams:
    return AugmentParams(
        np.array([matrix], np.float32), np.array([brightness], np.float32), np.array([contrast], np.float32)
    )


def params_of_maps(to_source: np.ndarray) -> AugmentParams:
    """The parameters of 3x3 maps of [-1, 1]^2, from their values at three pixel centres."""
    pixels = np.array([[0, 0, 1], [47, 0, 1], [0, 47, 1]], float).T
    square = np.stack([(2 * pixels[0] + 1) / 48 - 1, (2 * pixels[1] + 1) / 48 - 1, pixels[2]])
    mapped = to_source @ square
    source = np.stack([(mapped[:, 0] + 1) * 24 - 0.5, (mapped[:, 1] + 1) * 24 - 0.5], axis=1)
    matrix = source @ np.linalg.inv(pixels)
    ones = np.ones(len(matrix), np.float32)
    return AugmentParams(matrix.astype(np.float32), ones, ones)


def mirror_index(k: int) -> int:
    """The pixel at position k of a row of 48 that continues as its mirror image."""
    k %= 96
    return k if k < 48 else 95 - k


def slow_warp(values: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Warp one image pixel by pixel, by the definition."""
    matrix = np.round(matrix.astype(float) * 65536) / 65536
    warped = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            x, y = matrix @ (column, row, 1)
            left, top = math.floor(x), math.floor(y)
            warped[row, column] = sum(
                (1 - abs(x - k)) * (1 - abs(y - m)) * float(values[mirror_index(m), mirror_index(k)])
                for m in (top, top + 1)
                for k in (left, left + 1)
            )
    return warped


def slow_erase(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    erased = image.copy()
    left, top, right, bottom = box
    erased[top:bottom, left:right] = image.mean()
    return erased


def slow_blur(warped: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian with mirrored borders is a factor for each wave of the cosine transform."""
    waves = np.pi / 48 * np.hypot(*np.indices(warped.shape))
    gain = np.exp(-((waves * float(deviation)) ** 2) / 2)
    return fft.idctn(fft.dctn(warped, norm="ortho") * gain, norm="ortho")


def slow_scale(warped: np.ndarray, brightness: float, contrast: float, gamma: float = 1) -> np.ndarray:
    bright = np.clip(255 * (warped.clip(0) / 255) ** float(gamma) * float(brightness), 0, 255)
    return np.clip(bright.mean() + float(contrast) * (bright - bright.mean()), 0, 255) / 127.5 - 1


def published_equalization(image: np.ndarray) -> np.ndarray:
    cdf = np.cumsum(np.bincount(image.reshape(-1), minlength=256))
    return (cdf * (2.0 / cdf[-1]) - 1.0)[image]


def published_plane_removal(x: np.ndarray) -> np.ndarray:
    across, down = np.meshgrid(np.arange(x.shape[1]), np.arange(x.shape[0]))
    basis = np.stack([np.ones(x.size), across.reshape(-1), down.reshape(-1)], axis=1)
    residual = x.reshape(-1) - basis @ np.linalg.lstsq(basis, x.reshape(-1), rcond=None)[0]
    deviation = np.sqrt(np.mean(residual**2))
    return (residual / deviation if deviation > 1e-6 else residual).reshape(x.shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "normalize", "size"),
    [
        *(("photo", normalize, size) for normalize in NORMALIZATIONS for size in SIZES),
        ("emotion_cnn", "scale", 48),
        ("ferplus", "ferplus", 48),
        ("camera", "scale", 48),
    ],
)
def test_the_numpy_renderer_equals_the_definition(recipe: str, normalize: str, size: int) -> None:
    images = np.concatenate([noise(2), faces(2)])
    drawn = augment.sample(np.random.default_rng(size + 14), len(images), recipe, size, erase=0.6)
    assert 0 < drawn.erased.any(axis=1).sum() < len(images)
    rendered = augment.render(images, drawn, size=size, normalize=normalize)
    assert rendered.shape == (4, size, size, 1)
    assert rendered.dtype == np.float32
    assert recipe != "photo" or 0 < (drawn.blur > 0).sum() < len(images)
    assert recipe != "camera" or min((field > 0).sum() for field in (drawn.blur, drawn.jpeg, drawn.noise)) > 0
    complete = drawn._replace(
        gamma=np.ones(4) if drawn.gamma is None else drawn.gamma,
        blur=np.zeros(4) if drawn.blur is None else drawn.blur,
        jpeg=np.zeros(4, int) if drawn.jpeg is None else drawn.jpeg,
        noise=np.zeros(4) if drawn.noise is None else drawn.noise,
        noise_seed=np.zeros(4, int) if drawn.noise_seed is None else drawn.noise_seed,
    )
    for image, row, pixels in zip(images, zip(*complete, strict=True), rendered, strict=True):
        matrix, brightness, contrast, erased, gamma, blur, quality, deviation, seed = row
        if deviation:
            image = degradation.noisy(image[None], np.array([deviation]), np.array([seed]), np)[0]
        image = jpeg.compress(image[None], np.array([quality]), np)[0]
        if normalize == "scale":
            expected = slow_scale(slow_blur(slow_warp(image, matrix, size), blur), brightness, contrast, gamma)
        else:
            warped = slow_blur(slow_warp(published_equalization(image), matrix, size), blur)
            expected = published_plane_removal(warped)
        np.testing.assert_allclose(pixels[..., 0], slow_erase(expected, erased), rtol=0, atol=7e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "normalize", "size"),
    [
        *((recipe, "scale", 48) for recipe in RECIPES),
        *((recipe, "ferplus", 48) for recipe in ("ferplus", "photo", "camera")),  # they have all steps between them
        *(("photo", normalize, size) for normalize in NORMALIZATIONS for size in SIZES[1:]),
    ],
)
def test_renderers_are_equal_on_many_images(recipe: str, normalize: str, size: int) -> None:
    """Some of 300 drawn maps put pixels so close to a cell's border that rounding decides which cell is read."""
    images, drawn = noise(300), augment.sample(np.random.default_rng(1), 300, recipe, size, erase=0.5)
    host = augment.render(images, drawn, size=size, normalize=normalize)
    device = render_device(images, drawn, size=size, normalize=normalize)
    assert device.shape == host.shape
    assert device.dtype == host.dtype
    np.testing.assert_allclose(device, host, rtol=0, atol=2e-5)


def test_pixels_next_to_a_cell_border() -> None:
    """At coordinates just below or above whole numbers, the cell and the weight must come from the same side."""
    images = np.where(np.indices((48, 48)).sum(axis=0) % 2, 255, 0).astype(np.uint8)[None].repeat(FEW, axis=0)
    matrix = np.tile(np.eye(2, 3), (FEW, 1, 1)) + np.random.default_rng(0).normal(0, 3e-7, (FEW, 2, 3))
    ones = np.ones(FEW, np.float32)
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
        [[1, 0, 500.5], [0, 1, -700.25]],  # ten and fourteen images away
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
    images = noise(FEW)
    rendered = render(images, augment.identity(FEW, 48), size=48, normalize="scale")
    np.testing.assert_allclose(rendered[..., 0], images / 127.5 - 1, rtol=0, atol=1.5e-7)  # the precision of f32 near 1


@pytest.mark.parametrize("size", [96, 64, 24])
def test_identity_at_another_size_resizes(size: int) -> None:
    """Pillow's affine transform also samples bilinearly at pixel centres, but has no mirror image: borders differ."""
    images = faces(2)
    rendered = augment.render(images, augment.identity(2, size), size=size, normalize="scale")
    for image, pixels in zip(images, rendered, strict=True):
        resized = Image.fromarray(image.astype(np.float32)).transform(
            (size, size), Image.Transform.AFFINE, (48 / size, 0, 0, 0, 48 / size, 0), Image.Resampling.BILINEAR
        )
        np.testing.assert_allclose(
            (pixels[1:-1, 1:-1, 0] + 1) * 127.5, np.asarray(resized)[1:-1, 1:-1], rtol=0, atol=0.01
        )


def test_flip_and_rotation_have_the_direction_of_pillow() -> None:
    image = faces(1)
    zero, one, zeros = np.zeros(1), np.ones(1), np.zeros((2, 1))
    flipped = params_of_maps(recipes.emotion_cnn_map(one > 0, zero, one, zeros, zero, zeros))
    rendered = augment.render(image, flipped, size=48, normalize="scale")
    np.testing.assert_allclose((rendered[0, ..., 0] + 1) * 127.5, image[0, :, ::-1], rtol=0, atol=1e-3)

    rotated = params_of_maps(recipes.emotion_cnn_map(one < 0, 10 * one, one, zeros, zero, zeros))
    rendered = augment.render(image, rotated, size=48, normalize="scale")
    clockwise = Image.fromarray(image[0].astype(np.float32)).rotate(-10, Image.Resampling.BILINEAR)
    np.testing.assert_allclose(
        (rendered[0, 8:40, 8:40, 0] + 1) * 127.5, np.asarray(clockwise)[8:40, 8:40], rtol=0, atol=0.05
    )


def test_brightness_and_contrast_by_hand() -> None:
    image = np.full((1, 48, 48), 100, np.uint8)
    image[0, :, 24:] = 250
    # 110 and 250 * 1.1 = 275, clipped to 255: mean 182.5, distances of 72.5 become 79.75: 102.75 and 262.25, clipped
    expected = np.where(image == 100, 102.75, 255) / 127.5 - 1
    drawn = params(np.eye(2, 3), brightness=1.1, contrast=1.1)
    for render in RENDERERS:
        rendered = render(image, drawn, size=48, normalize="scale")
        np.testing.assert_allclose(rendered[..., 0], expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("render", RENDERERS)
def test_gamma_by_hand_is_applied_before_brightness(render) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("render", "normalize"), [(augment.render, "scale"), (augment.render, "ferplus"), (render_device, "scale")]
)
def test_neutral_values_change_nothing(render, normalize: str) -> None:
    images, drawn = noise(FEW), augment.sample(np.random.default_rng(0), FEW, "strong", 48)
    assert drawn.gamma is None
    assert drawn.blur is None
    zeros = np.zeros(FEW, np.float32)
    neutral = drawn._replace(
        gamma=zeros + 1, blur=zeros, jpeg=zeros.astype(np.int32), noise=zeros, noise_seed=zeros.astype(np.uint32)
    )
    expected = render(images, drawn, size=48, normalize=normalize)
    np.testing.assert_allclose(render(images, neutral, size=48, normalize=normalize), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("size", [48, 37])
def test_flat_images_stay_flat(render, size: int) -> None:
    levels = np.linspace(0, 255, FEW).astype(np.uint8)
    images = levels[:, None, None].repeat(48, axis=1).repeat(48, axis=2)
    drawn = augment.sample(np.random.default_rng(0), len(images), "ferplus", size)
    scaled = np.asarray(render(images, drawn, size=size, normalize="scale"))
    np.testing.assert_allclose(scaled.min(axis=(1, 2, 3)), levels / 127.5 - 1, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scaled.max(axis=(1, 2, 3)), levels / 127.5 - 1, rtol=0, atol=1e-5)
    standardized = render(images, drawn, size=size, normalize="ferplus")
    np.testing.assert_allclose(standardized, np.zeros_like(scaled), rtol=0, atol=1e-5)


def test_flip_mirrors_half_of_the_images_and_keeps_the_others() -> None:
    images, drawn = noise(300), augment.sample(np.random.default_rng(0), 300, "flip", 48)
    rendered = augment.render(images, drawn, size=48, normalize="scale")[..., 0]
    plain = augment.render(images, augment.identity(300, 48), size=48, normalize="scale")[..., 0]
    unchanged = (rendered == plain).all(axis=(1, 2))
    assert 110 < unchanged.sum() < 190
    np.testing.assert_allclose(rendered[~unchanged], plain[~unchanged, :, ::-1], atol=1e-5)


@pytest.mark.parametrize("size", [48, 64])
def test_erased_rectangles_have_the_documented_frequency_area_shape_and_position(size: int) -> None:
    boxes = augment.sample(np.random.default_rng(0), 20_000, "none", size, erase=0.3).erased
    is_erased = boxes.any(axis=1)
    assert abs(is_erased.mean() - 0.3) < 0.01
    left, top, right, bottom = boxes[is_erased].T
    assert 0 <= min(left.min(), top.min()) <= max(right.max(), bottom.max()) <= size
    width, height = right - left, bottom - top
    area, aspect = width * height / size**2, height / width
    assert abs(area.mean() - 0.11) < 0.002  # uniform in 0.02..0.2, except for the rounding to pixels
    assert 0.01 < area.min() < 0.025
    assert 0.195 < area.max() < 0.22
    assert abs(np.log(aspect).mean()) < 0.02  # wide as often as high
    assert abs(np.log(aspect).std() - math.log(1 / 0.3) / math.sqrt(3)) < 0.02
    assert 0.3 / 1.3 < aspect.min() < aspect.max() < 1.3 / 0.3
    for start, extent in ((left, width), (top, height)):
        position = start / (size - extent)
        assert abs(position.mean() - 0.5) < 0.02
        assert abs(position.std() - 1 / math.sqrt(12)) < 0.02


@pytest.mark.slow
def test_rendering_under_vmap_and_scan() -> None:
    images = noise(12).reshape(3, 2, 2, 48, 48)
    drawn = augment.sample(np.random.default_rng(0), 12, "photo", 37, erase=0.5)
    drawn = drawn._replace(jpeg=np.arange(0, 96, 8, dtype=np.int32))
    stacked = jax.tree.map(lambda field: field.reshape(3, 2, 2, *field.shape[1:]), drawn)

    def render(images: jax.Array, drawn: AugmentParams) -> jax.Array:
        return augment.render_device(images, drawn, size=37, normalize="scale")

    expected = augment.render(images.reshape(12, 48, 48), drawn, size=37, normalize="scale").reshape(3, 2, 2, 37, 37, 1)
    scanned = jax.lax.scan(lambda carry, batch: (carry, jax.vmap(render)(*batch)), 0, (images, stacked))[1]
    np.testing.assert_allclose(scanned, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1, augment.CHUNK, augment.CHUNK + 1])
def test_an_image_does_not_depend_on_its_batch(n: int) -> None:
    images = noise(2 * augment.CHUNK)
    drawn = augment.sample(np.random.default_rng(0), len(images), "photo", 48, erase=0.5)
    drawn = drawn._replace(jpeg=np.arange(len(images), dtype=np.int32))
    whole = augment.render(images, drawn, size=48, normalize="ferplus")
    part = augment.render(images[:n], jax.tree.map(lambda field: field[:n], drawn), size=48, normalize="ferplus")
    np.testing.assert_array_equal(part, whole[:n])


@pytest.mark.parametrize("recipe", RECIPES)
def test_sample_depends_on_the_generator_alone(recipe: str) -> None:
    np.random.seed(0)  # noqa: NPY002 the global state must not matter
    first = augment.sample(np.random.default_rng((7, 3)), 50, recipe, 48, erase=0.5)
    np.random.seed(1)  # noqa: NPY002
    second = augment.sample(np.random.default_rng((7, 3)), 50, recipe, 48, erase=0.5)
    other_seed = augment.sample(np.random.default_rng((7, 4)), 50, recipe, 48)
    assert first.matrix.shape == (50, 2, 3)
    drawn = RECIPES[recipe](np.random.default_rng(0), 50)
    optional = {"gamma": "float32", "blur": "float32", "jpeg": "int32", "noise": "float32", "noise_seed": "uint32"}
    types = ["float32", "float32", "float32", "int32"]
    types += [kind for field, kind in optional.items() if getattr(drawn, field) is not None]
    assert [leaf.dtype.name for leaf in jax.tree.leaves(first)] == types
    assert all(len(leaf) == 50 for leaf in jax.tree.leaves(first))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    unerased = augment.sample(np.random.default_rng((7, 3)), 50, recipe, 48)
    assert unerased.erased is None
    jax.tree.map(np.testing.assert_array_equal, first._replace(erased=None), unerased)
    equal = jax.tree.map(np.array_equal, unerased, other_seed)
    assert all(jax.tree.leaves(equal)) == (recipe == "none")


@pytest.mark.parametrize("size", [64, 37])
def test_another_size_shows_the_same_draw(size: int) -> None:
    """The middle and the corners of the output show the same source points at every size."""
    drawn = {side: augment.sample(np.random.default_rng(5), 30, "ferplus", side) for side in (48, size)}
    for position in (0, 0.5, 1):
        sources = [params.matrix @ (position * side - 0.5, position * side - 0.5, 1) for side, params in drawn.items()]
        np.testing.assert_allclose(*sources, atol=1e-3)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError, match="sepia"):
        augment.sample(np.random.default_rng(0), 1, "sepia", 48)
    for render in RENDERERS:
        with pytest.raises(KeyError, match="whiten"):
            render(noise(1), augment.identity(1, 48), size=48, normalize="whiten")


def test_grid_stretches_each_image_and_fills_the_last_row() -> None:
    images = np.zeros((3, 2, 2, 1), np.float32)
    images[0, :, :, 0] = [[-1, 0], [1, 3]]
    images[1, :, :, 0] = [[0.5, 0.5], [0.5, 0.7]]
    images[2] = 9  # flat
    expected = [
        [0, 64, 0, 0],
        [128, 255, 0, 255],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    page = augment.grid(images, columns=2)
    assert page.dtype == np.uint8
    np.testing.assert_array_equal(page, expected)
