"""Reader of fer2013.csv (pixels) and fer2013new.csv (the FER+ votes), with all checks.

Columns are found by their names, in any order and next to others. A row number is the number of the line in the
file, so the header is row 1.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_generator.console import UserError
from fer_generator.csv_lines import Source, read_lines

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTE_COLUMNS = (*EMOTIONS, "unknown", "NF")  # NF: not a face
FER_HEADER = ("emotion", "pixels", "Usage")
FERPLUS_HEADER = ("Usage", "Image name", *VOTE_COLUMNS)
OPTIONAL = "emotion"  # the only column that may be missing
SPLIT_FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
SIDE = 48  # of an image, in pixels

SOURCE = {
    FER_HEADER: "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    FERPLUS_HEADER: "https://github.com/microsoft/FERPlus",
}
SOURCES = {
    FER_HEADER: Source(("fer2013.csv", "icml_face_data.csv"), SOURCE[FER_HEADER], "in fer2013.tar.gz at"),
    FERPLUS_HEADER: Source(("fer2013new.csv",), SOURCE[FERPLUS_HEADER], "at the top of"),
}


class Row(NamedTuple):
    """A row of fer2013.csv."""

    number: int
    pixels: bytes
    emotion: bytes  # b"" where the file has no such column


class Columns(NamedTuple):
    """The layout of a CSV."""

    separator: str
    width: int  # number of columns
    positions: list[int]  # of the columns of the header that is expected, -1 for one that is missing


class Labels(NamedTuple):
    """The rows of fer2013new.csv, in order."""

    rows: list[int]  # line in the file, the header is 1
    usages: list[str]  # keys of SPLIT_FOLDERS
    names: list[str]  # fer0000000.png, or "" where the row has none
    votes: np.ndarray  # i64[N, 10], counts >= 0 in the order of VOTE_COLUMNS


def read_labels(path: Path) -> Labels:
    """Return all rows of fer2013new.csv.

    Raises:
        UserError: the file is missing or damaged, or a row differs from the FER+ format.
    """
    rows, usages, names, votes = [], [], [], []
    for row, fields in read_rows(path, FERPLUS_HEADER):
        name, counts = _text(fields[1]), [field.strip() for field in fields[2:]]
        if name and not re.fullmatch(r"fer\d{7}\.png", name, re.ASCII):
            problem = f"expected an Image name such as fer0000000.png, or none, found {name!r:.40}"
            raise _row_error(path, row, problem, FERPLUS_HEADER)
        for column, count in zip(VOTE_COLUMNS, counts, strict=True):
            if not (count.isdigit() and len(count) < 10):
                problem = f"expected a vote count for {column}, a whole number from 0 up, found {_text(count)!r:.40}"
                raise _row_error(path, row, problem, FERPLUS_HEADER)
        rows.append(row)
        usages.append(_usage(path, row, fields[0], FERPLUS_HEADER))
        names.append(name)
        votes.append([int(count) for count in counts])
    if not any(names):
        raise UserError(f"{path}: no row has an image name; download the file again from {SOURCE[FERPLUS_HEADER]}")
    return Labels(rows, usages, names, np.array(votes, np.int64))


def read_pixels(path: Path, labels_path: Path, labels: Labels) -> Iterator[Row]:
    """Yield each row of fer2013.csv, checked against `labels`.

    Raises:
        UserError: the file is missing or damaged, or differs from fer2013new.csv in a Usage or the row count.
    """
    remedy = f"use both as downloaded, fer2013.csv from {SOURCE[FER_HEADER]}"
    count = 0
    for row, (emotion, pixels, usage_field) in read_rows(path, FER_HEADER):
        count += 1
        if count > len(labels.usages):
            continue  # only counted, for the message below
        usage = _usage(path, row, usage_field, FER_HEADER)
        label_usage = labels.usages[count - 1]
        if usage != label_usage:
            raise UserError(
                f"{path}: row {row} (the header is row 1) is {usage}, but row {labels.rows[count - 1]} of "
                f"{labels_path} is {label_usage}; {remedy}"
            )
        yield Row(row, pixels.strip(), emotion)
    if count != len(labels.usages):
        raise UserError(
            f"{path} and {labels_path} have {count:,} and {len(labels.usages):,} rows: one is "
            f"cut off or was edited; {remedy}"
        )


def read_rows(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the number and the fields of each row, in the order of `header`; a field is empty without its column.

    Blank lines are counted and skipped.

    Raises:
        UserError: the file is missing, damaged or of another format, or lacks a column.
    """
    lines = read_lines(path, SOURCES[header])
    row, first = next(lines, (1, b""))
    columns = _columns(path, row, first, header)
    for row, line in lines:
        fields = _fields(path, row, line, columns.separator, header)
        if len(fields) != columns.width:
            problem = f"expected {columns.width} columns, found {len(fields)}; the row is cut off or was edited"
            raise _row_error(path, row, problem, header)
        yield row, [fields[position] if position >= 0 else b"" for position in columns.positions]


