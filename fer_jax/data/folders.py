"""The generator's folders as arrays: images and votes, decoded once and then mapped from a cache.

A million images take 2.3 GB. So they are decoded straight into the cache, and are read from there by the row: no part
of the way from the folder to a batch holds all of them in memory.
"""

import ast
import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from fer_jax.core import atomic
from fer_jax.core.errors import DiskError, UserError, one_line
from fer_jax.core.text import printable
from fer_jax.data import array_file, digests, labels
from fer_jax.data import images as image_files

SIDE = 48  # of a stored image, in pixels
MOST_VOTES = 1_000_000  # for a class of an image; sums stay exact
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}

_CHUNK = 10_000  # rows of label.csv that are read at a time; bounds memory
_REMEDY = "generate the folder again"
# A cache of another reader is decoded again: its pixels may differ.
_READER = hashlib.sha256(
    PIL.__version__.encode()
    + b"".join(Path(file).read_bytes() for file in (__file__, array_file.__file__, image_files.__file__))
).hexdigest()


class Split(NamedTuple):
    """All images of a split with their votes, in the order of label.csv. The arrays cannot be written to."""

    images: np.ndarray  # u8[N, 48, 48]
    votes: np.ndarray  # i32[N, 10]
    names: np.ndarray  # str[N], file names
    digests: np.ndarray  # S16[N], see `fer_jax.data.digests`


class _Rows(NamedTuple):
    """The content of label.csv."""

    names: np.ndarray  # str[N]
    boxes: list[tuple[int, int, int, int]]  # left, top, right, bottom
    votes: np.ndarray  # i32[N, 10]


def load(data_dir: str | Path, split: str) -> Split:
    """The images and votes of "train", "valid" or "test", from the folder or from the cache next to it.

    The first call decodes the PNGs and writes `<folder>.cache`. Later calls map the cache into memory, as long as no
    file of the folder has changed its name, size or time, and the reader of images is the same. Looking at the files
    takes 3.5 s for a million of them; a shorter look would miss a file that was written again in its place.

    Raises:
        UserError: the folder does not exist (the message has the command that makes it), or label.csv or an image is
            not as the generator writes it.
    """
    folder = Path(data_dir).expanduser() / FOLDERS[split]
    if not has(data_dir, split):
        raise UserError(_missing(folder, split, data_dir))
    fingerprint = _fingerprint(folder)
    cache = folder.with_name(folder.name + ".cache")
    if (stored := _stored(cache, fingerprint)) is not None:
        return stored
    rows = _read_rows(folder)
    # Where the data folder is read-only or full, each call decodes, into memory; nothing else is lost.
    with suppress(OSError, DiskError):
        _write_cache(cache, fingerprint, folder, rows)
    return _stored(cache, fingerprint) or _in_memory(folder, rows)


def has(data_dir: str | Path, split: str) -> bool:
    """Return True if the data folder has the split."""
    return (Path(data_dir).expanduser() / FOLDERS[split] / "label.csv").is_file()


def _missing(folder: Path, split: str, data_dir: str | Path) -> str:
    """The message for a split that does not exist."""
    existing = [name for name in FOLDERS if has(data_dir, name)]
    if existing:
        splits = " and ".join(existing)
        return f"no {split} data in {folder.absolute()}, only {splits}: {_REMEDY}, from CSVs that contain it"
    return (
        f"no {split} data in {folder.absolute()}: run 'fer-jax generate -d {data_dir} -fer fer2013.csv -ferplus "
        "fer2013new.csv' (in the clone: python fer_generator/generate_training_data.py); 'fer-jax sample' draws "
        "sample CSVs"
    )


def _fingerprint(folder: Path) -> str:
    lines = []
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat()
            lines.append(f"{entry.name}/{status.st_size}/{status.st_mtime_ns}\n")
    return hashlib.sha256("".join([_READER, *sorted(lines)]).encode()).hexdigest()


def _stored(cache: Path, fingerprint: str) -> Split | None:
    """The arrays of a cache; None if it is missing, cut off, of another format or of other files."""
    try:
        with open(cache, "rb") as file:
            if str(array_file.map_next(file)) == fingerprint:
                return Split(*(array_file.map_next(file) for _ in Split._fields))
    except (OSError, ValueError, EOFError):
        pass
    return None


