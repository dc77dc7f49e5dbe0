"""From the folders of the generator to arrays: pictures and votes, decoded once and then read from a cache."""

import ast
import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_jax.core import atomic
from fer_jax.core.errors import UserError
from fer_jax.data import labels

SIDE = 48  # of the stored pictures, in pixels
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}


class Split(NamedTuple):
    """All pictures of a split with their votes, in the order of label.csv."""

    images: np.ndarray  # u8[N, 48, 48]
    votes: np.ndarray  # i32[N, 10]
    names: np.ndarray  # str[N], file names


def load(data_dir: str | Path, split: str) -> Split:
    """The pictures and votes of "train", "valid" or "test", from the folder or from the cache beside it.

    The first call decodes the PNGs and writes `<folder>.cache.npz`; later ones read that, as long as no file of
    the folder has changed its name, size or time.

    Raises:
        UserError: no such folder (with the commands that make it), or label.csv or a picture that is not as the
            generator writes them.
    """
    folder = Path(data_dir).expanduser() / FOLDERS[split]
    if not has(data_dir, split):
        raise UserError(_how_to_get(folder, split, data_dir))
    fingerprint = _fingerprint(folder)
    cache = folder.with_name(folder.name + ".cache.npz")
    try:
        with np.load(cache) as stored:
            if stored["fingerprint"] == fingerprint:
                return Split(stored["images"], stored["votes"], stored["names"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # missing, cut off or of another format: made anew below
    decoded = _decode(folder)
    _write_cache(cache, decoded, fingerprint)
    return decoded


def has(data_dir: str | Path, split: str) -> bool:
    """Whether the data folder holds that split."""
    return (Path(data_dir).expanduser() / FOLDERS[split] / "label.csv").is_file()


def _how_to_get(folder: Path, split: str, data_dir: str | Path) -> str:
    there = [name for name in FOLDERS if has(data_dir, name)]
    if there:
        return (
            f"no {split} data in {folder.absolute()}, only {' and '.join(there)}: the CSVs that they were made from "
            "had no rows for it, or it was taken away"
        )
    return (
        f"no {split} data in {folder.absolute()}: generate it from the CSVs with 'python fer_generator/"
        f"generate_training_data.py -d {data_dir} -fer fer_generator/fer2013.csv -ferplus fer_generator/"
        "fer2013new.csv', or name another data folder; 'make sample' draws one of sample faces, sample/data "
        "(python -m fer_jax.main --config configs/sample.py)"
    )


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
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
        raise UserError(f"{csv}: {' '.join(str(error).split())}; generate the folder again") from None
    if table.shape[1] != 2 + len(labels.VOTES):
        raise UserError(f"{csv}: {table.shape[1]} columns where name, box and ten votes make 12")
    names = table[0].to_numpy(str)
    boxes = [_parse_box(text, f"{csv}, row {row}") for row, text in enumerate(table[1], start=1)]
    try:
        votes = table.iloc[:, 2:].to_numpy(str).astype(np.int32)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{csv}: a vote is not a whole number ({error})") from None
    if (votes < 0).any():
        raise UserError(f"{csv}, row {(votes < 0).any(axis=1).argmax() + 1}: a vote is negative")

    def decode(row: int) -> np.ndarray:
        path = folder / names[row]
        try:
            with Image.open(path) as picture:
                right, bottom = boxes[row][2:]
                if right > picture.width or bottom > picture.height:
                    it_is = f"{path}, which is {picture.width}x{picture.height}"
                    raise UserError(f"{csv}, row {row + 1}: the box {boxes[row]} is larger than {it_is}")
                cut = picture.convert("L").crop(boxes[row])
                if cut.size != (SIDE, SIDE):
                    cut = cut.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                return np.asarray(cut)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
            reason = "no such picture" if isinstance(error, FileNotFoundError) else "not a readable picture"
            raise UserError(f"{csv}, row {row + 1}: {reason}: {path}; generate the folder again") from None

    images = np.empty((len(names), SIDE, SIDE), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(decode, range(len(names)))
        for row, image in enumerate(tqdm(decoded, f"decoding {folder.name}", len(names), leave=False, disable=None)):
            images[row] = image
    return Split(images, votes, names)


def _parse_box(text: str, where: str) -> tuple[int, int, int, int]:
    try:
        box = left, top, right, bottom = ast.literal_eval(text)
        if any(type(edge) is not int for edge in box) or not (0 <= left < right and 0 <= top < bottom):
            raise ValueError
    except (ValueError, SyntaxError, TypeError):
        raise UserError(f"{where}: the box {text!r} is not '(left, top, right, bottom)'") from None
    return left, top, right, bottom


def _write_cache(cache: Path, split: Split, fingerprint: str) -> None:
    # A data folder that is read-only or full costs the decoding again, nothing more.
    with suppress(OSError), atomic.replacing(cache) as partial, open(partial, "wb") as file:
        np.savez(file, fingerprint=np.array(fingerprint), **split._asdict())
