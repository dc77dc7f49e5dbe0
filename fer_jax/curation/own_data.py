"""The import of images with emotions: read, split by person and photograph, written as a data folder."""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_generator import all_or_nothing, png
from fer_jax.core import atomic
from fer_jax.core.errors import UserError
from fer_jax.core.text import printable
from fer_jax.curation import groups, listing
from fer_jax.curation.listing import Entry, LeftOut
from fer_jax.data import images as images_lib
from fer_jax.data.folders import FOLDERS, SIDE
from fer_jax.data.labels import EMOTIONS, VOTES
from fer_jax.faces import crop

ANNOTATORS = 10  # votes of each image, all for its emotion
RECORD = "imported.json"  # in each split folder: it was made here, and may be replaced
SOURCES = "sources.csv"  # in each split folder: the file of the user behind each image
LEFT_OUT = "left_out.csv"  # in the training folder
LARGER = 2.0  # a face counts as the only one of a photograph if it is this many times larger than the next


class Faces(NamedTuple):
    """The faces of the images that could be read."""

    entries: list[Entry]
    pixels: np.ndarray  # u8[N, 48, 48]


class Imported(NamedTuple):
    """The result of an import."""

    counts: dict[str, list[int]]  # split -> images by emotion
    left_out: list[LeftOut]
    unreadable: list[LeftOut]


def import_data(
    source: Path,
    out: Path,
    *,
    find_faces: bool = False,
    person: str | None = None,
    valid: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
) -> Imported:
    """Write the data folder of a user's images, all of it or nothing. An earlier import in `out` is replaced.

    The same input gives the same folder. No person and no photograph is in two splits. Of images with the same pixels
    the first is kept; all are left out if their emotions differ.

    Args:
        source, person: see `listing.read`.
        out: the data folder.
        find_faces: find the face in each photograph, instead of taking its middle square for one.
        valid, test: the fractions of the images for validation and test.
        seed: fixes the split.

    Raises:
        ModuleNotFoundError: faces are to be found, and the extra `faces` is not installed.
        UserError: the input has no image that can be used, too few for a split, or `out` has another origin.
    """
    _refuse_foreign(out)  # before the work
    entries, left_out = listing.read(source, person)
    faces, unreadable, without_face = _read(entries, face_in_photograph if find_faces else crop.grey_square)
    faces, duplicates = _without_copies(faces)
    left_out += without_face + duplicates
    if not faces.entries:
        first = (unreadable + left_out + [LeftOut(printable(source), "no image in it")])[0]
        raise UserError(f"no image of {printable(source)} can be used; the first: {first.name}: {first.reason}")
    classes = np.array([entry.emotion for entry in faces.entries])
    group = groups.find(faces.pixels, [entry.person for entry in faces.entries])
    part = groups.divide(group, classes, [1 - valid - test, valid, test], seed)
    splits = {name: np.flatnonzero(part == index) for index, name in enumerate(FOLDERS)}
    for name, fraction in (("train", 1.0), ("valid", valid), ("test", test)):
        if fraction and not len(splits[name]):
            count = group.max() + 1
            raise UserError(
                f"no image is left for {name}: too few different persons and photographs ({count}); give more images"
            )
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    _write(out, faces, splits, unreadable + left_out)
    counts = {name: np.bincount(classes[rows], minlength=len(EMOTIONS)).tolist() for name, rows in splits.items()}
    return Imported(counts, left_out, unreadable)


class NotOneFaceError(Exception):
    """A photograph has no face, or several."""


def face_in_photograph(image: Image.Image) -> np.ndarray:
    """Return the face in a photograph of one person: u8[48, 48]. Far smaller faces do not count.

    Raises:
        NotOneFaceError: no face, or several.
    """
    from fer_jax.faces import detect  # an extra: cut-out faces do without it

    boxes = sorted((face.box for face in detect.find_faces(image)), key=lambda box: -max(box[2:]))
    if not boxes:
        raise NotOneFaceError("without a face")
    large = [box for box in boxes if LARGER * max(box[2:]) > max(boxes[0][2:])]
    if len(large) > 1:
        raise NotOneFaceError("with several faces")
    return crop.cut(image, boxes[0])