def _columns(path: Path, row: int, line: bytes, header: tuple[str, ...]) -> Columns:
    """Return the layout of a CSV by its first line.

    Raises:
        UserError: a column is missing or there twice.
    """
    names: list[str] = []
    for separator in (",", ";", "\t"):
        names = [_text(field) for field in _fields(path, row, line, separator, header)]
        missing = {*header} - {*names} - {OPTIONAL}
        if not missing and all(names.count(name) < 2 for name in header):
            return Columns(separator, len(names), [names.index(name) if name in names else -1 for name in header])
    names = [_text(field) for field in _fields(path, row, line, ",", header)]
    raise UserError(f"{path}: {_header_problem(row, names, header)}")


def _header_problem(row: int, names: list[str], header: tuple[str, ...]) -> str:
    """Return the fault of a first line, and the remedy."""
    if {*(FER_HEADER if header == FERPLUS_HEADER else FERPLUS_HEADER)} <= {*names}:
        return "holds " + (
            "the images: give it as -fer" if header == FERPLUS_HEADER else "the votes: give it as -ferplus"
        )
    if header == FER_HEADER and "pixels" in names and "Usage" not in names:
        return f"has no column Usage, like train.csv; take icml_face_data.csv or fer2013.csv from {SOURCE[header]}"
    if header == FERPLUS_HEADER and re.fullmatch(r"fer\d{7}\.png", names[0], re.ASCII):
        return f"row {row}: the label.csv of one split, and not the votes of all images; {SOURCES[header].text}"
    if SPLIT_FOLDERS.keys() & {*names}:
        return f"row {row}: no header; put the line {','.join(header)} above the first row"
    content = f"{','.join(names)!r:.40}" if any(names) else "nothing"
    return f"row {row}: expected the columns {','.join(header)}, found {content}; {SOURCES[header].text}"


def decode_pixels(path: Path, rows: Sequence[int], texts: Sequence[bytes]) -> np.ndarray:
    """Decode N texts of 2304 numbers 0..255, separated by spaces, as images `u8[N, 48, 48]`.

    Raises:
        UserError: a text has another count of numbers, or a value that is not a whole number from 0 to 255.
    """
    values = _decode_block(texts)
    if values is None:
        pairs = zip(rows, texts, strict=True)
        values = np.array([_decode_row(path, row, text) for row, text in pairs], np.uint8)
    return values.reshape(-1, SIDE, SIDE)


def _decode_block(texts: Sequence[bytes]) -> np.ndarray | None:
    """Decode all texts at once as u8[N * 2304]; None unless every text is valid, with single spaces."""
    digits = np.frombuffer(b"   " + b" ".join(texts) + b" ", np.uint8) - np.uint8(ord("0"))  # a space: 240
    ends = np.flatnonzero(digits[3:] == 240)  # of the values
    text_ends = np.cumsum([len(text) + 1 for text in texts]) - 1
    pixels = SIDE * SIDE
    if len(ends) != len(texts) * pixels or not np.array_equal(ends[pixels - 1 :: pixels], text_ends):
        return None
    ones, tens, hundreds = (digits[2:].take(ends), digits[1:].take(ends), digits.take(ends))
    has_tens = tens < 10
    has_hundreds = has_tens & (hundreds < 10)
    digit_count = len(ends) + np.count_nonzero(has_tens) + np.count_nonzero(has_hundreds)
    if ones.max() > 9 or digit_count + len(ends) != len(digits) - 3:  # other characters, or more than three digits
        return None
    values = ones + has_tens * tens * np.uint16(10) + has_hundreds * hundreds * np.uint16(100)
    return values.astype(np.uint8) if values.max() < 256 else None


def _decode_row(path: Path, row: int, text: bytes) -> list[int]:
    values = text.split()
    for value in values:
        if not (value.isdigit() and len(value) <= 3 and int(value) <= 255):
            problem = f"expected whole numbers from 0 to 255 as pixel values, found {_text(value)!r:.40}"
            raise _row_error(path, row, problem, FER_HEADER)
    if len(values) != SIDE * SIDE:
        problem = f"expected {SIDE * SIDE:,} pixel values, found {len(values):,}; the row is cut off or was edited"
        raise _row_error(path, row, problem, FER_HEADER)
    return [int(value) for value in values]


def _usage(path: Path, row: int, field: bytes, header: tuple[str, ...]) -> str:
    usage = _text(field)
    if usage not in SPLIT_FOLDERS:
        problem = f"expected one of {', '.join(SPLIT_FOLDERS)} as Usage, found {usage!r:.40}"
        raise _row_error(path, row, problem, header)
    return usage


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace").strip()


def _row_error(path: Path, row: int, problem: str, header: tuple[str, ...]) -> UserError:
    remedy = f"correct it, or use the file from {SOURCE[header]}"
    return UserError(f"{path}: row {row} (the header is row 1): {problem}; {remedy}")


def _fields(path: Path, row: int, line: bytes, separator: str, header: tuple[str, ...]) -> list[bytes]:
    if b'"' not in line:
        return line.rstrip(b"\r\n").split(separator.encode())
    try:  # the csv module takes text only, and Latin-1 maps every byte to a character and back
        text = next(csv.reader([line.decode("latin-1")], delimiter=separator))
        return [field.encode("latin-1") for field in text]
    except csv.Error as error:
        raise _row_error(path, row, f"not valid CSV ({error})", header) from None
