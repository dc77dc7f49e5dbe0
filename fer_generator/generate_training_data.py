"""Turns fer2013.csv and fer2013new.csv into the FERPlus folders of PNG pictures and votes.

    python fer_generator/generate_training_data.py \\
        -d ./data -fer fer_generator/fer2013.csv -ferplus fer_generator/fer2013new.csv

writes data/FER2013Train, FER2013Valid and FER2013Test (those that the CSVs have pictures for). Each holds one
48x48 8-bit gray ferNNNNNNN.png per picture and a label.csv without a header, in the order of the CSV:
`fer0000000.png,"(0, 0, 48, 48)",n0,...,n9`, the votes for neutral, happiness, surprise, sadness, anger,
disgust, fear, contempt, unknown and NF.

Rows without a file name are skipped. Where a name stands on two rows, the first counts, picture and votes.
Nothing appears before all of the input was read and found right (see all_or_nothing.py). Finished folders
made from the same files (by name, size and time of change) stay; made from other files, they are replaced.
"""

import argparse
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

if not __package__:  # run as a script: only this file's folder is on sys.path, not the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_generator import all_or_nothing, png
from fer_generator.read_csv import (
    EMOTIONS,
    FER_HEADER,
    FERPLUS_HEADER,
    SIDE,
    SOURCE,
    SPLIT_FOLDERS,
    Labels,
    UserError,
    decode_pixels,
    read_labels,
    read_pixels,
)

BLOCK = 256  # rows decoded at once: 2 MB of text


@dataclass(frozen=True)
class Summary:
    """What the folders hold and what was left out. A row is a line of fer2013new.csv; its header is row 1."""

    pictures: dict[str, int]  # split folder -> pictures
    majority: dict[str, list[int]]  # split folder -> pictures by emotion, and last those without a majority
    nameless: int  # rows skipped because they have no file name
    repeated: list[list[Any]]  # [file name, row skipped, row kept]
    changed: bool = True  # False where finished folders of these files were there already


def generate(fer_csv: str | Path, ferplus_csv: str | Path, out_dir: str | Path) -> Summary:
    """Writes the split folders of both CSVs into `out_dir`, all of them or none.

    The CSVs may be plain or end in .gz, .bz2, .xz or .zip. Folders made from the same files stay as they are.

    Raises:
        UserError: wrong input, a folder in the way that was not made here, or one that cannot be written.
    """
    fer_csv, ferplus_csv, out_dir = Path(fer_csv), Path(ferplus_csv), Path(out_dir)
    inputs = [_stamp(fer_csv, FER_HEADER), _stamp(ferplus_csv, FERPLUS_HEADER)]
    try:
        with all_or_nothing.reserved(out_dir) as work:
            record = all_or_nothing.finished_record(out_dir)
            if record and record.get("inputs") == inputs:
                return replace(Summary(**record["summary"]), changed=False)
            all_or_nothing.refuse_foreign(out_dir)
            for folder in SPLIT_FOLDERS.values():
                (work / folder).mkdir(parents=True)
            labels = read_labels(ferplus_csv)
            keep, repeated = _first_of_each_name(labels)
            summary = _summarise(labels, keep, repeated)
            _write_pictures(fer_csv, ferplus_csv, labels, keep, work)
            _write_labels(labels, keep, work)
            record = {"inputs": inputs, "pictures": summary.pictures, "summary": asdict(summary)}
            all_or_nothing.move_in(work, out_dir, record)
            return summary
    except OSError as error:
        what = f"cannot write {error.filename or out_dir}: {error.strerror}"
        raise UserError(f"{what}; make room there or choose another folder with -d") from error