def _read(
    entries: Sequence[Entry], face: Callable[[Image.Image], np.ndarray]
) -> tuple[Faces, list[LeftOut], list[LeftOut]]:
    """The faces, the files that cannot be read, and the photographs without one face."""
    read, pixels, unreadable, without_face = [], [], [], []
    for entry in tqdm(entries, "reading images", unit="img", leave=False, disable=None):
        try:
            pixels.append(face(images_lib.read(entry.path)))
            read.append(entry)
        except UserError as error:
            name = printable(entry.path)
            unreadable.append(LeftOut(name, str(error).removeprefix(f"{name} cannot be read as an image: ")))
        except NotOneFaceError as error:
            without_face.append(LeftOut(printable(entry.path), str(error)))
    return Faces(read, np.array(pixels, np.uint8).reshape(-1, SIDE, SIDE)), unreadable, without_face


def _without_copies(faces: Faces) -> tuple[Faces, list[LeftOut]]:
    """The first of the images with the same pixels; none of them if their emotions differ."""
    copies: dict[bytes, list[int]] = {}
    for row, image in enumerate(faces.pixels):
        copies.setdefault(image.tobytes(), []).append(row)
    keep, left_out = np.ones(len(faces.entries), bool), []
    for rows in copies.values():
        first = faces.entries[rows[0]]
        emotions = list(dict.fromkeys(EMOTIONS[faces.entries[row].emotion] for row in rows))
        for row in rows if len(emotions) > 1 else rows[1:]:
            keep[row] = False
            same = LeftOut(
                printable(faces.entries[row].path), "the same pixels as another image", printable(first.path)
            )
            if len(emotions) > 1:
                same = same._replace(reason="the same pixels with several emotions", detail=" and ".join(emotions))
            left_out.append(same)
    kept = [entry for entry, use in zip(faces.entries, keep, strict=True) if use]
    return Faces(kept, faces.pixels[keep]), left_out


def _refuse_foreign(out: Path) -> None:
    """Raise UserError if `out` has a split folder that no import made."""
    for name in FOLDERS.values():
        folder = out / name
        if folder.exists() and not (folder / RECORD).exists() and not (folder.is_dir() and not os.listdir(folder)):
            raise UserError(
                f"{folder} was not made by an import (it has no {RECORD}) and is left unchanged; move it away or "
                "choose another --out"
            )


def _write(out: Path, faces: Faces, splits: dict[str, np.ndarray], left_out: Sequence[LeftOut]) -> None:
    try:
        with atomic.writing(out), all_or_nothing.staging_folder(out) as staging:
            _refuse_foreign(out)
            number = 0
            for split, rows in splits.items():
                folder = staging / FOLDERS[split]
                folder.mkdir(parents=True)
                _write_split(folder, faces, rows, number)
                number += len(rows)
            table = _csv([["file", "reason", "detail"], *left_out])
            (staging / FOLDERS["train"] / LEFT_OUT).write_bytes(table)
            _publish(staging, out)
    except all_or_nothing.UserError as error:  # another process writes to this folder
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"cannot write {error.filename or out}: {error.strerror}; choose another --out") from None


def _write_split(folder: Path, faces: Faces, rows: np.ndarray, number: int) -> None:
    """Write the images of a split, named by their numbers from `number` on, with votes and sources."""
    names = [f"fer{number + i:07d}.png" for i in range(len(rows))]
    entries = [faces.entries[row] for row in rows]
    for name, content in zip(names, png.encode(faces.pixels[rows]), strict=True):
        (folder / name).write_bytes(content)
    votes = np.zeros((len(rows), len(VOTES)), int)
    votes[np.arange(len(rows)), [entry.emotion for entry in entries]] = ANNOTATORS
    box = f"(0, 0, {SIDE}, {SIDE})"
    lines = [[name, box, *counts] for name, counts in zip(names, votes.tolist(), strict=True)]
    (folder / "label.csv").write_bytes(_csv(lines))
    sources = [[name, printable(entry.path), entry.person] for name, entry in zip(names, entries, strict=True)]
    (folder / SOURCES).write_bytes(_csv([["name", "file", "person"], *sources]))
    (folder / RECORD).write_text(json.dumps({"images": len(rows)}))


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="replace")


def _publish(staging: Path, out: Path) -> None:
    """Replace the split folders of an earlier import. The training folder goes first and comes last."""
    replaced = staging / "replaced"
    replaced.mkdir()
    for name in FOLDERS.values():
        if (out / name).exists():
            os.rename(out / name, replaced / name)
    for name in reversed(FOLDERS.values()):
        if (staging / name).exists():
            os.rename(staging / name, out / name)
