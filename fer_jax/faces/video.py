"""Films and cameras: upright images with their times in seconds, and the faces in them."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from math import floor, inf, isfinite
from os import PathLike, fspath
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from PIL import Image

from fer_jax.core import extras
from fer_jax.core.errors import UserError, one_line
from fer_jax.core.text import counted, is_web_address, printable
from fer_jax.faces.face import Face
from fer_jax.faces.tracks import Tracker

# Of films; .ts is not among them, since most such files are TypeScript.
SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".vob", ".webm", ".wmv", ".y4m"),
)
CHUNK = 8  # frames of a film whose faces are predicted together

Detect = Callable[[Sequence[Image.Image]], list[list[Face]]]
TimedImage = tuple[float, Image.Image]


class Frame(NamedTuple):
    """A frame of a film or a camera and the faces in it."""

    time_s: float  # seconds since the start
    faces: list[Face]  # from left to right; `Face.track` is the same number in all frames of a face
    image: Image.Image | None = None  # RGB, upright; None unless it was asked for


class Film:
    """The frames of a film."""

    def __init__(self, path: str | PathLike[str]) -> None:
        """Open a film.

        Raises:
            ModuleNotFoundError: the extra `faces` is not installed.
            UserError: the file is missing, is no film, or has no video stream.
        """
        with extras.named():
            import av  # images are read without it

        self.name = printable(Path(fspath(path)))
        self.damaged = 0  # packets that could not be decoded
        self._errors = av.error.FFmpegError
        try:
            self._file = open(path, "rb")  # noqa: SIM115  (FFmpeg would read "concat:a" and "%d" in names its own way)
        except OSError as error:
            if is_web_address(Path(fspath(path))):
                raise UserError(f"{self.name} is a web address: download it first") from None
            raise UserError(f"{self.name} cannot be read as a film: {error.strerror}") from None
        if Path(fspath(path)).is_file() and not os.fstat(self._file.fileno()).st_size:
            self._file.close()
            raise UserError(f"{self.name} cannot be read as a film: it is empty")
        try:
            self._container = av.open(self._file, "r", **_metadata_options(av.__version__))
        except (av.error.FFmpegError, ValueError) as error:
            self._file.close()
            raise UserError(f"{self.name} cannot be read as a film: {_reason(error)}") from None
        covers = av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & covers]
        if not streams:
            self.close()
            raise UserError(f"{self.name} has no video stream")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        start = self._container.start_time
        self._start_s = None if start is None else start / av.time_base

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()

    def images(self, every: float) -> Iterator[TimedImage]:
        """Yield the first image of each `every` seconds, or all; times are those of the file.

        Damaged packets are skipped and counted.

        Raises:
            UserError: no frame can be decoded.
        """
        due, number = -inf, -1
        for number, frame in enumerate(self._decoded()):
            time_s = frame.time
            if time_s is None:  # a raw stream holds no times
                time_s = number / float(self._stream.average_rate or 25)
            if self._start_s is None:
                self._start_s = time_s
            time_s = round(time_s - self._start_s, 6)
            if time_s >= due:
                due = _next(time_s, every)
                yield time_s, _upright(frame)
        if number < 0:
            raise UserError(f"{self.name} cannot be read as a film: no frame can be decoded")

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._errors:
                self.damaged += 1
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except self._errors:
                self.damaged += 1
                continue
            yield from frames


class Camera:
    """The frames of a camera, timed from the first."""

    damaged = 0

    def __init__(self, number: int) -> None:
        """Open a camera; 0 is the first.

        Raises:
            ModuleNotFoundError: the extra `faces` is not installed.
            UserError: the camera cannot be opened.
        """
        with extras.named():
            import cv2  # images are read without it

        level = cv2.utils.logging.setLogLevel(0)  # it would print a line for each kind of camera that it tries
        self.name = f"camera {number}"
        self._camera = cv2.VideoCapture(number)
        cv2.utils.logging.setLogLevel(level)
        self._camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest image, not one of some seconds ago
        if not self._camera.isOpened():
            raise UserError(f"{self.name} cannot be opened: no camera is connected, or another program uses it")

    def close(self) -> None:
        """Leave the camera to other programs."""
        self._camera.release()

    def images(self, every: float) -> Iterator[TimedImage]:
        """Yield the first image of each `every` seconds, or all.

        Raises:
            UserError: the camera sends no more images.
        """
        due, start = -inf, inf
        while True:
            ready, pixels = self._camera.read()
            if not ready:
                raise UserError(f"{self.name} sends no images: it was unplugged, or another program uses it")
            start = min(start, monotonic())
            time_s = monotonic() - start
            if time_s >= due:
                due = _next(time_s, every)
                yield time_s, Image.fromarray(pixels[..., ::-1])


def read(
    source: int | str | PathLike[str],
    detect: Detect,
    every: float | None = None,
    smooth: float = 0,
    images: bool = False,
    warn: Callable[[str], None] = warnings.warn,
    chunk: int = CHUNK,
) -> Iterator[Frame]:
    """Return an iterator of the frames of a film or a camera; `Reader.video` explains it.

    Args:
        source: the path of a film, or the number of a camera.
        detect: returns the faces of each image.
        every, smooth, images: see `Reader.video`.
        warn: takes a line about damaged parts, after the last frame.
        chunk: the frames of a film whose faces are predicted together; a camera's are predicted one by one.
    """
    for name, seconds in (("every", every or 0.0), ("smooth", smooth)):
        if not (isfinite(seconds) and seconds >= 0):
            raise ValueError(f"{name}={seconds} must be a number of seconds, 0 or more")
    if not isinstance(source, int | str | PathLike) or isinstance(source, bool):
        raise TypeError(f"a film of type {type(source).__name__}: give a path, or the number of a camera")
    opened = Camera(source) if isinstance(source, int) else Film(source)
    timed = opened.images(every or 0.0)
    frames = _frames(timed, detect, Tracker(smooth), images, 1 if isinstance(opened, Camera) else chunk)
    return _closing(opened, frames, warn)


def _closing(opened: Film | Camera, frames: Iterator[Frame], warn: Callable[[str], None]) -> Iterator[Frame]:
    with closing(opened):
        yield from frames
    if opened.damaged:
        warn(f"{opened.name}: {counted(opened.damaged, 'damaged packet')} skipped")


def _frames(timed: Iterator[TimedImage], detect: Detect, tracker: Tracker, images: bool, size: int) -> Iterator[Frame]:
    while chunk := list(islice(timed, size)):
        faces = detect([image for _, image in chunk])
        for (time_s, image), seen in zip(chunk, faces, strict=True):
            yield Frame(time_s, tracker.update(time_s, seen), image if images else None)
        del chunk, image  # before the next chunk is decoded


def _next(time_s: float, every: float) -> float:
    """The time at which the next image is due, a microsecond early, since times are rounded."""
    return every * (floor(time_s / every + 1e-6) + 1) - 1e-6 if every else -inf


def _upright(frame: Any) -> Image.Image:
    """The image of a frame as a player shows it: phones store a film lying, and the turn next to it."""
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    image = frame.to_image()
    turn = turns.get(round(frame.rotation) % 360)  # anticlockwise, as Pillow counts
    return image if turn is None else image.transpose(turn)


def _metadata_options(version: str) -> dict[str, Any]:
    """The option of `av.open` by which a film's title in another encoding is no error; PyAV 19 does without it."""
    return {"metadata_errors": "replace"} if int(version.split(".")[0]) < 19 else {}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)
