"""The lines of a CSV, plain, compressed or in an archive; the content tells, not the name.

Kaggle's fer2013.tar.gz is read as it is, and so is a tar that a browser saved as fer2013.csv.
"""

import bz2
import codecs
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from fer_generator.console import UserError

MAX_LINE = 1_000_000  # bytes; a row of fer2013.csv has less than 10,000
MAX_LAYERS = 4  # a CSV in a tar in a gzip file in a zip archive

COMPRESSIONS: dict[bytes, Any] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
UNREADABLE = {
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; decompress it first",
    b"PAR1": "a Parquet file; save the table as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the table as CSV",
}
# Raised by the decompressors on damaged or cut files, next to an OSError without an error number. zipfile raises
# RuntimeError for an encrypted member.
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, UnicodeError)


class Source(NamedTuple):
    """The origin of a file."""

    names: tuple[str, ...]  # names of the same content, the usual one first
    page: str
    place: str  # of the file on the page

    @property
    def text(self) -> str:
        """The place of the file, for messages."""
        return f"{self.names[0]} is {self.place} {self.page}"


def read_lines(path: Path, source: Source) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the bytes of each line that is not blank.

    Raises:
        UserError: the file is missing, damaged, or no CSV.
    """
    row = 0
    try:
        with open(path, "rb") as file, ExitStack() as stack:
            for row, line in enumerate(_open(path, file, source, stack), start=1):
                if row == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if len(line) >= MAX_LINE:
                    raise UserError(
                        f"{path}: row {row} has more than {MAX_LINE:,} bytes: this is no CSV; {source.text}"
                    )
                if line and not line.isspace():
                    yield row, line
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise unreadable(path, error, source) from error
        problem = f"{path}: damaged or cut off after row {row} ({error!s:.60})"
        raise UserError(f"{problem}; download the file again from {source.page}") from error


def unreadable(path: Path, error: OSError, source: Source) -> UserError:
    """Return the error for a file that cannot be opened or read."""
    return UserError(f"{path}: {error.strerror}; check the path, or download the file from {source.page}")


def _open(path: Path, file: BufferedReader, source: Source, stack: ExitStack) -> Iterable[bytes]:
    """Return the lines of the CSV in a file, after all layers of compression and archives."""
    stream = file
    for _ in range(MAX_LAYERS):
        head = stream.peek(512)[:512]
        layer = _layer(path, stream, head, source, stack)
        if layer is None:
            break
        stream = io.BufferedReader(stack.enter_context(layer))
    _refuse_other_formats(path, head, source)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # from Windows' PowerShell or Excel
        text = io.TextIOWrapper(stream, encoding="utf-16")
        return (line.encode() for line in iter(partial(text.readline, MAX_LINE), ""))
    return iter(partial(stream.readline, MAX_LINE), b"")


def _layer(path: Path, stream: BufferedReader, head: bytes, source: Source, stack: ExitStack) -> Any:
    """Return the content of a compressed file, or the file that is meant in an archive; None for a plain file."""
    for magic, decompress in COMPRESSIONS.items():
        if head.startswith(magic):
            return decompress(stream)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        try:
            archive = stack.enter_context(zipfile.ZipFile(stream))
        except ValueError as error:  # a compressed zip archive, which cannot be read from its end
            raise UserError(f"{path}: a zip archive inside a compressed file; unpack it first") from error
        return archive.open(_member(path, archive.namelist(), source))
    if head[257:262] == b"ustar":
        tar = stack.enter_context(tarfile.TarFile(fileobj=stream))
        members = {member.name: member for member in tar.getmembers() if member.isfile()}
        return tar.extractfile(members[_member(path, list(members), source)])
    return None


def _member(path: Path, names: Sequence[str], source: Source) -> str:
    """Return the only file, the only CSV or the file with the usual name among the names in an archive.

    Raises:
        UserError: no file is certain to be the right one.
    """
    files = [name for name in names if not name.endswith("/") and not _is_hidden(name)]
    csvs = [name for name in files if name.lower().endswith(".csv")]
    choices = [files, csvs]
    choices += [[name for name in csvs if PurePosixPath(name).name.lower() == usual] for usual in source.names]
    for choice in choices:
        if len(choice) == 1:
            return choice[0]
    if "[Content_Types].xml" in names:
        raise UserError(f"{path}: an Excel workbook; save the table as CSV")
    example = f", such as {files[0]!r:.40}" if files else ""
    raise UserError(f"{path}: no {source.names[0]} among the {len(files):,} files in it{example}; {source.text}")


def _is_hidden(name: str) -> bool:
    """Return True for the files that macOS adds to archives."""
    return any(part == "__MACOSX" or part.startswith(".") for part in PurePosixPath(name).parts if part != "..")


def _refuse_other_formats(path: Path, head: bytes, source: Source) -> None:
    if head.startswith(b"version https://git-lfs"):
        remedy = "to fetch the data, run in its folder: git lfs install, then git lfs pull"
        raise UserError(f"{path}: a Git LFS pointer instead of the data; {remedy}")
    if head.lstrip(codecs.BOM_UTF8 + b" \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: a web page instead of the data, perhaps a login; {source.text}")
    for magic, problem in UNREADABLE.items():
        if head.startswith(magic):
            raise UserError(f"{path}: {problem}")
