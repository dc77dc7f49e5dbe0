"""The outputs of a prediction: tables, annotated copies, timelines and a sheet of the faces."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fer_jax.core import atomic
from fer_jax.core.text import counted, printable
from fer_jax.data.folders import SIDE
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import crop, film_writer, records
from fer_jax.faces.draw import draw
from fer_jax.faces.face import Face
from fer_jax.faces.inputs import InputFile
from fer_jax.faces.limits import LIMITS
from fer_jax.faces.timeline import Timeline, clock
from fer_jax.reporting import document
from fer_jax.reporting.document import Table

SHEET = 48  # faces on the sheet at most
ROWS = 40  # rows of the table on the terminal at most
FILM_ROWS = 5  # faces of a film on the terminal at most
LEGIBLE = 240  # pixels: smaller cut-out faces are enlarged before they are annotated


class Outputs(NamedTuple):
    """The files that a command writes; None for those it does not."""

    csv: Path | None = None
    json: Path | None = None
    annotate: Path | None = None  # a folder
    timeline: Path | None = None
    sheet: Path | None = None


class Seen(NamedTuple):
    """The faces in an image, or in a frame of a film."""

    file: InputFile
    image: Image.Image
    faces: list[Face]
    time_s: float | None
    cropped: bool  # the image is a cut-out face


class Writers:
    """The open outputs of a command, and what it prints at the end."""

    def __init__(self, outputs: Outputs, copies: dict[Path, Path], title: str) -> None:
        self.stack = ExitStack()
        self.count = 0  # files
        self._outputs, self._copies, self._title = outputs, copies, title
        self._records = []
        if outputs.sheet or outputs.timeline:
            import matplotlib  # noqa: F401  # an extra: an error comes before the work
        if outputs.csv:
            self._records.append(self.stack.enter_context(records.csv_file(outputs.csv)))
        if outputs.json:
            self._records.append(self.stack.enter_context(records.json_file(outputs.json)))
        self._file: InputFile | None = None
        self._film = self.stack.enter_context(ExitStack())  # of the film that is read: its annotated copy
        self._add_frame: Callable[[float, Image.Image], None] | None = None
        self._timeline: Timeline | None = None
        self._rows: list[list[str]] = []
        self._more_rows = self._faces = self._annotated = 0
        self._plots: list[Path] = []
        self._on_sheet: list[tuple[np.ndarray, Face, str]] = []
        self._found_on_sheet = False

    def add(self, seen: Seen) -> None:
        """Write the faces of an image or frame."""
        if seen.file is not self._file:
            self._end_film()
            self._file = seen.file
            self.count += 1
            if seen.time_s is not None:
                self._timeline = Timeline()
        for add in self._records:
            add(seen.file.path, seen.time_s, seen.faces)
        if self._outputs.sheet and len(self._on_sheet) < SHEET:
            self._add_to_sheet(seen)
        if self._copies:
            self._annotate(seen)
        self._faces += len(seen.faces)
        if self._timeline is not None and seen.time_s is not None:
            self._timeline.add(seen.time_s, seen.faces)
        else:
            self._add_rows(seen)

    def finish(self) -> None:
        """Write what is written after the last file; the other files are complete once `stack` is left."""
        self._end_film()
        if self._outputs.sheet:
            # detection always averages two views, cut-out faces have two with --flip only
            views = "; found faces averaged with their mirror images" if self._found_on_sheet else ""
            _draw_sheet(self._on_sheet, self._title + views, self._outputs.sheet)

    def lines(self) -> Iterator[str]:
        """The table of the first rows, the limits, and the names of the outputs."""
        yield _table(self._rows)
        if self._more_rows:
            whole = self._outputs.csv or self._outputs.json
            yield f"... and {counted(self._more_rows, 'more row')}{'' if whole else '; --csv writes all to a file'}"
        yield from LIMITS if self._faces else ["no face was found (cut-out faces are read with --faces cropped)"]
        for name, file in (("table", self._outputs.csv), ("records", self._outputs.json)):
            if file:
                yield f"{name}: {printable(file)}"
        if self._outputs.annotate:
            yield f"annotated: {printable(self._outputs.annotate)}, {counted(self._annotated, 'file')}"
        yield from (f"timeline: {printable(plot)}" for plot in self._plots)
        if self._outputs.timeline and not self._plots:
            yield "timeline: none, since no film was read"
        if self._outputs.sheet:
            yield f"sheet: {printable(self._outputs.sheet)}, {len(self._on_sheet)} of {counted(self._faces, 'face')}"

    def _add_rows(self, seen: Seen) -> None:
        name = printable(seen.file.path)
        for number, face in enumerate(seen.faces):
            self._add_row(_row(name, "" if seen.cropped else str(number), np.array([*face.emotions.values()])))
        if not seen.faces:
            self._add_row([name, "none", "", "", "", ""])

    def _add_row(self, row: list[str]) -> None:
        if len(self._rows) < ROWS:
            self._rows.append(row)
        else:
            self._more_rows += 1

    def _annotate(self, seen: Seen) -> None:
        copy = self._copies[seen.file.path]
        if seen.time_s is None:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with atomic.replacing(copy) as partial_file:
                _drawn(seen).save(partial_file, Image.registered_extensions()[copy.suffix.lower()], quality=92)
            self._annotated += 1
            return
        drawn = _drawn(seen)
        if self._add_frame is None:
            copy.parent.mkdir(parents=True, exist_ok=True)
            self._add_frame = self._film.enter_context(film_writer.film_file(copy, drawn.size))
            self._annotated += 1
        self._add_frame(seen.time_s, drawn)

    def _add_to_sheet(self, seen: Seen) -> None:
        name = printable(Path(seen.file.path.name))
        if seen.time_s is not None:
            name = f"{name} {clock(seen.time_s)}"
        self._found_on_sheet |= bool(seen.faces) and not seen.cropped
        for number, face in enumerate(seen.faces[: SHEET - len(self._on_sheet)]):
            pixels = crop.grey_square(seen.image) if seen.cropped else crop.cut(seen.image, face.box)
            self._on_sheet.append((pixels, face, name if len(seen.faces) == 1 else f"{name} face {number}"))

    def _end_film(self) -> None:
        """Close the annotated film, draw the timeline and add the rows of the film that was read, if it was one."""
        self._film.close()
        self._add_frame = None
        timeline, self._timeline = self._timeline, None
        if timeline is None or self._file is None:
            return
        name = printable(self._file.path)
        tracks = timeline.tracks()
        for number, times, probabilities in tracks[:FILM_ROWS]:
            span = f"{number}, {clock(times[0])} to {clock(times[-1])}"
            self._add_row(_row(name, span, probabilities.mean(axis=0)))
        if len(tracks) > FILM_ROWS:
            self._add_row([name, f"{len(tracks) - FILM_ROWS} more", "", "", "", ""])
        if not tracks:
            self._add_row([name, "none", "", "", "", ""])
        if self._outputs.timeline:
            path = timeline_file(self._outputs.timeline, len(self._plots))
            self._plots.append(_draw_timeline(timeline, self._file.path, path))


def _drawn(seen: Seen) -> Image.Image:
    """The annotated image; a small cut-out face is enlarged."""
    factor = -(-LEGIBLE // min(seen.image.size)) if seen.cropped else 1
    if factor == 1:
        return draw(seen.image, seen.faces)
    faces = []
    for face in seen.faces:
        x, y, width, height = (factor * side for side in face.box)
        faces.append(face._replace(box=(x, y, width, height)))
    size = seen.image.width * factor, seen.image.height * factor
    return draw(seen.image.resize(size, Image.Resampling.BICUBIC), faces)


def _row(name: str, face: str, probabilities: np.ndarray) -> list[str]:
    first, second = np.argsort(-probabilities)[:2]
    likeliest = EMOTIONS[first], f"{probabilities[first]:.1%}"
    return [name, face, *likeliest, EMOTIONS[second], f"{probabilities[second]:.1%}"]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as text of the terminal's width; a long file name loses its start."""
    header = ["image", "face", "likeliest", "", "then", ""]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    limit = document.TERMINAL - sum(2 + width for width in widths[1:])
    short = [[name if len(name) <= limit else f"...{name[3 - limit :]}", *cells] for name, *cells in rows]
    return document.to_text(Table(header, short))


