"""Times the generator against a plain row-by-row csv and Pillow loop, on the same files in one run.

    python -m benchmarks.generator FOLDER

FOLDER holds fer2013.csv and fer2013new.csv. Prints one JSON line per measurement and a Markdown table. Takes
some minutes on the real files and 150 MB of temporary disk space per repeat and measurement.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_generator.generate_training_data import generate
from fer_generator.read_csv import SIDE, SPLIT_FOLDERS


def plain(fer_csv: Path, ferplus_csv: Path, out_dir: Path) -> None:
    """What the published FERPlus script does: csv.reader, then for each row an array, an Image and its save."""
    for folder in SPLIT_FOLDERS.values():
        os.makedirs(out_dir / folder)
    with open(ferplus_csv) as file:
        entries = [[field.strip() for field in row] for row in islice(csv.reader(file), 1, None)]
    labels: dict[str, list[list[str]]] = {}
    with open(fer_csv) as file:
        for entry, (_, pixels, usage) in zip(entries, islice(csv.reader(file), 1, None), strict=True):
            if entry[1]:
                picture = np.asarray(pixels.split(" "), dtype=np.uint8).reshape(SIDE, SIDE)
                Image.fromarray(picture).save(out_dir / SPLIT_FOLDERS[usage] / entry[1], compress_level=0)
                labels.setdefault(usage, []).append([entry[1], f"(0, 0, {SIDE}, {SIDE})", *entry[2:]])
    for usage, rows in labels.items():
        with open(out_dir / SPLIT_FOLDERS[usage] / "label.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time the generator against a plain row-by-row csv and Pillow loop on the same files.",
        epilog="example: python -m benchmarks.generator fer_generator",
    )
    parser.add_argument("folder", type=Path, help="folder with fer2013.csv and fer2013new.csv")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn (default 3)")
    args = parser.parse_args()
    files = args.folder / "fer2013.csv", args.folder / "fer2013new.csv"
    with open(files[0], "rb") as file:
        rows = sum(1 for _ in file) - 1  # reading it also brings it into the page cache

    functions: dict[str, Callable[..., object]] = {"plain loop": plain, "generator": generate}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    # All output stays until the end: on ext4, files are slow to create soon after others were deleted.
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in tqdm(range(args.repeats), desc="Repeats", disable=None):
            for name, function in functions.items():
                start = time.perf_counter()
                function(*files, Path(scratch, f"{name} {repeat}"))
                seconds[name].append(time.perf_counter() - start)

    lines = ["| | seconds, median (min to max) | rows/s | ratio |", "| --- | --- | --- | --- |"]
    for name, runs in seconds.items():
        middle, ratio = median(runs), median(seconds["plain loop"]) / median(runs)
        shown = {"median": middle, "min": min(runs), "max": max(runs)}
        record = {"benchmark": "generator", "name": name, "rows": rows, "repeats": args.repeats}
        print(json.dumps(record | {f"seconds_{key}": round(value, 3) for key, value in shown.items()}))
        spread = f"{middle:.1f} ({min(runs):.1f} to {max(runs):.1f})"
        lines.append(f"| {name} | {spread} | {rows / middle:,.0f} | {ratio:.1f} |")
    print(f"\n{os.cpu_count()} processors, {rows:,} rows\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