def _stamp(path: Path, header: tuple[str, ...]) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; get the file from {SOURCE[header]}") from None
    return {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _first_of_each_name(labels: Labels) -> tuple[np.ndarray, list[list[Any]]]:
    """Which rows make a picture, bool[N], and [file name, row skipped, row kept] where a name comes again."""
    keep = np.zeros(len(labels.names), bool)
    first: dict[str, int] = {}
    repeated = []
    for index, name in enumerate(labels.names):
        if name in first:
            repeated.append([name, labels.rows[index], labels.rows[first[name]]])
        elif name:
            first[name] = index
            keep[index] = True
    return keep, repeated


def _summarise(labels: Labels, keep: np.ndarray, repeated: list[list[Any]]) -> Summary:
    pictures, majority = {}, {}
    for usage, folder in SPLIT_FOLDERS.items():
        inside = keep & (np.array(labels.usages) == usage)
        if inside.any():
            pictures[folder] = int(inside.sum())
            majority[folder] = _majority_counts(labels.votes[inside])
    return Summary(pictures, majority, labels.names.count(""), repeated)


def _majority_counts(votes: np.ndarray) -> list[int]:
    """Pictures of each emotion by majority, and last those without one: votes i64[N, 10] -> 9 counts."""
    votes = np.where(votes == 1, 0, votes)
    top = votes.argmax(axis=1)
    kept = (2 * votes.max(axis=1) > votes.sum(axis=1)) & (top < len(EMOTIONS))
    return [*np.bincount(top[kept], minlength=len(EMOTIONS)).tolist(), int(np.sum(~kept))]


def _write_pictures(fer_csv: Path, ferplus_csv: Path, labels: Labels, keep: np.ndarray, work: Path) -> None:
    paths = [
        os.path.join(work, SPLIT_FOLDERS[usage], name) if kept else ""
        for usage, name, kept in zip(labels.usages, labels.names, keep, strict=True)
    ]

    def write(start: int, block: tuple[tuple[int, bytes], ...]) -> int:
        rows, texts = zip(*block, strict=True)
        files = png.encode(decode_pixels(fer_csv, rows, texts))
        for path, content in zip(paths[start : start + len(block)], files, strict=True):
            if path:  # rows that are skipped are checked all the same
                with open(path, "wb") as file:
                    file.write(content)
        return len(block)

    # Threads do: decoding and writing release the interpreter lock. The bounded queue bounds the memory.
    workers = min(4, os.cpu_count() or 1)
    pixels = read_pixels(fer_csv, ferplus_csv, labels)
    pending: deque[Future[int]] = deque()
    start = 0
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(paths), desc="Writing pictures", unit="row", disable=None) as bar,
    ):
        while block := tuple(islice(pixels, BLOCK)):
            pending.append(pool.submit(write, start, block))
            start += len(block)
            if len(pending) > 2 * workers:
                bar.update(pending.popleft().result())
        for future in pending:
            bar.update(future.result())


def _write_labels(labels: Labels, keep: np.ndarray, work: Path) -> None:
    lines: dict[str, list[str]] = {folder: [] for folder in SPLIT_FOLDERS.values()}
    for usage, name, votes, kept in zip(labels.usages, labels.names, labels.votes.tolist(), keep, strict=True):
        if kept:
            counts = ",".join(map(str, votes))
            lines[SPLIT_FOLDERS[usage]].append(f'{name},"(0, 0, {SIDE}, {SIDE})",{counts}\n')
    for folder, text in lines.items():
        (work / folder / "label.csv").write_bytes("".join(text).encode())


def format_summary(summary: Summary, out_dir: str | Path) -> str:
    """The table of pictures and majority classes by split, and the rows skipped."""
    columns = ["pictures", *EMOTIONS, "none"]
    rows = [
        [f"{count:,}" for count in (pictures, *summary.majority[folder])]
        for folder, pictures in summary.pictures.items()
    ]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    state = "" if summary.changed else ", there already from the same files: nothing changed"
    lines = [
        f"Pictures in {out_dir}{state}.",
        "Classes by majority: without counts of one vote, the emotion that has more than half of the votes.",
    ]
    for name, cells in zip(["", *summary.pictures], [columns, *rows], strict=True):
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([name.ljust(12), *padded]))
    lines.append(f"Rows skipped: {summary.nameless:,} without a file name, {len(summary.repeated):,} repeated")
    for name, row, first in summary.repeated:
        lines.append(f"  row {row} (the header is row 1): {name} stands on row {first} already, which was kept")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status: 1 after wrong input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Turn fer2013.csv and fer2013new.csv into folders of 48x48 PNG pictures with label.csv, "
        "for training, validation and test. The CSVs may be compressed (.gz, .bz2, .xz, .zip). All of the "
        "input is checked before a folder appears. Folders made from the same files stay as they are; made "
        "from other files, they are replaced; folders that this command did not make are never touched.",
        epilog="example: python fer_generator/generate_training_data.py -d ./data "
        "-fer fer_generator/fer2013.csv -ferplus fer_generator/fer2013new.csv",
    )
    parser.add_argument("-d", "--base_folder", required=True, help="where the folders FER2013Train etc. go")
    parser.add_argument("-fer", "--fer_path", required=True, help=f"fer2013.csv, from {SOURCE[FER_HEADER]}")
    parser.add_argument(
        "-ferplus", "--ferplus_path", required=True, help=f"fer2013new.csv, from {SOURCE[FERPLUS_HEADER]}"
    )
    args = parser.parse_args(argv)
    try:
        summary = generate(args.fer_path, args.ferplus_path, args.base_folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    print(format_summary(summary, args.base_folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
