import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fer_jax.data import jpeg

NOISE = np.random.default_rng(0).integers(0, 256, (40, 48, 48), dtype=np.uint8)
SMOOTH = np.clip((ndimage.gaussian_filter(NOISE.astype(float), (0, 2, 2)) - 127.5) * 8 + 120, 0, 255).astype(np.uint8)


def constant(quality: int) -> np.ndarray:
    return np.full(40, quality, np.int32)


@pytest.mark.parametrize("images", [NOISE, SMOOTH], ids=["noise", "smooth"])
@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 95, 100])
def test_equals_libjpeg_except_for_coefficients_halfway_between_two_steps(images: np.ndarray, quality: int) -> None:
    def libjpeg(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file)).astype(int)

    compressed = jpeg.compress(images, constant(quality), np).astype(int)
    error = abs(compressed - np.stack([libjpeg(image) for image in images]))
    assert (error == 0).mean() > 0.92
    assert (error <= 1).mean() > 0.98
    change = abs(compressed - images).mean()
    assert error.mean() < max(0.1, 0.03 * change)  # small against the effect of the compression


def test_flat_images_by_hand() -> None:
    """A block of one level v has one coefficient, 8 (v - 128), in steps of 16 at quality 50: even levels remain."""
    levels = np.array([128, 129, 130, 131, 125, 127, 0, 255], np.uint8)
    images = np.broadcast_to(levels[:, None, None], (8, 16, 8))
    rounded = [128, 130, 130, 132, 124, 126, 0, 255]  # halves away from 128; 256 is clipped
    np.testing.assert_array_equal(jpeg.compress(images, np.full(8, 50), np)[:, 3, 3], rounded)
    np.testing.assert_array_equal(jpeg.compress(images, np.full(8, 100), np), images)


def test_numpy_and_xla_make_the_same_pixels() -> None:
    quality = np.random.default_rng(1).integers(0, 101, 40).astype(np.int32)
    device = jax.jit(lambda images, quality: jpeg.compress(images, quality, jnp))
    for images in (NOISE, SMOOTH, np.where(NOISE < 128, 0, 255).astype(np.uint8)):
        host = jpeg.compress(images, quality, np)
        assert host.dtype == np.uint8
        np.testing.assert_array_equal(device(images, quality), host)


def test_quality_0_keeps_the_image() -> None:
    np.testing.assert_array_equal(jpeg.compress(SMOOTH, constant(0), np), SMOOTH)
