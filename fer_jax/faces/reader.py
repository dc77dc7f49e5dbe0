"""The emotions of faces in Python: `fer_jax.load().detect("photo.jpg")`."""

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from math import isfinite
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.data import images
from fer_jax.data.images import Source
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import crop as crop_lib
from fer_jax.faces import decision, detect, video
from fer_jax.faces.face import Box, Face
from fer_jax.faces.video import Frame
from fer_jax.inference import onnx_network
from fer_jax.inference.log_probs import average
from fer_jax.inference.onnx_network import RUNTIMES, OnnxNetwork

if TYPE_CHECKING:
    from fer_jax.inference import Network

CHUNK = 1024  # faces that are in memory at once
IMAGES = 32  # images whose faces are predicted together
DEFAULT = "best"  # the network that is loaded where none is named
ACCEPTED = "give a path, a PIL image, an array, or a list of them"


class Reader:
    """One or several networks that read emotions from faces; `load` makes it."""

    def __init__(self, networks: "Sequence[Network | OnnxNetwork]", flip: bool = False) -> None:
        self.networks = networks
        self.flip = flip

    def detect(
        self,
        image: Any,
        boxes: Any = None,
        calibrated: bool = False,
        prior: float = 0,
        smallest: float | None = None,
    ) -> Any:
        """Return the faces in an image, from left to right, with their emotions: list[Face].

        The list is empty where nobody is. A list of images, or an array u8[N, H, W, 3], gives a list of such lists.
        A folder gives an iterator of (path, faces), in the order of the names and with few images in memory; its
        files that cannot be read are skipped with a warning. Probabilities are the mean of each face and its mirror
        image, and of several networks.

        Args:
            image: the path of an image file or a folder, a PIL image, an array (see `images.ARRAYS`), or a list.
            boxes: the faces' boxes (x, y, width, height), if a detector of one's own found them; for a list of images
                a list for each. A box reaches from the hairline to the chin. None: the faces are detected.
            calibrated: scale the probabilities by the temperature of the released network, or of the exported file, so
                that confidence is accuracy.
            prior: subtract this part, 0 to 1, of the logarithm of the emotions' frequencies in training: rare emotions
                are named more often. docs/faces.md has its effect.
            smallest: look for faces from this size on, in pixels. None: from 20 pixels in images of up to 1280 pixels,
                and from a 64th of the longer side in larger ones. Small faces in large images take long.

        Raises:
            ModuleNotFoundError: faces are to be detected, and the extra `faces` is not installed.
            TypeError: the image is something else.
            UserError: a file cannot be read as an image, or no temperature is stored.
            ValueError: an array has another shape, a box lies outside the image, or `prior` is not in 0..1.
        """
        if not 0 <= prior <= 1:
            raise ValueError(f"prior={prior} must be in 0..1")
        if smallest is not None and not smallest >= 1:
            raise ValueError(f"smallest={smallest} must be at least 1 pixel")
        options: dict[str, Any] = {"calibrated": calibrated, "prior": prior, "smallest": smallest}
        if isinstance(image, str | PathLike) and os.path.isdir(image):
            if boxes is not None:
                raise ValueError("boxes cannot be given for a folder: give a list of files")
            return self._detect_folder(Path(image), **options)
        if isinstance(image, np.ndarray) and image.ndim == 4:
            image = list(image)
        if not isinstance(image, list | tuple):
            return self._detect_images([image], None if boxes is None else [boxes], **options)[0]
        if boxes is not None and len(boxes) != len(image):
            raise ValueError(f"{len(image)} images, but boxes of {len(boxes)}: give a list of boxes for each image")
        faces = []
        for start in range(0, len(image), IMAGES):
            chunk = slice(start, start + IMAGES)
            faces += self._detect_images(image[chunk], None if boxes is None else boxes[chunk], start, **options)
        return faces

    def predict(self, crops: Any, calibrated: bool = False, prior: float = 0) -> np.ndarray:
        """Return the probabilities of the emotions, f64[N, 8] in the order of `fer_jax.EMOTIONS`; rows sum to 1.

        A crop shows one face, cut out as in FER2013: from the forehead to below the chin, with little around it. It has
        any size; the middle square counts. Several networks are averaged. The first call with a new number of crops
        compiles, for the next power of two.

        Args:
            crops: a path, a PIL image, a list of paths, PIL images or arrays (see `images.ARRAYS`), or one array
                [N, H, W], [N, H, W, 3] or [N, H, W, 4].
            calibrated, prior: see `detect`.

        Raises:
            TypeError: the crops are something else.
            UserError: a file cannot be read as an image.
            ValueError: an array has another shape, or values outside 0..1.
        """
        faces = _listed(crops)
        parts = [np.zeros((0, len(EMOTIONS)))]
        for start in range(0, len(faces), CHUNK):
            chunk = enumerate(faces[start : start + CHUNK], start)
            squares = [crop_lib.grey_square(images.read(face, f"crop {i}")) for i, face in chunk]
            parts.append(self._probabilities(squares, self.flip, calibrated, prior))
        return np.concatenate(parts)

    def video(
        self,
        source: int | str | PathLike[str],
        every: float | None = None,
        smooth: float = 0,
        images: bool = False,
        calibrated: bool = False,
        prior: float = 0,
    ) -> Iterator[Frame]:
        """Return an iterator of the frames of a film, Frame(time_s, faces), with few frames in memory.

        Times are seconds since the start of the film, at variable frame rates too. Frames are turned as a player turns
        them. `Face.track` is the same number in all frames of a face, while its boxes overlap. Damaged parts are
        skipped with a warning.

        Args:
            source: the path of a film, or the number of a camera; 0 is the webcam.
            every: seconds from one frame to the next; None for every frame.
            smooth: the time constant, in seconds, of an exponential moving average of each face's probabilities.
                Changes are seen later by 0.7 times as much. 0 for none.
            images: give each frame its image too.
            calibrated, prior: see `detect`.

        Raises:
            ModuleNotFoundError: the extra `faces` is not installed.
            UserError: the film cannot be read or has no video stream; no camera can be opened, or it stops.
            ValueError: `every` or `smooth` is negative, or `prior` is not in 0..1.
        """
        detect = partial(self.detect, calibrated=calibrated, prior=prior)
        return video.read(source, detect, every, smooth, images)

    def _probabilities(self, crops: Sequence[np.ndarray], flip: bool, calibrated: bool, prior: float) -> np.ndarray:
        own = np.stack(crops)
        both = np.concatenate([own, own[:, :, ::-1]]) if flip else own
        log_probs = []
        for network in self.networks:
            views = own if network.symmetric else both
            parts = np.split(network.log_probabilities(views), len(views) // len(own))
            log_probs.append(decision.adjust(average(parts), network, calibrated, prior))
        return np.exp(average(log_probs))

    def _detect_images(
        self,
        sources: Sequence[Source],
        boxes: Sequence[Any] | None,
        start: int = 0,
        smallest: float | None = None,
        **options: Any,
    ) -> list[list[Face]]:
        """The faces of some images; `start` is the number of the first in errors."""
        faces: list[tuple[Box, float | None]]
        places, crops, counts = [], [], []
        for i, source in enumerate(sources):
            image = images.read(source, f"image {start + i}")
            if boxes is None:
                faces = [(_whole(box), confidence) for box, confidence in detect.find_faces(image, smallest)]
            else:
                faces = [(_whole(_checked(box, image.size)), None) for box in boxes[i]]
            crops += [crop_lib.cut(image, box) for box, _ in faces]
            places += faces
            counts.append(len(faces))
        rows = self._probabilities(crops, flip=True, **options).tolist() if crops else []
        flat = [
            Face(box, dict(zip(EMOTIONS, row, strict=True)), confidence)
            for (box, confidence), row in zip(places, rows, strict=True)
        ]
        ends = np.cumsum(counts)
        return [flat[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _detect_folder(self, folder: Path, **options: Any) -> Iterator[tuple[Path, list[Face]]]:
        names = sorted(entry.name for entry in os.scandir(folder) if crop_lib.is_image(Path(entry.path)))
        for name in names:
            try:
                image = images.read(folder / name)
            except UserError as error:
                warnings.warn(f"skipped: {error}", stacklevel=2)
                continue
            yield folder / name, self._detect_images([image], None, **options)[0]


def load(
    *names: str | PathLike[str], checkpoint: str = "best", flip: bool = False, runtime: str | None = None
) -> Reader:
    """Return a reader of faces.

    With onnxruntime the first answer takes less than a second. With jax each process compiles the networks again, which
    takes seconds; the environment variable JAX_COMPILATION_CACHE_DIR names a folder that keeps compiled programs.

    Args:
        names: shipped networks by name, run folders, or files of `fer-jax export`; their probabilities are averaged.
            None means "best".
        checkpoint: the "best" or "latest" checkpoint of run folders. A released network has one set of weights, which
            is read for both; an exported file is refused with "latest".
        flip: average in the probabilities of each crop's mirror image in `predict`; `detect` always does.
        runtime: "jax" or "onnx" to compute the network with. None: onnxruntime, if it is installed, for exported files
            and released networks; otherwise jax. Probabilities agree within 1e-4.

    Raises:
        ModuleNotFoundError: onnxruntime is needed, and the extra `onnx` is not installed.
        TypeError: the names are in a list.
        UserError: there is no such network or run, it cannot be read, or "latest" is asked of an exported file.
        ValueError: `checkpoint` is neither "best" nor "latest", or `runtime` is neither "jax" nor "onnx".
    """
    if runtime not in (None, *RUNTIMES):
        raise ValueError(f"runtime={runtime!r} must be 'jax' or 'onnx'")
    if checkpoint not in ("best", "latest"):
        raise ValueError(f"checkpoint={checkpoint!r} must be 'best' or 'latest'")
    for name in names:
        if not isinstance(name, str | PathLike):
            example = 'load("base", "best")'
            raise TypeError(
                f"a network's name is no {type(name).__name__}: give names as separate arguments, {example}"
            )
    return Reader([_network(fspath(name), checkpoint, runtime) for name in names or (DEFAULT,)], flip)


def _network(name: str, checkpoint: str, runtime: str | None) -> "Network | OnnxNetwork":
    run = run_folder.find(name)
    if run.suffix == ".onnx" and checkpoint == "latest":
        raise UserError(f"{run} holds the weights of one checkpoint: leave the checkpoint out, or name the run folder")
    if onnx_network.choose(run, runtime) == "onnx":
        return onnx_network.load(run)
    from fer_jax import inference  # imports jax

    return inference.restore(run, checkpoint)


def _listed(crops: Any) -> Sequence[Source]:
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


def _whole(box: Sequence[float]) -> Box:
    x, y, width, height = map(round, box)
    return x, y, width, height


def _checked(box: Any, size: tuple[int, int]) -> Sequence[float]:
    """A box that was given, if it lies in the image.

    Raises:
        ValueError: it has other than four numbers, no area, its centre outside the image, or twice the image's side.
    """
    try:
        x, y, width, height = (float(number) for number in box)
    except (TypeError, ValueError):
        raise ValueError(f"the box {box!r} is not (x, y, width, height)") from None
    if not (isfinite(x + y + width + height) and min(width, height) >= 1 and max(width, height) <= 2 * max(size)):
        raise ValueError(f"the box {box!r} has no area, or is far larger than the image of {size[0]}x{size[1]}")
    if not (0 <= x + width / 2 <= size[0] and 0 <= y + height / 2 <= size[1]):
        raise ValueError(f"the box {box!r} has its centre outside the image of {size[0]}x{size[1]}")
    return x, y, width, height
