"""The file label.csv of a data folder: the name, the box and the votes of each image."""

import ast
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.core.errors import UserError, one_line
from fer_jax.data import labels

MOST_VOTES = 1_000_000  # for a class of an image; sums stay exact
REMEDY = "generate the folder again"
_CHUNK = 10_000  # rows that are read at a time; bounds the memory of their text

Box = tuple[int, int, int, int]  # left, top, right, bottom


class Rows(NamedTuple):
    """The content of label.csv."""

    names: np.ndarray  # str[N]
    boxes: list[Box]
    votes: np.ndarray  # i32[N, 10]


def read(folder: Path) -> Rows:
    """Return the content of the label.csv of a folder.

    Raises:
        UserError: it is not as the generator writes it, or names no image.
    """
    import pandas as pd  # only where there is no cache yet: it takes half a second

    csv = folder / "label.csv"
    parts: list[Rows] = []
    try:
        with pd.read_csv(csv, header=None, dtype=str, keep_default_na=False, chunksize=_CHUNK) as tables:
            for table in tables:
                parts.append(_parse_rows(csv, table, len(parts) * _CHUNK))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{csv}: {one_line(error, 100)}; {REMEDY}") from None
    names = np.concatenate([part.names for part in parts])
    _check_names(folder, names)
    return Rows(names, [box for part in parts for box in part.boxes], np.concatenate([part.votes for part in parts]))


def _parse_rows(csv: Path, table: Any, start: int) -> Rows:
    """The content of a part of label.csv, a DataFrame of text; `start` rows are before it."""
    columns = 2 + len(labels.VOTES)
    if table.shape[1] != columns:
        raise UserError(f"{csv}: {table.shape[1]} columns instead of {columns} (name, box, ten votes); {REMEDY}")
    boxes: dict[str, Box] = {}
    for row, text in enumerate(table[1], start=start + 1):
        if text not in boxes:
            boxes[text] = _parse_box(text, f"{csv}, row {row}")
    try:
        votes = table.iloc[:, 2:].to_numpy(str).astype(np.int32)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{csv}: a vote is not a whole number ({one_line(error, 100)}); {REMEDY}") from None
    for wrong, problem in ((votes < 0, "negative"), (votes > MOST_VOTES, f"above {MOST_VOTES:,}")):
        if wrong.any():
            row = start + wrong.any(axis=1).argmax() + 1
            raise UserError(f"{csv}, row {row}: a vote is {problem}; {REMEDY}")
    return Rows(table[0].to_numpy(str), [boxes[text] for text in table[1]], votes)


def _check_names(folder: Path, names: np.ndarray) -> None:
    """Raise UserError if no image exists, or if a relative name leads out of the folder.

    The folds of fer_jax.curation.suspects name images of another data folder by absolute paths.
    """
    elsewhere = [os.path.isabs(name) for name in names]
    if not any(elsewhere) and not set(os.listdir(folder)).intersection(names):
        raise UserError(
            f"{folder} has a label.csv without images, as in a clone of FERPlus: run 'fer-jax generate' with both CSV "
            "files, and -d for a new folder; then give that one"
        )
    for row, name in enumerate(names, start=1):
        if name != os.path.basename(name) and not elsewhere[row - 1]:  # a change of its file would not be noticed
            raise UserError(f"{folder / 'label.csv'}, row {row}: {one_line(name, 60)} is a path, not a name; {REMEDY}")


def _parse_box(text: str, place: str) -> Box:
    try:
        box = left, top, right, bottom = ast.literal_eval(text)
        if any(type(edge) is not int for edge in box) or not (0 <= left < right and 0 <= top < bottom):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise UserError(
            f"{place}: the box {one_line(repr(text), 60)} is not '(left, top, right, bottom)'; {REMEDY}"
        ) from None
    return left, top, right, bottom
