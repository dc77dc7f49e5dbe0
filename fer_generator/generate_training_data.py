"""Convert fer2013.csv and fer2013new.csv to the FERPlus folders of PNG images and votes.

    python fer_generator/generate_training_data.py \\
        -d ./data -fer fer_generator/fer2013.csv -ferplus fer_generator/fer2013new.csv

The command writes data/FER2013Train, FER2013Valid and FER2013Test (those that the CSVs have images for). Each holds
one 48x48 8-bit gray ferNNNNNNN.png per image and a label.csv without a header, in the order of the CSV:
`fer0000000.png,"(0, 0, 48, 48)",n0,...,n9`. The ten counts are the votes for neutral, happiness, surprise, sadness,
anger, disgust, fear, contempt, unknown and NF (not a face).

Rows without a file name are skipped. Where two rows have the same name, the first counts, image and votes. Rows in
another order than those of the other file are refused (see row_order.py). Nothing appears before all input has been
read and checked (see all_or_nothing.py). Complete folders made from the same files (by name, size and modification
time) are kept. Folders made from other files are replaced.
"""

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_generator import all_or_nothing, console, png
from fer_generator.console import UserError
from fer_generator.csv_lines import unreadable
from fer_generator.read_csv import (
    EMOTIONS,
    FER_HEADER,
    FERPLUS_HEADER,
    SIDE,
    SOURCE,
    SOURCES,
    SPLIT_FOLDERS,
    Labels,
    Row,
    decode_pixels,
    read_labels,
    read_pixels,
)
from fer_generator.row_order import Order, check, label_number, percent

BLOCK = 256  # rows decoded at once: 2 MB of text
SHOWN = 20  # duplicate names listed at most
STOPPED = "nothing is half-written; run the same command again"

DESCRIPTION = """\
Convert fer2013.csv and fer2013new.csv to folders of 48x48 PNG images:
FER2013Train, FER2013Valid and FER2013Test, each with its votes in label.csv.

The CSV files may be compressed (.gz, .bz2, .xz) or inside a .tar, .tar.gz or
.zip, such as Kaggle's fer2013.tar.gz. Both must have their rows in the order of
the downloads. No folder appears before both have been read and checked. Folders
that this command made from the same files are kept, and those that it made from
other files are replaced. Folders of any other origin are never changed.
"""

EPILOG = """\
downloads:
  fer2013.csv     inside fer2013.tar.gz, which is read as it is
                  {fer_source}
  fer2013new.csv  {ferplus_source}

example: {command} -d data -fer fer2013.csv -ferplus fer2013new.csv

The line is the same on Linux, macOS and Windows (PowerShell or command prompt).
Put a path that contains spaces in "double quotes".
"""


@dataclass(frozen=True)
class Summary:
    """The content of the folders and the rows left out. A row is a line of fer2013new.csv; its header is row 1.

    The field names are keys of generated.json, so folders made by older versions depend on them.
    """

    pictures: dict[str, int]  # split folder -> number of images
    majority: dict[str, list[int]]  # split folder -> images by emotion, and last those without a majority
    nameless: int  # rows skipped because they have no file name
    repeated: list[list[Any]]  # duplicate names: [file name, row skipped, row kept]
    changed: bool = True  # False where complete folders of the same files existed already
    order: list[Order] = field(default_factory=list)  # for each Usage; kept next to the summary in generated.json


def generate(fer_csv: str | Path, ferplus_csv: str | Path, out_dir: str | Path, force: bool = False) -> Summary:
    """Write the split folders of both CSVs into `out_dir`, all of them or none.

    The CSVs may be compressed or in an archive. Folders made from the same files are kept.

    Args:
        fer_csv: fer2013.csv.
        ferplus_csv: fer2013new.csv.
        out_dir: the folder for the split folders, made if missing.
        force: accept rows that are in another order by their emotions.

    Raises:
        UserError: the input is wrong, a split folder of another origin exists, or a folder cannot be written.
    """
    fer_csv, ferplus_csv, out_dir = Path(fer_csv), Path(ferplus_csv), Path(out_dir)
    inputs = [_file_version(fer_csv, FER_HEADER), _file_version(ferplus_csv, FERPLUS_HEADER)]
    try:
        with all_or_nothing.staging_folder(out_dir) as staging:
            record = all_or_nothing.read_record(out_dir)
            if record and record.get("inputs") == inputs:
                return _recorded_summary(record, fer_csv, ferplus_csv, force)
            all_or_nothing.refuse_foreign(out_dir)
            for folder in SPLIT_FOLDERS.values():
                (staging / folder).mkdir(parents=True)
            labels = read_labels(ferplus_csv)
            keep, duplicates = _first_of_each_name(labels)
            content = _summarise(labels, keep, duplicates)
            emotions = _write_images(fer_csv, ferplus_csv, labels, keep, staging)
            order = check(emotions, labels)
            _refuse_wrong_order(order, fer_csv, ferplus_csv, force)
            _write_labels(labels, keep, staging)
            record = {"inputs": inputs, "pictures": content["pictures"], "summary": content}
            record["order"] = [asdict(split) for split in order]
            all_or_nothing.publish(staging, out_dir, record)
            return Summary(**content, order=order)
    except OSError as error:
        problem = f"cannot write {error.filename or out_dir}: {error.strerror}"
        raise UserError(f"{problem}; make it writable, free some space or choose another folder with -d") from error


