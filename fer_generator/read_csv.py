"""Reader of fer2013.csv (pixels) and fer2013new.csv (the FER+ votes), plain or compressed, with all checks.

A row number is the number of the line in the file, so the header is row 1.
"""

import bz2
import codecs
import csv
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTE_COLUMNS = (*EMOTIONS, "unknown", "NF")  # NF: not a face
FER_HEADER = ("emotion", "pixels", "Usage")
FERPLUS_HEADER = ("Usage", "Image name", *VOTE_COLUMNS)
SPLIT_FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
SIDE = 48  # of an image, in pixels

SOURCE = {
    FER_HEADER: "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    FERPLUS_HEADER: "https://github.com/microsoft/FERPlus",
}
OPENERS: dict[str, Callable[[BinaryIO], AbstractContextManager[Iterable[bytes]]]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
# Raised by the decompressors on damaged or cut files, next to an OSError without an error number. zipfile raises
# RuntimeError for an encrypted member.
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError)


class UserError(Exception):
    """An error that the user can put right; its text is one line: what, where, what to do."""


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


def read_pixels(path: Path, labels_path: Path, labels: Labels) -> Iterator[tuple[int, bytes]]:
    """Yield the row number and the pixel text of each row of fer2013.csv, checked against `labels`.

    Raises:
        UserError: the file is missing or damaged, or differs from fer2013new.csv in a Usage or the row count.
    """
    remedy = f"download both again from {SOURCE[FER_HEADER]} and {SOURCE[FERPLUS_HEADER]}"
    count = 0
    for row, (_, pixels, usage_field) in read_rows(path, FER_HEADER):
        count += 1
        if count > len(labels.usages):
            continue  # only counted, for the message below
        usage = _usage(path, row, usage_field, FER_HEADER)
        label_usage = labels.usages[count - 1]
        if usage != label_usage:
            raise UserError(
                f"{path}: row {row} (the header is row 1) is {usage}, but row {labels.rows[count - 1]} of "
                f"{labels_path} is {label_usage}; the rows must match; {remedy}"
            )
        yield row, pixels
    if count != len(labels.usages):
        raise UserError(
            f"{path} and {labels_path} have {count:,} and {len(labels.usages):,} rows below the header, which must "
            f"match; one is cut off or was edited; {remedy}"
        )


def read_rows(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the row number and the fields of each row below the header; blank lines are counted and skipped.

    Raises:
        UserError: the file is missing, a Git LFS pointer or damaged, or its columns differ from `header`.
    """
    lines = _read_lines(path, header)
    row, first = next(lines, (1, b""))
    columns = tuple(_text(field) for field in _fields(path, row, first, header))
    if columns != header:
        content = f"{','.join(columns)!r:.60}" if first else "nothing"
        raise UserError(
            f"{path}: row {row}: expected the columns {','.join(header)} in this order, found {content}; "
            f"download the file from {SOURCE[header]}"
        )
    for row, line in lines:
        fields = _fields(path, row, line, header)
        if len(fields) != len(header):
            problem = f"expected {len(header)} columns, found {len(fields)}; the row is cut off or was edited"
            raise _row_error(path, row, problem, header)
        yield row, fields


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
    remedy = f"correct the row or download the file from {SOURCE[header]}"
    return UserError(f"{path}: row {row} (the header is row 1): {problem}; {remedy}")


def _fields(path: Path, row: int, line: bytes, header: tuple[str, ...]) -> list[bytes]:
    if b'"' not in line:
        return line.strip().split(b",")
    try:  # the csv module takes text only, and Latin-1 maps every byte to a character and back
        return [field.encode("latin-1") for field in next(csv.reader([line.decode("latin-1")]))]
    except csv.Error as error:
        raise _row_error(path, row, f"not valid CSV ({error})", header) from None


def _read_lines(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, bytes]]:
    row = 0
    try:
        with open(path, "rb") as raw, ExitStack() as stack:
            for row, line in enumerate(_decompressed(path, raw, stack), start=1):
                if row == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line and not line.isspace():
                    yield row, line
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise unreadable(path, error, header) from error
        problem = f"{path}: damaged or cut off after row {row} ({error})"
        raise UserError(f"{problem}; download the file again from {SOURCE[header]}") from error


def unreadable(path: Path, error: OSError, header: tuple[str, ...]) -> UserError:
    """Return the error for a CSV that cannot be opened or read."""
    return UserError(f"{path}: {error.strerror}; check the path, or download the file from {SOURCE[header]}")


def _decompressed(path: Path, raw: BufferedReader, stack: ExitStack) -> Iterable[bytes]:
    if raw.peek(64).startswith(b"version https://git-lfs"):
        # no "&&" and no single quotes, which Windows' shells do not take
        commands = f'git lfs install, then git -C "{path.resolve().parent}" lfs pull'
        raise UserError(f"{path}: a Git LFS pointer instead of the data; fetch the data with: {commands}")
    if path.suffix in OPENERS:
        return stack.enter_context(OPENERS[path.suffix](raw))
    if path.suffix == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(raw))
        members = archive.namelist()
        if len(members) != 1:
            raise UserError(f"{path}: expected one file in the archive, found {len(members)}; unpack the CSV")
        return stack.enter_context(archive.open(members[0]))
    return raw
