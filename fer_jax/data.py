"""From the folders of the generator to numpy batches: decode once, choose by label mode, shuffle, prefetch.

A training batch is a function of (seed, step) alone, so a resumed run replays the same batches, and it is drawn
whole and then cut by process, so every number of processes trains on the same pictures.
"""

import ast
import hashlib
import os
import queue
import threading
import zipfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_jax import augment, labels
from fer_jax.augment import AugmentParams
from fer_jax.cli import UserError

SIDE = 48  # of the stored pictures, in pixels
FOLDERS = {"train": "FER2013Train", "valid": "FER2013Valid", "test": "FER2013Test"}

# What a random stream is for, last in its seed: numpy takes (seed, epoch) and (seed, epoch, 0) for the same.
ORDER, PICTURES = 1, 2

T = TypeVar("T")
Array = Any  # numpy on the host, jax.Array on the device


class Split(NamedTuple):
    """All pictures of a split with their votes, in the order of label.csv."""

    images: np.ndarray  # u8[N, 48, 48]
    votes: np.ndarray  # i32[N, 10]
    names: np.ndarray  # str[N], file names


class Examples(NamedTuple):
    """The pictures that a label mode keeps, with its targets."""

    images: np.ndarray  # u8[N, 48, 48]
    target: np.ndarray  # f32[N, 8]
    rows: np.ndarray  # i64[N], where each stands in its Split


class Batch(NamedTuple):
    """What a step takes; rows with mask 0 only fill the batch up."""

    image: Array  # f32[B, S, S, 1]; or still to be rendered with `params`: u8[B, 48, 48], or the numbers i32[B] of
    # pictures that lie on the device
    target: Array  # f32[B, 8]
    mask: Array  # f32[B]
    params: AugmentParams | None  # None where the host has rendered


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
        return f"no {split} data in {folder.absolute()}, only {' and '.join(there)}: the CSVs had no rows for it"
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
                cut = picture.convert("L").crop(boxes[row])
                if cut.size != (SIDE, SIDE):
                    cut = cut.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                return np.asarray(cut)
        except OSError as error:
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
        left, top, right, bottom = ast.literal_eval(text)
        if not (0 <= left < right and 0 <= top < bottom):
            raise ValueError
    except (ValueError, SyntaxError, TypeError):
        raise UserError(f"{where}: the box {text!r} is not '(left, top, right, bottom)'") from None
    return left, top, right, bottom


def _write_cache(cache: Path, split: Split, fingerprint: str) -> None:
    partial = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.savez(file, fingerprint=np.array(fingerprint), **split._asdict())
        os.replace(partial, cache)
    except OSError:  # a data folder that is read-only or full costs the decoding again, nothing more
        partial.unlink(missing_ok=True)


def select(split: Split, mode: str) -> Examples:
    """The pictures that a label mode or protocol keeps, with their targets."""
    target, keep = labels.targets(split.votes, mode)
    return Examples(split.images[keep], target[keep], np.flatnonzero(keep))


class Render(NamedTuple):
    """How pictures become network input; see `fer_jax.augment` for `recipe` and `normalize`."""

    recipe: str
    normalize: str
    size: int
    on_device: bool  # the step renders: training batches carry numbers of pictures and parameters

    def __call__(self, images: np.ndarray, params: AugmentParams) -> tuple[np.ndarray, AugmentParams | None]:
        """(image, params) of a Batch."""
        if self.on_device:
            return images, params
        return augment.render(images, params, size=self.size, normalize=self.normalize), None


def train_batches(
    examples: Examples,
    render: Render,
    *,
    batch_size: int,
    seed: int,
    sampled: bool,
    start_step: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Shuffled, augmented batches from `start_step` on, without end; an epoch is N // batch_size of them.

    Args:
        examples: of the training split.
        render: how pictures become network input.
        batch_size: over all processes.
        seed: of the run; with the step it fixes the batch.
        sampled: draw each picture's label from its target (label mode `probability`).
        start_step: the step to begin with.
        process: (index, count): this process gets its equal share of the rows of each batch.
    """
    steps_per_epoch = len(examples.images) // batch_size
    rows = _share(batch_size, process)
    step = start_step
    while True:
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == start_step:
            order = np.random.default_rng((seed, epoch, 0, ORDER)).permutation(len(examples.images))
        chosen = order[position * batch_size : (position + 1) * batch_size]
        rng = np.random.default_rng((seed, epoch, position, PICTURES))
        params = augment.sample(rng, batch_size, render.recipe, render.size)
        target = examples.target[chosen]
        if sampled:
            target = labels.draw_labels(rng, target)
        chosen, params = chosen[rows], AugmentParams(*(field[rows] for field in params))
        image, left = (chosen.astype(np.int32), params) if render.on_device else render(examples.images[chosen], params)
        yield Batch(image, target[rows], np.ones(len(image), np.float32), left)
        step += 1


def calls(batches: Iterator[Batch], steps_per_call: int, steps_per_epoch: int, start_step: int) -> Iterator[Batch]:
    """The batches from `start_step` on, stacked to [K, B, ...]: K is `steps_per_call`, or what is left of the epoch."""
    step = start_step
    while True:
        count = min(steps_per_call, steps_per_epoch - step % steps_per_epoch)
        yield jax.tree.map(lambda *rows: np.stack(rows), *islice(batches, count))
        step += count


def eval_batches(
    examples: Examples, render: Render, *, batch_size: int, process: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Every example once, in order and without augmentation; the last batch is filled up with masked rows."""
    rows = _share(batch_size, process)
    params = augment.identity(rows.stop - rows.start, render.size)
    for start in range(0, len(examples.images), batch_size):
        images = examples.images[start : start + batch_size]
        missing = batch_size - len(images)
        images = np.pad(images, ((0, missing), (0, 0), (0, 0)))[rows]
        target = np.pad(examples.target[start : start + batch_size], ((0, missing), (0, 0)))[rows]
        mask = np.pad(np.ones(batch_size - missing, np.float32), (0, missing))[rows]
        image, left = render(images, params)
        yield Batch(image, target, mask, left)


def _share(batch_size: int, process: tuple[int, int]) -> slice:
    index, count = process
    return slice(index * batch_size // count, (index + 1) * batch_size // count)


def prefetch(items: Iterator[T], place: Callable[[T], T], depth: int = 2) -> Generator[T, None, None]:
    """The same items, made and put in place (on the device) by a thread that runs `depth` of them ahead."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not closed.is_set():
            try:
                return ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(place(item), None)
                if closed.is_set():
                    return
            put(None, None)
        except BaseException as error:  # raised again in the thread that reads
            put(None, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        closed.set()
        thread.join()  # a thread that is still inside XLA when Python exits aborts the process
