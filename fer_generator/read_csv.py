"""Read and check fer2013.csv (pixels) and fer2013new.csv (the FER+ votes), plain or compressed.

Rows are counted as the lines of the file are, so the header is row 1.
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
SIDE = 48  # of a picture, in pixels

SOURCE = {
    FER_HEADER: "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    FERPLUS_HEADER: "https://github.com/microsoft/FERPlus",
}
OPENERS: dict[str, Callable[[BinaryIO], AbstractContextManager[Iterable[bytes]]]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
# What the decompressors raise on damaged or cut files; zipfile's RuntimeError is an encrypted member.
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, RuntimeError)


class UserError(Exception):
    """Something the user can put right; its text is one line: what, where, what to do."""


class Labels(NamedTuple):
    """The rows of fer2013new.csv, in order."""

    rows: list[int]  # line in the file, the header is 1
    usages: list[str]  # keys of SPLIT_FOLDERS
    names: list[str]  # fer0000000.png, or "" where the row has none
    votes: np.ndarray  # i64[N, 10], counts >= 0 in the order of VOTE_COLUMNS


def read_labels(path: Path) -> Labels:
    """All rows of fer2013new.csv.

    Raises:
        UserError: the file is missing or damaged, or a row is not as FER+ writes them.
    """
    rows, usages, names, votes = [], [], [], []
    for row, fields in read_rows(path, FERPLUS_HEADER):
        name, counts = _text(fields[1]), [field.strip() for field in fields[2:]]
        if name and not re.fullmatch(r"fer\d{7}\.png", name, re.ASCII):
            what = f"Image name {name!r:.60} must be like fer0000000.png, or empty"
            raise _row_error(path, row, what, FERPLUS_HEADER)
        for column, count in zip(VOTE_COLUMNS, counts, strict=True):
            if not (count.isdigit() and len(count) < 10):
                what = f"{_text(count)!r:.60} votes for {column}: must be a whole number, 0 or more"
                raise _row_error(path, row, what, FERPLUS_HEADER)
        rows.append(row)
        usages.append(_usage(path, row, fields[0], FERPLUS_HEADER))
        names.append(name)
        votes.append([int(count) for count in counts])
    if not any(names):
        raise UserError(f"{path}: no row names a picture; get the file again from {SOURCE[FERPLUS_HEADER]}")
    return Labels(rows, usages, names, np.array(votes, np.int64))


def read_pixels(path: Path, labels_path: Path, labels: Labels) -> Iterator[tuple[int, bytes]]:
    """Row number and pixel text of each row of fer2013.csv, once it is found to pair with `labels`.

    Raises:
        UserError: the file is missing or damaged, or differs from fer2013new.csv in a Usage or the row count.
    """
    remedy = f"get both files again, from {SOURCE[FER_HEADER]} and {SOURCE[FERPLUS_HEADER]}"
    count = 0
    for row, (_, pixels, usage_field) in read_rows(path, FER_HEADER):
        count += 1
        if count > len(labels.usages):
            continue  # only counted, for the message below
        usage = _usage(path, row, usage_field, FER_HEADER)
        if usage != labels.usages[count - 1]:
            other = f"row {labels.rows[count - 1]} of {labels_path} is {labels.usages[count - 1]}"
            raise UserError(
                f"{path}: row {row} (the header is row 1) is {usage} but {other}; the files must pair row "
                f"by row; {remedy}"
            )
        yield row, pixels
    if count != len(labels.usages):
        raise UserError(
            f"{path} has {count:,} rows below the header but {labels_path} has {len(labels.usages):,}; they "
            f"must pair row by row: one is cut off or edited; {remedy}"
        )


def read_rows(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, list[bytes]]]:
    """The row number and the fields of each row below the header; blank lines are counted but left out.

    Raises:
        UserError: the file is missing, a Git LFS pointer or damaged, or has other columns than `header`.
    """
    lines = _read_lines(path, header)
    row, first = next(lines, (1, b""))
    found = tuple(_text(field) for field in _fields(path, row, first, header))
    if found != header:
        shown = f"{','.join(found)!r:.100}" if first else "nothing"
        raise UserError(
            f"{path}: row {row} holds {shown} where the columns {','.join(header)} must stand in this order; "
            f"get the file from {SOURCE[header]}"
        )
    for row, line in lines:
        fields = _fields(path, row, line, header)
        if len(fields) != len(header):
            what = f"{len(fields)} columns where the header has {len(header)}: the row is cut off or edited"
            raise _row_error(path, row, what, header)
        yield row, fields


def decode_pixels(path: Path, rows: Sequence[int], texts: Sequence[bytes]) -> np.ndarray:
    """Pictures of pixel strings: N texts of 2304 numbers 0..255 between spaces -> u8[N, 48, 48].

    Raises:
        UserError: a text has another count, or a value that is not a whole number from 0 to 255.
    """
    values = _decode_clean(texts)
    if values is None:
        pairs = zip(rows, texts, strict=True)
        values = np.array([_decode_one(path, row, text) for row, text in pairs], np.uint8)
    return values.reshape(-1, SIDE, SIDE)


def _decode_clean(texts: Sequence[bytes]) -> np.ndarray | None:
    """All values at once, u8[N * 2304]; None unless every text is right, with single spaces."""
    digits = np.frombuffer(b"   " + b" ".join(texts) + b" ", np.uint8) - np.uint8(ord("0"))  # a space: 240
    ends = np.flatnonzero(digits[3:] == 240)  # of the values
    text_ends = np.cumsum([len(text) + 1 for text in texts]) - 1
    per_text = SIDE * SIDE
    if len(ends) != len(texts) * per_text or not np.array_equal(ends[per_text - 1 :: per_text], text_ends):
        return None
    ones, tens, hundreds = (digits[2:].take(ends), digits[1:].take(ends), digits.take(ends))
    has_tens = tens < 10
    has_hundreds = has_tens & (hundreds < 10)
    found = len(ends) + np.count_nonzero(has_tens) + np.count_nonzero(has_hundreds)
    if ones.max() > 9 or found + len(ends) != len(digits) - 3:  # there is more than digits, or more than three
        return None
    values = ones + has_tens * tens * np.uint16(10) + has_hundreds * hundreds * np.uint16(100)
    return values.astype(np.uint8) if values.max() < 256 else None


def _decode_one(path: Path, row: int, text: bytes) -> list[int]:
    values = text.split()
    for value in values:
        if not (value.isdigit() and len(value) <= 3 and int(value) <= 255):
            what = f"pixel value {_text(value)!r:.60} must be a whole number from 0 to 255"
            raise _row_error(path, row, what, FER_HEADER)
    if len(values) != SIDE * SIDE:
        what = f"{len(values):,} pixel values where a picture has {SIDE * SIDE:,}: the row is cut off or edited"
        raise _row_error(path, row, what, FER_HEADER)
    return [int(value) for value in values]


def _usage(path: Path, row: int, field: bytes, header: tuple[str, ...]) -> str:
    usage = _text(field)
    if usage not in SPLIT_FOLDERS:
        raise _row_error(path, row, f"unknown Usage {usage!r:.60}, must be one of {', '.join(SPLIT_FOLDERS)}", header)
    return usage


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace").strip()


def _row_error(path: Path, row: int, what: str, header: tuple[str, ...]) -> UserError:
    return UserError(f"{path}: row {row} (the header is row 1): {what}; mend it or get the file from {SOURCE[header]}")


def _fields(path: Path, row: int, line: bytes, header: tuple[str, ...]) -> list[bytes]:
    if b'"' not in line:
        return line.strip().split(b",")
    try:  # Latin-1 carries any byte through csv, which takes text only
        return [field.encode("latin-1") for field in next(csv.reader([line.decode("latin-1")]))]
    except csv.Error as error:
        raise _row_error(path, row, f"not CSV: {error}", header) from None


def _read_lines(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, bytes]]:
    row = 0
    try:
        with open(path, "rb") as raw, ExitStack() as stack:
            for row, line in enumerate(_decompressed(path, raw, stack), start=1):
                if row == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line and not line.isspace():
                    yield row, line
    except DAMAGE as error:
        what = f"{path}: damaged or cut off after row {row} ({error})"
    except OSError as error:
        what = f"{path}: {error.strerror}"
    else:
        return
    raise UserError(f"{what}; get the file from {SOURCE[header]}")


def _decompressed(path: Path, raw: BufferedReader, stack: ExitStack) -> Iterable[bytes]:
    if raw.peek(64).startswith(b"version https://git-lfs"):
        fetch = f"cd '{path.resolve().parent}' && git lfs install && git lfs pull"
        raise UserError(f"{path}: a Git LFS pointer, not the data; fetch the data with: {fetch}")
    if path.suffix in OPENERS:
        return stack.enter_context(OPENERS[path.suffix](raw))
    if path.suffix == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(raw))
        members = archive.namelist()
        if len(members) != 1:
            raise UserError(f"{path}: holds {len(members)} files; pack the CSV alone, or unpack it")
        return stack.enter_context(archive.open(members[0]))
    return raw