def timeline_file(file: Path, number: int) -> Path:
    """Return the file for the timeline of a film, the number of which counts from 0: the second has -2 in its name."""
    return file.with_stem(f"{file.stem}-{number + 1}") if number else file


def _draw_timeline(timeline: Timeline, film: Path, path: Path) -> Path:
    """Draw the timeline of a film to a file."""
    from fer_jax.faces import timeline_plot  # matplotlib is an extra
    from fer_jax.reporting import plots

    drawn = plots.png(timeline_plot.plot(timeline, printable(Path(film.name))))
    with atomic.replacing(path) as partial_file:
        partial_file.write_bytes(drawn)
    return path


def _draw_sheet(shown: Sequence[tuple[np.ndarray, Face, str]], title: str, file: Path) -> None:
    """Draw the first faces as the networks see them, with their probabilities."""
    from fer_jax.faces.timeline_plot import drawable  # matplotlib is an extra
    from fer_jax.reporting import galleries, plots

    pixels = np.array([pixels for pixels, _, _ in shown]).reshape(-1, SIDE, SIDE)
    probabilities = np.array([[*face.emotions.values()] for _, face, _ in shown]).reshape(-1, len(EMOTIONS))
    names = [drawable(name) for _, _, name in shown]
    figure = galleries.predictions(pixels, probabilities, names, drawable(title), LIMITS)
    drawn = plots.png(figure)
    with atomic.replacing(file) as partial_file:
        partial_file.write_bytes(drawn)
