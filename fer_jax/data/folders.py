"""The generator's folders as arrays: images and votes, decoded once and then read from a cache."""

import ast
import hashlib
import os
import zipfile
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from fer_jax.core import atomic
from fer_jax.core.errors import UserError, one_line
from fer_jax.core.text import printable
from fer_jax.data import images as image_files
from fer_jax.data import labels

SIDE = 48  # of a stored image, in pixels
MOST_VOTES = 1_000_000  # for a class of an image; sums stay exact
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}

_REMEDY = "generate the folder again"
# A cache of another reader is decoded again: its pixels may differ.
_READER = hashlib.sha256(
    PIL.__version__.encode() + b"".join(Path(file).read_bytes() for file in (__file__, image_files.__file__))
).hexdigest()


class Split(NamedTuple):
    """All images of a split with their votes, in the order of label.csv."""

    images: np.ndarray  # u8[N, 48, 48]
    votes: np.ndarray  # i32[N, 10]
    names: np.ndarray  # str[N], file names


def load(data_dir: str | Path, split: str) -> Split:
    """The images and votes of "train", "valid" or "test", from the folder or from the cache next to it.

    The first call decodes the PNGs and writes `<folder>.cache.npz`. Later calls read the cache, as long as no file of
    the folder has changed its name, size or time, and the reader of images is the same.

    Raises:
        UserError: the folder does not exist (the message has the command that makes it), or label.csv or an image is
            not as the generator writes it.
    """
    folder = Path(data_dir).expanduser() / FOLDERS[split]
    if not has(data_dir, split):
        raise UserError(_missing(folder, split, data_dir))
    fingerprint = _fingerprint(folder)
    cache = folder.with_name(folder.name + ".cache.npz")
    try:
        with np.load(cache) as stored:
            if stored["fingerprint"] == fingerprint:
                return Split(stored["images"], stored["votes"], stored["names"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # missing, cut off or of another format: written again below
    decoded = _decode(folder)
    _write_cache(cache, decoded, fingerprint)
    return decoded


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
    digest = hashlib.sha256(_READER.encode())
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            status = entry.stat()
            digest.update(f"{entry.name}/{status.st_size}/{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _decode(folder: Path) -> Split:
    import pandas as pd  # only where there is no cache yet: it takes half a second

    csv = folder / "label.csv"
    try:
        table = pd.read_csv(csv, header=None, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{csv}: {one_line(error, 100)}; {_REMEDY}") from None
    columns = 2 + len(labels.VOTES)
    if table.shape[1] != columns:
        raise UserError(f"{csv}: {table.shape[1]} columns instead of {columns} (name, box, ten votes); {_REMEDY}")
    names = table[0].to_numpy(str)
    _check_names(folder, names)
    boxes = [_parse_box(text, f"{csv}, row {row}") for row, text in enumerate(table[1], start=1)]
    try:
        votes = table.iloc[:, 2:].to_numpy(str).astype(np.int32)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{csv}: a vote is not a whole number ({one_line(error, 100)}); {_REMEDY}") from None
    for wrong, problem in ((votes < 0, "negative"), (votes > MOST_VOTES, f"above {MOST_VOTES:,}")):
        if wrong.any():
            raise UserError(f"{csv}, row {wrong.any(axis=1).argmax() + 1}: a vote is {problem}; {_REMEDY}")

    def decode(row: int) -> np.ndarray:
        return _decode_image(folder / names[row], boxes[row], f"{csv}, row {row + 1}")

    images = np.empty((len(names), SIDE, SIDE), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool, closing(_results(pool, decode, len(names))) as decoded:
        for row, image in enumerate(tqdm(decoded, f"decoding {folder.name}", len(names), leave=False, disable=None)):
            images[row] = image
    return Split(images, votes, names)


def _results(pool: Executor, function: Callable[[int], np.ndarray], count: int) -> Generator[np.ndarray]:
    """The results for 0, 1, ... in order. Those that were not begun are left out after an error or a signal."""
    yield from pool.map(function, range(count))


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


def _write_cache(cache: Path, split: Split, fingerprint: str) -> None:
    # Where the data folder is read-only or full, the next call decodes again; nothing else is lost.
    with suppress(OSError), atomic.replacing(cache) as partial, open(partial, "wb") as file:
        np.savez(file, fingerprint=np.array(fingerprint), **split._asdict())
