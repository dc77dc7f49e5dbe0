"""The emotions of faces in Python: `fer_jax.load().predict("face.png")`."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from PIL import Image

from fer_jax import inference
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import crop as crop_lib
from fer_jax.inference import Network

CHUNK = 1024  # faces that are in memory at once
DEFAULT = "best"  # the network that is loaded where none is named
ACCEPTED = (
    "give a path, a PIL image, a list of paths, PIL images or arrays u8[H, W] or u8[H, W, 3], or one array u8[N, H, W] "
    "or u8[N, H, W, 3]"
)

Crop = str | PathLike[str] | Image.Image | np.ndarray


class Reader:
    """One or several networks that read emotions from faces; `load` makes it."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks

    def predict(self, crops: Crop | Sequence[Crop]) -> np.ndarray:
        """Return the probabilities of the emotions, f64[N, 8] in the order of `fer_jax.EMOTIONS`; rows sum to 1.

        A crop shows one face, cut out as in FER2013: from the forehead to below the chin, with little around it. It has
        any size; the middle square counts. Colours are RGB, or RGBA with transparency. Several networks are averaged.
        The first call with a new number of crops compiles, for the next power of two.

        Args:
            crops: a path, a PIL image, a list of paths, PIL images or arrays u8[H, W], u8[H, W, 3] or u8[H, W, 4], or
                one array u8[N, H, W], u8[N, H, W, 3] or u8[N, H, W, 4].

        Raises:
            TypeError: the crops are something else.
            UserError: a file cannot be read as an image.
            ValueError: an array has another shape.
        """
        faces = _listed(crops)
        parts = [np.zeros((0, len(EMOTIONS)))]
        for start in range(0, len(faces), CHUNK):
            images = np.stack([_read(face, start + i) for i, face in enumerate(faces[start : start + CHUNK])])
            log_probs = [inference.log_probabilities(network, images) for network in self.networks]
            parts.append(np.exp(inference.average(log_probs)))
        return np.concatenate(parts)


def load(*names: str | PathLike[str], checkpoint: str = "best") -> Reader:
    """Return a reader of faces.

    Each process compiles the networks again, which takes seconds; the environment variable JAX_COMPILATION_CACHE_DIR
    names a folder that keeps compiled programs.

    Args:
        names: shipped networks by name, or run folders; their probabilities are averaged. None means "best".
        checkpoint: the "best" or "latest" checkpoint of run folders.

    Raises:
        UserError: there is no such network or run, or it cannot be read.
        ValueError: `checkpoint` is neither "best" nor "latest".
    """
    if checkpoint not in ("best", "latest"):
        raise ValueError(f"checkpoint={checkpoint!r} must be 'best' or 'latest'")
    return Reader([inference.restore(fspath(name), checkpoint) for name in names or (DEFAULT,)])


def _listed(crops: Crop | Sequence[Crop]) -> Sequence[Crop]:
    if isinstance(crops, str | PathLike | Image.Image):
        return [crops]
    if isinstance(crops, np.ndarray):
        one_colour_image = crops.ndim == 3 and crops.shape[-1] in (3, 4)
        if crops.ndim == 2 or one_colour_image:
            raise ValueError(f"an array of shape {crops.shape} is one image: give it in a list, [image]")
        if crops.ndim not in (3, 4):
            raise ValueError(f"an array of shape {crops.shape} holds no images: {ACCEPTED}")
        return list(crops)
    if isinstance(crops, list | tuple):
        return crops
    raise TypeError(f"crops of type {type(crops).__name__}: {ACCEPTED}")


def _read(face: Crop, index: int) -> np.ndarray:
    """The crop as u8[48, 48]."""
    name = f"crop {index}"
    if isinstance(face, str | PathLike):
        return crop_lib.read(Path(face))
    if isinstance(face, Image.Image):
        return crop_lib.grey_square(face, name)
    if not isinstance(face, np.ndarray):
        raise TypeError(f"{name} is of type {type(face).__name__}: {ACCEPTED}")
    if face.dtype != np.uint8:
        raise TypeError(f"{name} is an array of {face.dtype}, not uint8 (0 to 255): {ACCEPTED}")
    if face.ndim not in (2, 3) or (face.ndim == 3 and face.shape[2] not in (3, 4)) or 0 in face.shape:
        raise ValueError(f"{name} is an array of shape {face.shape}: {ACCEPTED}")
    return crop_lib.grey_square(Image.fromarray(face), name)
