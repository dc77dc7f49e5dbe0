"""Measure the cost of each part against the number of images: time and memory, on copies of a data folder.

    make sample
    python benchmarks/growth.py sample/data --multiples 1 4 16
    python benchmarks/growth.py data --multiples 1 10 100 --most-files 100000

A copy is moved by some pixels, three at least, so that it is no near-duplicate. Each part runs in a process of its own.
`anonymous_mib` is its largest memory without the pages of mapped files, seen every 10 ms; `peak_mib` has these pages
too, which the system takes back where it needs them. Both hold what the part imports. Linux only.

Parts that need a file for each image, up to --most-files: the generator, decoding into the cache, and `predict` on the
validation folder with the network `base`. Above that the cache is written without files, so `start` does not look at
any. The search for near-duplicates compares the copies of the training images with the one validation split.
Batches are made by numpy on one core, for --seconds at most; the network is measured by train_step.py and inference.py.
One hundred copies of FER2013 take 7.8 GB of temporary disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from benchmarks.start import ROOT, last_line
from fer_generator.generate_training_data import generate
from fer_generator.read_csv import FERPLUS_HEADER, SPLIT_FOLDERS
from fer_jax import predict
from fer_jax.core import cli, schema
from fer_jax.core.errors import UserError
from fer_jax.data import batching, duplicates, folders, training_set
from fer_jax.data.batching import Augmentation, Render
from fer_jax.data.folders import FOLDERS, SIDE, Split
from fer_jax.data.labels import EMOTIONS
from fer_jax.evaluation import evaluator
from fer_jax.inference.log_probs import log_softmax

MOVES = [(3 * down, 4 * right) for down in range(16) for right in range(12)]  # of the copies, in pixels
CSVS = ("fer2013.csv", "fer2013new.csv")
COLUMNS = ("anonymous_mib", "peak_mib")
BATCH = 128


def copies(source: Path, multiple: int) -> Iterator[tuple[str, Split, int, int]]:
    """Yield the name of each split of a data folder, the split, the number of a copy, and the number of its first row.

    The copies of a split follow each other. Rows are numbered over all of them.
    """
    row = 0
    for name in FOLDERS:
        if folders.has(source, name):
            split = folders.load(source, name)
            for copy in range(multiple):
                yield name, split, copy, row
                row += len(split.names)


def moved(split: Split, copy: int) -> Iterator[np.ndarray]:
    """Yield the images of a copy; what leaves an image comes in on the other side."""
    return (np.roll(image, MOVES[copy], axis=(0, 1)) for image in split.images)


def file_names(split: Split, row: int) -> list[str]:
    return [f"fer{number:07}.png" for number in range(row, row + len(split.names))]


def write_csvs(source: Path, multiple: int, scratch: Path) -> None:
    """Write the two CSVs of the copies of a data folder, without the column `emotion`, which may be missing."""
    usages = {folder: usage for usage, folder in SPLIT_FOLDERS.items()}
    text = np.array([str(level) for level in range(256)], object)
    with open(scratch / CSVS[0], "w") as pixels, open(scratch / CSVS[1], "w") as votes:
        pixels.write("pixels,Usage\n")
        votes.write(",".join(FERPLUS_HEADER) + "\n")
        for name, split, copy, row in copies(source, multiple):
            usage = usages[FOLDERS[name]]
            pixels.writelines(f"{' '.join(text[image.ravel()])},{usage}\n" for image in moved(split, copy))
            for file_name, counts in zip(file_names(split, row), split.votes, strict=True):
                votes.write(f"{usage},{file_name},{','.join(map(str, counts))}\n")


def write_caches(source: Path, multiple: int, data: Path) -> None:
    """Write the caches of the copies of a data folder, next to folders that hold only a label.csv."""
    for name, folder in FOLDERS.items():
        parts = [(split, copy, row) for found, split, copy, row in copies(source, multiple) if found == name]
        if parts:
            (data / folder).mkdir(parents=True)
            (data / folder / "label.csv").write_text("")
            folders.store(
                data / folder,
                folders.fingerprint(data / folder),
                (image for split, copy, _ in parts for image in moved(split, copy)),
                np.concatenate([split.votes for split, _, _ in parts]),
                np.concatenate([np.array(file_names(split, row)) for split, _, row in parts]),
            )


def of_generator(data: Path, multiple: int, seconds: float) -> int:
    return sum(generate(data.parent / CSVS[0], data.parent / CSVS[1], data).pictures.values())


def of_loading(data: Path, multiple: int, seconds: float) -> int:
    """Read the data of a run: decoded into the caches, or from the caches that exist."""
    config = schema.default_config()
    config.data.dir, config.data.label_mode = str(data), "crossentropy"
    inputs = training_set.read(config)
    return len(inputs.training.images) + len(inputs.valid.images)


def of_duplicates(data: Path, multiple: int, seconds: float) -> int:
    train, valid = (folders.load(data, name) for name in ("train", "valid"))
    count = len(valid.names) // multiple
    return len(duplicates.drop(train, Split(*(field[:count] for field in valid))))


def of_batches(data: Path, multiple: int, seconds: float) -> int:
    examples = batching.select(folders.load(data, "train"), "crossentropy")
    render, augmentation = Render("scale", SIDE, on_device=False), Augmentation("emotion_cnn")
    batches = batching.train_batches(
        examples, render, lambda epoch: augmentation, batch_size=BATCH, seed=0, sampled=False
    )
    end = time.perf_counter() + seconds
    images = 0
    with measure.one_core(), threadpool_limits(1):
        for batch in islice(batches, len(examples.target) // BATCH):
            images += len(batch.image)
            if time.perf_counter() > end:
                break
    return images


def of_metrics(data: Path, multiple: int, seconds: float) -> int:
    """Compute the metrics of an evaluation of the validation split, from random predictions."""
    split = folders.load(data, "valid")
    count = len(split.names)
    log_probs = log_softmax(np.random.default_rng(0).normal(size=(count, len(EMOTIONS))))
    evaluator.evaluate_predictions("random", log_probs, "valid", split, {"all": np.ones(count, bool)}, "majority", 1.0)
    return count


def of_predict(data: Path, multiple: int, seconds: float) -> int:
    folder = data / FOLDERS["valid"]
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        predict.main(["--run", "base", "--csv", str(data.parent / "faces.csv"), str(folder)])
    return sum(path.suffix == ".png" for path in folder.iterdir())


class Part(NamedTuple):
    """A part of the work."""

    what: str
    run: Callable[[Path, int, float], int]  # (data folder, multiple, seconds) -> images
    unit: str = "seconds"
    needs_files: bool = False


PARTS = {
    "generator": Part("generator: CSVs to folders", of_generator, needs_files=True),
    "decoding": Part("folders to cache, and the start", of_loading, needs_files=True),
    "start": Part("start, with the cache", of_loading),
    "duplicates": Part("near-duplicates, training against one validation split", of_duplicates),
    "batches": Part("batches of an epoch, one core", of_batches, "images_per_s"),
    "metrics": Part("metrics of an evaluation of validation", of_metrics),
    "predict": Part("predict on the validation folder, `base`", of_predict, needs_files=True),
}


def memory_mib(field: str) -> float:
    """Return a field of /proc/self/status in MiB, which getrusage cannot tell: it counts the parent process too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def run_here(part: Part, data: Path, multiple: int, seconds: float) -> None:
    """Run a part in this process and print its images, seconds and memory as JSON."""
    done, seen = threading.Event(), [memory_mib("RssAnon")]

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(max(seen.pop(), memory_mib("RssAnon")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        start = time.perf_counter()
        images = part.run(data, multiple, seconds)
        elapsed = time.perf_counter() - start
    finally:
        done.set()
        watcher.join()
    memory = {"anonymous_mib": round(seen[0]), "peak_mib": round(memory_mib("VmHWM"))}
    print(json.dumps({"images": images, "seconds": elapsed, **memory}))


def run_apart(name: str, data: Path, multiple: int, seconds: float) -> measure.Record:
    """Return the measurement of a part in a new process."""
    part = PARTS[name]
    measure.progress(f"{part.what}, {multiple} times")
    command = [sys.executable, __file__, str(data), "--part", name, "--multiples", str(multiple)]
    process = subprocess.run([*command, "--seconds", str(seconds)], cwd=ROOT, capture_output=True)
    if process.returncode:
        raise UserError(f"{part.what} failed: {last_line(process.stderr)}")
    result = json.loads(process.stdout.splitlines()[-1])
    value = result["seconds"] if part.unit == "seconds" else result["images"] / result["seconds"]
    how = f"{multiple} times, {result['images']:,} images"
    return {"what": part.what, "how": how, **measure.summary([value], part.unit)} | {
        column: result[column] for column in COLUMNS
    }


def measurements(source: Path, multiples: Sequence[int], most_files: int, seconds: float) -> Iterator[measure.Record]:
    count = sum(len(split.names) for _, split, _, _ in copies(source, 1))
    for multiple in multiples:
        with_files = count * multiple <= most_files
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch, "data")
            measure.progress(f"writing {count * multiple:,} images")
            if with_files:
                write_csvs(source, multiple, data.parent)
            else:
                write_caches(source, multiple, data)
            for name, part in PARTS.items():
                if with_files or not part.needs_files:
                    yield run_apart(name, data, multiple, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the data folder, for example sample/data")
    parser.add_argument("--multiples", type=int, nargs="+", default=[1, 4, 16], metavar="K", help="default 1 4 16")
    most_help = "images that are written as files, at most (default 100,000)"
    parser.add_argument("--most-files", type=int, default=100_000, metavar="N", help=most_help)
    parser.add_argument("--seconds", type=float, default=30, help="of batches at most (default 30)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # in this process, of the folder as it is
    args = parser.parse_args()
    if not all(1 <= multiple <= len(MOVES) for multiple in args.multiples):
        raise UserError(f"--multiples {args.multiples}: give numbers from 1 to {len(MOVES)}")
    if args.part:
        return run_here(PARTS[args.part], args.data, args.multiples[0], args.seconds)
    if not folders.has(args.data, "train"):
        raise UserError(f"no data in {args.data}: make sample")
    measure.report(measurements(args.data, args.multiples, args.most_files, args.seconds), COLUMNS)


if __name__ == "__main__":
    cli.run(main)
