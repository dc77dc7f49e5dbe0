"""Predictions for the faces in images and films, file by file."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from fer_jax.core.errors import UserError, shortened
from fer_jax.core.text import counted, printable
from fer_jax.data import images
from fer_jax.data.folders import SIDE
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import inputs, video
from fer_jax.faces.face import Face
from fer_jax.faces.inputs import InputFile
from fer_jax.faces.reader import Reader
from fer_jax.faces.timeline import clock
from fer_jax.faces.writers import Outputs, Seen, Writers, timeline_file

PIXELS = 16_000_000  # of images in memory at once, and one image more
GROUP = 256  # images that are predicted together at most


class Settings(NamedTuple):
    """The options of a prediction."""

    cropped: bool = False  # every image is a cut-out face
    recursive: bool = False
    every: float = 0.2  # seconds between frames of a film
    smooth: float = 0.0
    prior: float = 0.0
    title: str = ""  # of the sheet: names the networks


def predict_files(paths: Sequence[Path], reader: Reader, settings: Settings, outputs: Outputs) -> int:
    """Predict the faces in images and films, write the outputs, print a table, and return the exit status.

    Files that cannot be read are named on stderr and skipped; the status is 1 then. Ctrl-C, SIGTERM and a closed
    terminal, which `cli.status` turns into an exception, keep what is done.

    Args:
        paths: image files and films, or folders of them.
        reader: the networks.
        settings: options.
        outputs: the files to write.

    Raises:
        KeyboardInterrupt: after the outputs are written.
        UserError: nothing could be read, or a copy or timeline would replace a file that is read or another output.
    """
    given = inputs.find(paths, settings.recursive)
    if len(paths) == 1 and not given.files:
        raise UserError(given.problems[0])
    copies = _copies(given.files, outputs.annotate) if outputs.annotate else {}
    _check_written(given.files, copies, outputs)
    problems: list[str] = []

    def skip(problem: str) -> None:
        problems.append(problem)
        if len(given.files) > 1 or len(paths) > 1:
            _note(f"problem: {shortened(problem)}")

    for problem in given.problems:
        skip(problem)
    stopped: KeyboardInterrupt | None = None
    writers = Writers(outputs, copies, settings.title)
    with writers.stack:
        try:
            for seen in _predictions(given.files, reader, settings, skip):
                writers.add(seen)
        except KeyboardInterrupt as error:
            stopped = error
        if not writers.count:
            raise stopped or _nothing(problems)
        writers.finish()
    for line in writers.lines():
        print(line)
    if given.ignored:
        names = ", ".join(printable(Path(path.name)) for path in given.ignored[:3])
        more = ", ..." * (len(given.ignored) > 3)
        _note(f"{counted(len(given.ignored), 'file')} ignored, without the ending of an image or a film: {names}{more}")
    if stopped:
        _note(f"stopped after {writers.count} of {counted(len(given.files), 'file')}; the outputs hold these")
        raise stopped
    if problems:
        _note(f"{counted(len(problems), 'problem')}, named above; all else was read")
    return 1 if problems else 0


def _nothing(problems: Sequence[str]) -> UserError:
    return UserError(problems[0] if len(problems) == 1 else "none of the files could be read")


def _predictions(
    files: Sequence[InputFile], reader: Reader, settings: Settings, skip: Callable[[str], None]
) -> Iterator[Seen]:
    """The faces of each file, in order; `skip` takes a line for each that cannot be read."""
    group: list[tuple[InputFile, Image.Image]] = []
    pixels = 0
    bar = tqdm(files, desc="predicting", unit="file", leave=False, disable=None, delay=1)
    with bar:
        for file in bar:
            if file.is_film:
                yield from _of_images(group, reader, settings)
                group, pixels = [], 0
                yield from _of_film(file, reader, settings, skip)
                continue
            try:
                image = images.read(file.path)
            except UserError as error:
                skip(str(error))
                continue
            group.append((file, image))
            pixels += image.width * image.height
            if pixels >= PIXELS or len(group) == GROUP:
                yield from _of_images(group, reader, settings)
                group, pixels = [], 0
        yield from _of_images(group, reader, settings)


def _of_images(group: Sequence[tuple[InputFile, Image.Image]], reader: Reader, settings: Settings) -> Iterator[Seen]:
    """The faces of some images. An image of 48x48 pixels is a cut-out face."""
    cropped = [settings.cropped or image.size == (SIDE, SIDE) for _, image in group]
    faces = iter(_cropped([image for (_, image), cut in zip(group, cropped, strict=True) if cut], reader, settings))
    photographs = [image for (_, image), cut in zip(group, cropped, strict=True) if not cut]
    detected = iter(reader.detect(photographs, prior=settings.prior))
    for (file, image), cut in zip(group, cropped, strict=True):
        yield Seen(file, image, next(faces if cut else detected), None, cut)


def _of_film(file: InputFile, reader: Reader, settings: Settings, skip: Callable[[str], None]) -> Iterator[Seen]:
    """The faces of the frames of a film."""
    detect = (
        partial(_cropped, reader=reader, settings=settings)
        if settings.cropped
        else partial(reader.detect, prior=settings.prior)
    )
    bar = tqdm(desc=printable(Path(file.path.name))[-30:], unit=" frames", leave=False, disable=None, delay=1)
    try:
        with bar:
            for frame in video.read(file.path, detect, settings.every, settings.smooth, True, skip):
                bar.set_postfix_str(clock(frame.time_s), refresh=False)
                bar.update()
                yield Seen(file, frame.image, frame.faces, frame.time_s, settings.cropped)  # type: ignore[arg-type]
    except UserError as error:
        skip(str(error))


def _cropped(crops: Sequence[Image.Image], reader: Reader, settings: Settings) -> list[list[Face]]:
    """The face of each image of a cut-out face: its middle square."""
    rows = reader.predict([*crops], prior=settings.prior).tolist()
    faces = []
    for image, row in zip(crops, rows, strict=True):
        side = min(image.size)
        box = (image.width - side) // 2, (image.height - side) // 2, side, side
        faces.append([Face(box, dict(zip(EMOTIONS, row, strict=True)), None)])
    return faces


def _copies(files: Sequence[InputFile], folder: Path) -> dict[Path, Path]:
    """The annotated copy of each file: JPEG for JPEG, MP4 for films, else PNG.

    Raises:
        UserError: a copy would lie next to a file that is read.
    """
    copies: dict[Path, Path] = {}
    taken: set[Path] = set()
    sources = {file.path.parent.resolve() for file in files}
    for path, place in dict(files).items():
        is_film = InputFile(path, place).is_film
        suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg") else ".mp4" if is_film else ".png"
        copy = folder / place.with_suffix(suffix)
        number = 1
        while copy in taken:
            number += 1
            copy = folder / place.with_name(f"{place.stem}-{number}{suffix}")
        if copy.parent.resolve() in sources:
            raise UserError(f"--annotate {printable(folder)} is a folder of the images: name another")
        taken.add(copy)
        copies[path] = copy
    return copies


def _check_written(files: Sequence[InputFile], copies: dict[Path, Path], outputs: Outputs) -> None:
    """Raise UserError if a copy, or the timeline of a second film, would replace an input or another output."""
    named = (outputs.csv, outputs.json, outputs.timeline, outputs.sheet)
    taken = {path.resolve() for path in [*(file.path for file in files), *filter(None, named)]}
    films = sum(file.is_film for file in files)
    timelines = [timeline_file(outputs.timeline, i) for i in range(1, films)] if outputs.timeline else []
    for path in [*copies.values(), *timelines]:
        if path.resolve() in taken:
            raise UserError(f"{printable(path)} would be replaced: it is an input or another output; name another file")
        taken.add(path.resolve())


def _note(line: str) -> None:
    """Print a line on stderr, above the progress bar."""
    tqdm.write(line, file=sys.stderr)
