"""Compare the generator with a plain row-by-row csv and Pillow loop, on the same files in one run.

    python benchmarks/generator.py fer_generator

The folder contains fer2013.csv and fer2013new.csv. The real files take some minutes, and 150 MB of temporary disk space
per repeat and measurement. The drawn sample (`make sample`, folder sample) takes seconds.
"""

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_generator.generate_training_data import generate
from fer_generator.read_csv import SIDE, SPLIT_FOLDERS
from fer_jax.core import cli


def plain(fer_csv: Path, ferplus_csv: Path, out_dir: Path) -> None:
    """Write the data set as the published FERPlus script does: csv.reader, then an array and an Image for each row."""
    for folder in SPLIT_FOLDERS.values():
        os.makedirs(out_dir / folder)
    with open(ferplus_csv) as file:
        entries = [[field.strip() for field in row] for row in islice(csv.reader(file), 1, None)]
    labels: dict[str, list[list[str]]] = {}
    with open(fer_csv) as file:
        for entry, (_, pixels, usage) in zip(entries, islice(csv.reader(file), 1, None), strict=True):
            if entry[1]:
                image = np.asarray(pixels.split(" "), dtype=np.uint8).reshape(SIDE, SIDE)
                Image.fromarray(image).save(out_dir / SPLIT_FOLDERS[usage] / entry[1], compress_level=0)
                labels.setdefault(usage, []).append([entry[1], f"(0, 0, {SIDE}, {SIDE})", *entry[2:]])
    for usage, rows in labels.items():
        with open(out_dir / SPLIT_FOLDERS[usage] / "label.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)


def measurements(files: tuple[Path, Path], repeats: int) -> Iterator[measure.Record]:
    with open(files[0], "rb") as file:
        rows = sum(1 for _ in file) - 1  # this also reads the file into the page cache
    functions: dict[str, Callable[..., object]] = {"plain loop": plain, "generator": generate}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    # All output stays until the end: on ext4, creating files is slow soon after others were deleted.
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in tqdm(range(repeats), desc="Repeats", disable=None):
            for name, function in functions.items():
                start = time.perf_counter()
                function(*files, Path(scratch, f"{name} {repeat}"))
                seconds[name].append(time.perf_counter() - start)
    for name, runs in seconds.items():
        record = {"what": f"generator, {rows:,} rows", "how": name, "baseline": name == "plain loop"}
        yield record | measure.summary(runs, "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with fer2013.csv and fer2013new.csv")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each function, in turn (default 3)")
    args = parser.parse_args()
    files = args.folder / "fer2013.csv", args.folder / "fer2013new.csv"
    measure.report(measurements(files, args.repeats), ("ratio", "runs"))


if __name__ == "__main__":
    cli.run(main)