def _write_cache(cache: Path, fingerprint: str, folder: Path, rows: _Rows) -> None:
    """Decode a folder into its cache.

    Raises:
        OSError, DiskError: the cache cannot be written.
    """
    found: list[bytes] = []

    def noted(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for image in images:
            found.append(digests.of_image(image))
            yield image

    with atomic.replacing(cache) as partial:
        with open(partial, "wb") as file, closing(_decode(folder, rows)) as images:
            np.save(file, np.array(fingerprint))
            array_file.write_images(file, noted(images), (len(rows.names), SIDE, SIDE))
            for array in (rows.votes, rows.names, np.array(found, f"S{digests.SIZE}")):
                np.save(file, array)
        # Several processes may decode at once. On a network file system a file that others have mapped must stay.
        if _stored(cache, fingerprint) is not None:
            raise FileExistsError(cache)
    # Of older versions, which held all of it in memory.
    cache.with_name(cache.name + ".npz").unlink(missing_ok=True)


def _in_memory(folder: Path, rows: _Rows) -> Split:
    with closing(_decode(folder, rows)) as decoded:
        images = np.fromiter(decoded, np.dtype((np.uint8, (SIDE, SIDE))), len(rows.names))
    return Split(images, rows.votes, rows.names, digests.of_images(images))


def _read_rows(folder: Path) -> _Rows:
    """The content of label.csv.

    Raises:
        UserError: it is not as the generator writes it, or names no image.
    """
    import pandas as pd  # only where there is no cache yet: it takes half a second

    csv = folder / "label.csv"
    parts: list[_Rows] = []
    try:
        with pd.read_csv(csv, header=None, dtype=str, keep_default_na=False, chunksize=_CHUNK) as tables:
            for table in tables:
                parts.append(_parse_rows(csv, table, len(parts) * _CHUNK))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{csv}: {one_line(error, 100)}; {_REMEDY}") from None
    names = np.concatenate([part.names for part in parts])
    _check_names(folder, names)
    return _Rows(names, [box for part in parts for box in part.boxes], np.concatenate([part.votes for part in parts]))


def _parse_rows(csv: Path, table: Any, start: int) -> _Rows:
    """The content of a part of label.csv, a DataFrame of text; `start` rows are before it."""
    columns = 2 + len(labels.VOTES)
    if table.shape[1] != columns:
        raise UserError(f"{csv}: {table.shape[1]} columns instead of {columns} (name, box, ten votes); {_REMEDY}")
    boxes = [_parse_box(text, f"{csv}, row {row}") for row, text in enumerate(table[1], start=start + 1)]
    try:
        votes = table.iloc[:, 2:].to_numpy(str).astype(np.int32)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{csv}: a vote is not a whole number ({one_line(error, 100)}); {_REMEDY}") from None
    for wrong, problem in ((votes < 0, "negative"), (votes > MOST_VOTES, f"above {MOST_VOTES:,}")):
        if wrong.any():
            row = start + wrong.any(axis=1).argmax() + 1
            raise UserError(f"{csv}, row {row}: a vote is {problem}; {_REMEDY}")
    return _Rows(table[0].to_numpy(str), boxes, votes)


def _decode(folder: Path, rows: _Rows) -> Generator[np.ndarray]:
    """The images of a folder in order, u8[48, 48] each."""

    def decode(row: int) -> np.ndarray:
        return _decode_image(folder / rows.names[row], rows.boxes[row], f"{folder / 'label.csv'}, row {row + 1}")

    count = len(rows.names)
    with ThreadPoolExecutor(os.cpu_count()) as pool, closing(_results(pool, decode, count)) as decoded:
        yield from tqdm(decoded, f"decoding {folder.name}", count, leave=False, disable=None)


def _results(pool: Executor, function: Callable[[int], np.ndarray], count: int) -> Generator[np.ndarray]:
    """The results for 0, 1, ... in order. Those that were not begun are left out after an error or a signal."""
    for start in range(0, count, _CHUNK):  # the pool makes an object for each of them at once
        yield from pool.map(function, range(start, min(start + _CHUNK, count)))


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
            raise UserError(f"{folder / 'label.csv'}, row {row}: {one_line(name, 60)} is a path, not a name; {_REMEDY}")


def _decode_image(path: Path, box: tuple[int, int, int, int], place: str) -> np.ndarray:
    """The box of an image in grey, resized where it is not 48x48: u8[48, 48]. Errors name `place`, its row."""
    try:
        image = image_files.read(path)
    except UserError as error:
        reason = str(error).replace(printable(path), path.name) if path.exists() else f"{path.name} does not exist"
        raise UserError(f"{place}: {reason}; {_REMEDY}") from None
    right, bottom = box[2:]
    if right > image.width or bottom > image.height:
        size = f"{image.width}x{image.height}"
        raise UserError(f"{place}: the box {box} does not fit into {path.name}, which is {size}; {_REMEDY}")
    face = (image if image.mode == "L" else image.convert("L")).crop(box)
    if face.size != (SIDE, SIDE):
        face = face.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(face)


def _parse_box(text: str, place: str) -> tuple[int, int, int, int]:
    try:
        box = left, top, right, bottom = ast.literal_eval(text)
        if any(type(edge) is not int for edge in box) or not (0 <= left < right and 0 <= top < bottom):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise UserError(
            f"{place}: the box {one_line(repr(text), 60)} is not '(left, top, right, bottom)'; {_REMEDY}"
        ) from None
    return left, top, right, bottom
