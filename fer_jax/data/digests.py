"""The digest of an image, by which equal images are found without keeping their pixels."""

import hashlib

import numpy as np

from fer_jax.data.selection import Images

# Of the digests of FER2013's validation images, each once and sorted: SHA-256, 16 bytes.
_FER2013_VALID = "1e452f59921a72d26b8d9097200624ef"

SIZE = 16  # bytes: two of 10^9 unequal images have the same digest with a probability of 10^-21


def of_image(image: np.ndarray) -> bytes:
    """Return the BLAKE2 digest of the pixels of an image, u8[48, 48]."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=SIZE).digest()


def of_images(images: Images) -> np.ndarray:
    """Return the digest of each image: u8[N, 48, 48] -> S16[N]."""
    return np.fromiter((of_image(images[row]) for row in range(len(images))), f"S{SIZE}", len(images))


def are_of_fer2013(digests: np.ndarray) -> bool:
    """Return True if these digests, S16[N], are those of the validation images of FER2013, in any order."""
    joined = b"".join(sorted(set(digests.tolist())))
    return hashlib.sha256(joined).hexdigest()[: len(_FER2013_VALID)] == _FER2013_VALID
