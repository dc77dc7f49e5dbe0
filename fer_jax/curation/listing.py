"""The images of a user with their emotions, from one folder per emotion or from a CSV."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from fer_jax.core.errors import UserError, one_line
from fer_jax.core.text import printable
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import crop

SYNONYMS = {
    "neutral": ("neutrality", "calm", "normal", "none", "no emotion", "no expression"),
    "happiness": ("happy", "joy", "joyful", "smile", "smiling"),
    "surprise": ("surprised", "suprise", "surprize"),
    "sadness": ("sad", "unhappy", "sorrow"),
    "anger": ("angry", "mad"),
    "disgust": ("disgusted", "disgusting"),
    "fear": ("fearful", "afraid", "scared", "frightened"),
    "contempt": ("contemptuous", "contemptful", "scorn"),
}
_CLASSES = {
    name: index for index, emotion in enumerate(EMOTIONS) for name in (emotion, *SYNONYMS[emotion])
}  # from a name to its column in EMOTIONS
_FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
_EMOTION_COLUMNS = ("emotion", "label", "class", "expression")
_PERSON = "person"
FOLDER = "folder"  # the value of --person for a folder of folders


class Entry(NamedTuple):
    """An image of the user."""

    path: Path
    emotion: int  # in labels.EMOTIONS
    person: str  # "" where unknown


class LeftOut(NamedTuple):
    """An image, or a row of the CSV, that is not imported."""

    name: str
    reason: str  # the same for all such images
    detail: str = ""


def emotion_index(name: str) -> int | None:
    """Return the column in EMOTIONS of an emotion's name or synonym, for example "Happy" or "3_angry"; else None."""
    return _CLASSES.get(re.sub(r"[\W\d_]+", " ", name.lower()).strip())


def read(source: Path, person: str | None) -> tuple[list[Entry], list[LeftOut]]:
    """Return the images of a folder of folders, or of a CSV, in a fixed order.

    Args:
        source: a folder with one folder per emotion, or a CSV with a header and the columns file and emotion. Paths in
            a CSV start from its folder.
        person: the column of the CSV that names the person; None for the column "person", if there is one. For a
            folder, "folder" where each emotion has a folder for each person; None if persons are unknown.

    Raises:
        UserError: the source does not exist, or has no emotion in it.
    """
    if source.is_dir():
        if person not in (None, FOLDER):
            raise UserError(f"--person {person}: {source} is a folder; give --person {FOLDER}, or a CSV")
        return _of_folder(source, person is not None)
    if not source.is_file():
        raise UserError(f"no folder or CSV {printable(source)}")
    return _of_csv(source, person)


def _of_folder(source: Path, with_persons: bool) -> tuple[list[Entry], list[LeftOut]]:
    entries, left_out = [], []
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not any(emotion_index(folder.name) is not None for folder in folders):
        names = ", ".join(printable(Path(folder.name)) for folder in folders) or "none"
        raise UserError(
            f"{printable(source)} has no folder named after an emotion, for example happy (its folders: "
            f"{one_line(names, 100)})"
        )
    for folder in folders:
        emotion = emotion_index(folder.name)
        if emotion is None:
            left_out.append(LeftOut(printable(folder), "a folder not named after an emotion"))
            continue
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).parts
            if path.is_dir() or any(part.startswith(".") for part in inside):
                continue
            if crop.is_image(path):
                entries.append(Entry(path, emotion, inside[0] if with_persons and len(inside) > 1 else ""))
            else:
                left_out.append(LeftOut(printable(path), "not named as an image"))
    return entries, left_out


def _of_csv(source: Path, person: str | None) -> tuple[list[Entry], list[LeftOut]]:
    entries: dict[Path, Entry] = {}
    left_out = []
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            rows = csv.DictReader(file, delimiter=max(",;\t", key=first.count))
            header = [name.strip().lower() for name in rows.fieldnames or ()]
            rows.fieldnames = header
            file_column = _column(source, header, _FILE_COLUMNS)
            emotion_column = _column(source, header, _EMOTION_COLUMNS)
            person_column = _column(source, header, (person.strip().lower(),)) if person else _PERSON
            for row in rows:
                name, emotion = (row[file_column] or "").strip(), (row[emotion_column] or "").strip()
                index = emotion_index(emotion)
                path = source.parent / name
                if not name:
                    left_out.append(LeftOut(f"{printable(source)}, line {rows.line_num}", "no file name"))
                elif index is None:
                    left_out.append(LeftOut(printable(path), "not an emotion", one_line(emotion, 40)))
                elif path in entries:
                    left_out.append(LeftOut(printable(path), "on an earlier row too"))
                else:
                    entries[path] = Entry(path, index, (row.get(person_column) or "").strip())
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{printable(source)} cannot be read as a CSV: {one_line(error, 100)}") from None
    if not entries:
        raise UserError(f"{printable(source)} has no row with a file and an emotion, for example face.png,happy")
    return list(entries.values()), left_out


def _column(source: Path, header: list[str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in header:
            return name
    raise UserError(
        f"{printable(source)} has no column {names[0]}: its first line must name the columns, for example "
        f"file,emotion (it is {one_line(','.join(header), 60)!r})"
    )
