"""Faces as rows of a CSV file and as records of a JSON file."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fer_jax.core import atomic
from fer_jax.core.text import printable
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces.face import Face

HEADER = (
    *("file", "time_s", "face", "track", "x", "y", "width", "height", "found", "emotion", "probability"),
    *EMOTIONS,
)
Add = Callable[[Path, float | None, list[Face]], None]  # the file, the time in it, the faces


def rows(file: Path, time_s: float | None, faces: list[Face]) -> Iterator[list[Any]]:
    """Yield a row for each face; the time and the track are empty for an image."""
    time = "" if time_s is None else f"{time_s:.3f}"
    for number, face in enumerate(faces):
        found = "" if face.found is None else f"{face.found:.4f}"
        track = "" if face.track is None else face.track
        probabilities = (f"{value:.6f}" for value in (face.probability, *face.emotions.values()))
        yield [printable(file), time, number, track, *face.box, found, face.emotion, *probabilities]


@contextmanager
def csv_file(path: Path) -> Iterator[Add]:
    """Yield a function that adds the faces of an image or frame to a CSV file; it replaces `path` at the end."""
    with atomic.replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as out_file:
        writer = csv.writer(out_file)
        writer.writerow(HEADER)
        yield lambda *record: writer.writerows(rows(*record))


@contextmanager
def json_file(path: Path) -> Iterator[Add]:
    """Yield a function that adds the faces of an image or frame to a JSON file; it replaces `path` at the end.

    The file is an array with a record on each line, also for an image without a face.
    """
    with atomic.replacing(path) as partial, open(partial, "w", encoding="utf-8") as out_file:
        out_file.write("[")
        yield _record_writer(out_file)
        out_file.write("\n]\n")


def _record_writer(out_file: IO[str]) -> Add:
    separator = "\n"

    def add(file: Path, time_s: float | None, faces: list[Face]) -> None:
        nonlocal separator
        record = {"file": printable(file), "time_s": time_s, "faces": [face.as_dict() for face in faces]}
        out_file.write(separator + json.dumps(record, ensure_ascii=False))
        separator = ",\n"

    return add
