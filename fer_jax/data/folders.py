"""The generator's folders as arrays: images and votes, decoded once and then mapped from a cache.

A million images take 2.3 GB. So they are decoded straight into the cache, and are read from there by the row: no part
of the way from the folder to a batch holds all of them in memory.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from fer_jax.core import atomic
from fer_jax.core.errors import DiskError, UserError
from fer_jax.core.text import printable
from fer_jax.data import array_file, digests, label_csv
from fer_jax.data import images as image_files
from fer_jax.data.label_csv import REMEDY, Rows

SIDE = 48  # of a stored image, in pixels
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}

_CHUNK = 10_000  # images that wait to be decoded; bounds memory
# A cache of another reader is decoded again: its pixels may differ.
_READER = hashlib.sha256(
    PIL.__version__.encode()
    + b"".join(
        Path(file).read_bytes()
        for file in (__file__, array_file.__file__, digests.__file__, image_files.__file__, label_csv.__file__)
    )
).hexdigest()


class Split(NamedTuple):
    """All images of a split with their votes, in the order of label.csv. The arrays cannot be written to."""

    images: np.ndarray  # u8[N, 48, 48]
    votes: np.ndarray  # i32[N, 10]
    names: np.ndarray  # str[N], file names
    digests: np.ndarray  # S16[N], see `fer_jax.data.digests`


def load(data_dir: str | Path, split: str) -> Split:
    """The images and votes of "train", "valid" or "test", from the folder or from the cache next to it.

    The first call decodes the PNGs and writes `<folder>.cache`. Later calls map the cache into memory, as long as no
    file of the folder has changed its name, size or time, and the reader of images is the same. Looking at the files
    takes 4 s for a million of them; a shorter look would miss a file that was written again in its place.

    Raises:
        UserError: the folder does not exist (the message has the command that makes it), or label.csv or an image is
            not as the generator writes it.
    """
    folder = Path(data_dir).expanduser() / FOLDERS[split]
    if not has(data_dir, split):
        raise UserError(_missing(folder, split, data_dir))
    files = fingerprint(folder)
    if (stored := _stored(folder, files)) is not None:
        return stored
    rows = label_csv.read(folder)
    # Where the data folder is read-only or full, each call decodes into memory: a second time if the disk fills up.
    with suppress(OSError, DiskError), closing(_decode(folder, rows)) as images:
        store(folder, files, images, rows.votes, rows.names)
    return _stored(folder, files) or _in_memory(folder, rows)


def has(data_dir: str | Path, split: str) -> bool:
    """Return True if the data folder has the split."""
    return (Path(data_dir).expanduser() / FOLDERS[split] / "label.csv").is_file()


def _missing(folder: Path, split: str, data_dir: str | Path) -> str:
    """The message for a split that does not exist."""
    existing = [name for name in FOLDERS if has(data_dir, name)]
    if existing:
        splits = " and ".join(existing)
        return f"no {split} data in {folder.absolute()}, only {splits}: {REMEDY}, from CSVs that contain it"
    return (
        f"no {split} data in {folder.absolute()}: run 'fer-jax generate -d {data_dir} -fer fer2013.csv -ferplus "
        "fer2013new.csv' (in the clone: python fer_generator/generate_training_data.py); 'fer-jax sample' draws "
        "sample CSVs"
    )


def fingerprint(folder: Path) -> str:
    """Return a digest of the names, sizes and times of all files in a folder, and of the reader of images."""
    lines = []
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat()
            lines.append(f"{entry.name}/{status.st_size}/{status.st_mtime_ns}\n")
    return hashlib.sha256("".join([_READER, *sorted(lines)]).encode()).hexdigest()


def store(folder: Path, files: str, images: Iterable[np.ndarray], votes: np.ndarray, names: np.ndarray) -> None:
    """Write the arrays of a folder into its cache.

    Args:
        folder: the split's folder.
        files: its `fingerprint`, from before the images were read.
        images: u8[48, 48] each, in the order of `names`. Only one at a time is in memory.
        votes, names: see `Split`.

    Raises:
        OSError, DiskError: the cache cannot be written.
    """
    found = bytearray()

    def noted() -> Iterator[np.ndarray]:
        for image in images:
            found.extend(digests.of_image(image))
            yield image

    cache = _cache(folder)
    with atomic.replacing(cache) as partial:
        with open(partial, "wb") as file:
            np.save(file, np.array(files))
            array_file.write_images(file, noted(), (len(names), SIDE, SIDE))
            for array in (votes, names, np.frombuffer(found, f"S{digests.SIZE}")):
                np.save(file, array)
        # Several processes may decode at once. On a network file system a file that others have mapped must stay.
        if _stored(folder, files) is not None:
            raise FileExistsError(cache)
    # Of older versions, which held all of it in memory.
    cache.with_name(cache.name + ".npz").unlink(missing_ok=True)


def _cache(folder: Path) -> Path:
    return folder.with_name(folder.name + ".cache")


def _stored(folder: Path, files: str) -> Split | None:
    """The arrays of a folder's cache; None if it is missing, cut off, of another format or of other files."""
    try:
        with open(_cache(folder), "rb") as file:
            if str(array_file.map_next(file)) == files:
                return Split(*(array_file.map_next(file) for _ in Split._fields))
    except (OSError, ValueError, EOFError):
        pass
    return None


def _in_memory(folder: Path, rows: Rows) -> Split:
    with closing(_decode(folder, rows)) as decoded:
        images = np.fromiter(decoded, np.dtype((np.uint8, (SIDE, SIDE))), len(rows.names))
    return Split(images, rows.votes, rows.names, digests.of_images(images))


def _decode(folder: Path, rows: Rows) -> Generator[np.ndarray]:
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


def _decode_image(path: Path, box: tuple[int, int, int, int], place: str) -> np.ndarray:
    """The box of an image in grey, resized where it is not 48x48: u8[48, 48]. Errors name `place`, its row."""
    try:
        image = image_files.read(path)
    except UserError as error:
        reason = str(error).replace(printable(path), path.name) if path.exists() else f"{path.name} does not exist"
        raise UserError(f"{place}: {reason}; {REMEDY}") from None
    right, bottom = box[2:]
    if right > image.width or bottom > image.height:
        size = f"{image.width}x{image.height}"
        raise UserError(f"{place}: the box {box} does not fit into {path.name}, which is {size}; {REMEDY}")
    face = (image if image.mode == "L" else image.convert("L")).crop(box)
    if face.size != (SIDE, SIDE):
        face = face.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(face)