def _recorded_summary(record: dict[str, Any], fer_csv: Path, ferplus_csv: Path, force: bool) -> Summary:
    """Return the summary of folders that exist already.

    Versions before 0.3 did not check the order of the rows; it is checked here.
    """
    content = {name: value for name, value in record["summary"].items() if name != "changed"}
    if "order" in record:
        order = [Order(**split) for split in record["order"]]
    else:
        labels = read_labels(ferplus_csv)
        numbers = [label_number(row.emotion) for row in read_pixels(fer_csv, ferplus_csv, labels)]
        order = check(np.array(numbers), labels)
        _refuse_wrong_order(order, fer_csv, ferplus_csv, force)
    return Summary(**content, order=order, changed=False)


def _refuse_wrong_order(order: list[Order], fer_csv: Path, ferplus_csv: Path, force: bool) -> None:
    for split in order:
        if split.wrong and not force:
            problem = split.problem(fer_csv, ferplus_csv)
            raise UserError(f"{problem}; use both as downloaded (--force ignores this)")


def _file_version(path: Path, header: tuple[str, ...]) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error, SOURCES[header]) from None
    return {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _first_of_each_name(labels: Labels) -> tuple[np.ndarray, list[list[Any]]]:
    """Return a mask of the rows to keep, bool[N], and [file name, row skipped, row kept] of each duplicate name."""
    keep = np.zeros(len(labels.names), bool)
    first_index: dict[str, int] = {}
    duplicates = []
    for index, name in enumerate(labels.names):
        if name in first_index:
            duplicates.append([name, labels.rows[index], labels.rows[first_index[name]]])
        elif name:
            first_index[name] = index
            keep[index] = True
    return keep, duplicates


def _summarise(labels: Labels, keep: np.ndarray, duplicates: list[list[Any]]) -> dict[str, Any]:
    """Return the fields of the Summary that generated.json keeps."""
    image_counts, majority = {}, {}
    for usage, folder in SPLIT_FOLDERS.items():
        split = keep & (np.array(labels.usages) == usage)
        if split.any():
            image_counts[folder] = int(split.sum())
            majority[folder] = _majority_counts(labels.votes[split])
    return {
        "pictures": image_counts,
        "majority": majority,
        "nameless": labels.names.count(""),
        "repeated": duplicates,
    }


def _majority_counts(votes: np.ndarray) -> list[int]:
    """Count the images of each majority class, and last those without one: votes i64[N, 10] -> 9 counts."""
    votes = np.where(votes == 1, 0, votes)
    top = votes.argmax(axis=1)
    kept = (2 * votes.max(axis=1) > votes.sum(axis=1)) & (top < len(EMOTIONS))
    return [*np.bincount(top[kept], minlength=len(EMOTIONS)).tolist(), int(np.sum(~kept))]


def _write_images(fer_csv: Path, ferplus_csv: Path, labels: Labels, keep: np.ndarray, staging: Path) -> np.ndarray:
    """Write the PNGs of the rows to keep and return the FER2013 labels of all rows, i8[N] in -1..6."""
    paths = [
        os.path.join(staging, SPLIT_FOLDERS[usage], name) if kept else ""
        for usage, name, kept in zip(labels.usages, labels.names, keep, strict=True)
    ]

    def write(start: int, block: tuple[Row, ...]) -> int:
        rows, texts, _ = zip(*block, strict=True)
        files = png.encode(decode_pixels(fer_csv, rows, texts))
        for path, content in zip(paths[start : start + len(block)], files, strict=True):
            if path:  # skipped rows are decoded too, and so checked
                with open(path, "wb") as file:
                    file.write(content)
        return len(block)

    # Threads suffice: decoding and writing release the interpreter lock. The bounded queue bounds the memory.
    workers = min(4, os.cpu_count() or 1)
    pixels = read_pixels(fer_csv, ferplus_csv, labels)
    pending: deque[Future[int]] = deque()
    emotions: list[int] = []
    start = 0
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(paths), desc="Writing images", unit="row", disable=None) as bar,
    ):
        while block := tuple(islice(pixels, BLOCK)):
            pending.append(pool.submit(write, start, block))
            start += len(block)
            emotions += [label_number(row.emotion) for row in block]
            if len(pending) > 2 * workers:
                bar.update(pending.popleft().result())
        for future in pending:
            bar.update(future.result())
    return np.array(emotions, np.int8)


def _write_labels(labels: Labels, keep: np.ndarray, staging: Path) -> None:
    lines: dict[str, list[str]] = {folder: [] for folder in SPLIT_FOLDERS.values()}
    for usage, name, votes, kept in zip(labels.usages, labels.names, labels.votes.tolist(), keep, strict=True):
        if kept:
            counts = ",".join(map(str, votes))
            lines[SPLIT_FOLDERS[usage]].append(f'{name},"(0, 0, {SIDE}, {SIDE})",{counts}\n')
    for folder, text in lines.items():
        (staging / folder / "label.csv").write_bytes("".join(text).encode())


def format_summary(summary: Summary, out_dir: str | Path) -> str:
    """Format the table of images and majority classes by split, the rows skipped and the check of the order."""
    columns = ["images", *EMOTIONS, "none"]
    rows = [
        [f"{count:,}" for count in (image_count, *summary.majority[folder])]
        for folder, image_count in summary.pictures.items()
    ]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    state = "" if summary.changed else ", unchanged: they were made from the same files"
    lines = [
        f"Images in {console.escaped(out_dir)}{state}.",
        "Majority class: the emotion with more than half of the votes, after dropping vote counts of 1.",
    ]
    for folder, cells in zip(["", *summary.pictures], [columns, *rows], strict=True):
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([folder.ljust(12), *padded]))
    lines.append(
        f"Rows skipped: {summary.nameless:,} without a file name, {len(summary.repeated):,} with a duplicate file name"
    )
    for name, skipped, kept in summary.repeated[:SHOWN]:
        lines.append(f"  row {skipped} (the header is row 1): {name} is also the name of row {kept}, which was kept")
    if len(summary.repeated) > SHOWN:
        lines.append(f"  and {len(summary.repeated) - SHOWN:,} more")
    return "\n".join([*lines, *_format_order(summary.order)])


def _format_order(order: list[Order]) -> Iterator[str]:
    """Yield the agreement of emotions and votes, and the splits that could not be checked."""
    checked = [
        f"{split.usage} {percent(split.agreement)} ({percent(split.chance)} by chance)"
        for split in order
        if not split.unchecked
    ]
    if checked:
        yield f"Emotions that agree with the votes: {', '.join(checked)}"
    for reason in dict.fromkeys(split.unchecked for split in order if split.unchecked):
        usages = ", ".join(split.usage for split in order if split.unchecked == reason)
        yield f"Order of the rows not checked: {reason} in {usages}"


def main(argv: list[str] | None = None, prog: str | None = None) -> int:
    """Run the command and return its exit status: 1 after an error in the input, 130 after Ctrl-C, 143 after SIGTERM.

    Args:
        argv: the command line's arguments; by default those of this process.
        prog: the name of the command in --help, for a program that calls this one.
    """
    args = console.parse(_parser(prog), argv)
    paths = (args.fer_path, args.ferplus_path, args.base_folder)

    def command() -> str:
        summary = generate(*paths, force=args.force)
        for split in summary.order:
            if split.doubtful:
                console.print_line(f"warning: {split.problem(args.fer_path, args.ferplus_path)}", paths)
        return format_summary(summary, args.base_folder)

    return console.status(command, STOPPED, paths)


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = console.Parser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG.format(
            command=prog or "python fer_generator/generate_training_data.py",
            fer_source=SOURCE[FER_HEADER],
            ferplus_source=SOURCE[FERPLUS_HEADER],
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folder_help = "folder for the three split folders, made if missing"
    parser.add_argument("-d", "--base_folder", required=True, metavar="FOLDER", help=folder_help)
    parser.add_argument("-fer", "--fer_path", required=True, metavar="CSV", help="path of fer2013.csv, the pixels")
    parser.add_argument(
        "-ferplus", "--ferplus_path", required=True, metavar="CSV", help="path of fer2013new.csv, the votes"
    )
    force_help = "accept rows in another order, where the column emotion has other labels than FER2013's"
    parser.add_argument("--force", action="store_true", help=force_help)
    return parser


if __name__ == "__main__":
    sys.exit(main())
