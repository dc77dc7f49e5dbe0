"""Draw a sample data set in the format of FER2013 and FER+, to run everything without a download.

    python -m fer_generator.synthetic -o sample

The command writes sample/fer2013.csv (48x48 gray images) and sample/fer2013new.csv (ten votes for each). The faces
are drawn (fer_generator/faces.py) and the ten annotators simulated. The files have the traps of the real ones:

- An image that all ten annotators label as not a face has no file name.
- The running number in the file names skips some nameless rows and counts others, so it is not a row number.
- One file name is given twice, to different images. The number that belongs to the first of them is missing.
- One image has 9 votes.
- Some Training images have exact duplicates in PublicTest and PrivateTest, with other votes.
"""

import argparse
import filecmp
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fer_generator import console
from fer_generator.console import UserError
from fer_generator.faces import draw_clutter, draw_faces
from fer_generator.read_csv import FER_HEADER, FERPLUS_HEADER, SIDE, SPLIT_FOLDERS, VOTE_COLUMNS
from fer_generator.row_order import FER2013_LABELS

USAGES = tuple(SPLIT_FOLDERS)
UNKNOWN, NOT_A_FACE = VOTE_COLUMNS.index("unknown"), VOTE_COLUMNS.index("NF")
# The label in fer2013.csv for a vote: FER2013 has no contempt, unknown or NF.
LABELS_OF_VOTES = np.append(FER2013_LABELS, [6, 6, 6])

# Probability of each subject of an image (in the order of VOTE_COLUMNS): imbalanced as in FER+, but less so.
SUBJECT_PROBABILITIES = np.array([0.21, 0.21, 0.15, 0.13, 0.10, 0.06, 0.07, 0.05, 0.0, 0.02])

# Probability of an annotator's vote for a face at full intensity (row: emotion shown; column: as in VOTE_COLUMNS).
VOTE_PROBABILITIES = np.array(
    [
        [0.82, 0.03, 0.02, 0.05, 0.02, 0.00, 0.00, 0.03, 0.03, 0.00],
        [0.02, 0.95, 0.01, 0.00, 0.00, 0.00, 0.00, 0.01, 0.01, 0.00],
        [0.02, 0.02, 0.85, 0.00, 0.01, 0.00, 0.08, 0.00, 0.02, 0.00],
        [0.05, 0.00, 0.01, 0.84, 0.02, 0.02, 0.03, 0.01, 0.02, 0.00],
        [0.03, 0.01, 0.01, 0.02, 0.84, 0.06, 0.01, 0.01, 0.01, 0.00],
        [0.02, 0.01, 0.01, 0.03, 0.15, 0.73, 0.01, 0.02, 0.02, 0.00],
        [0.01, 0.01, 0.14, 0.04, 0.01, 0.01, 0.76, 0.00, 0.02, 0.00],
        [0.10, 0.05, 0.00, 0.02, 0.02, 0.03, 0.00, 0.75, 0.03, 0.00],
    ]
)

# Rows of Training that hold the traps (the nameless ones as in the real file).
NAMELESS_ROWS = (17, 59)
NINE_VOTES_ROW = 35
SAME_NAME_ROWS = (52, 69)
DUPLICATE_EVERY = 25  # so 4 % of the rows are duplicates, half of the fraction in the real PublicTest
MIN_ROWS = {"Training": 100, "PublicTest": 25, "PrivateTest": 25}

BATCH = 10  # images drawn at once: larger arrays leave the processor's cache

DESCRIPTION = """\
Draw a sample data set, to try everything without the real data: fer2013.csv
with drawn faces and fer2013new.csv with simulated votes.

An existing file with other content is never overwritten: the command stops.
"""

EPILOG = """\
example: {command} -o sample --train 2400 --seed 0

The line is the same on Linux, macOS and Windows (PowerShell or command prompt).
The last line printed is the command that turns both files into image folders.
"""


class FileConflictError(UserError):
    """An existing file with other content has the path of a sample file."""


class Split(NamedTuple):
    """The rows of one Usage."""

    subject: np.ndarray  # int[N]: the emotion shown, 0..7, or NOT_A_FACE
    intensity: np.ndarray  # f64[N] in 0..1
    pixels: np.ndarray  # u8[N, 48, 48]
    votes: np.ndarray  # int[N, 10]
    label: np.ndarray  # int[N]: the label in fer2013.csv


def annotator_probabilities(subject: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """The vote probabilities of one annotator: subject `int[N]`, intensity `f64[N]` in 0..1 -> `f64[N, 10]`."""
    clarity = np.clip((intensity - 0.15) / 0.5, 0, 1)[:, None]
    clarity = clarity * clarity * (3 - 2 * clarity)
    face = clarity * VOTE_PROBABILITIES[np.minimum(subject, 7)] + (1 - clarity) * VOTE_PROBABILITIES[0]
    # the higher its intensity, the less an object looks like a face
    clutter = np.zeros_like(face)
    clutter[:, NOT_A_FACE] = np.minimum(1, 0.5 + 0.6 * intensity)
    clutter[:, UNKNOWN] = 1 - clutter[:, NOT_A_FACE]
    return np.where(subject[:, None] == NOT_A_FACE, clutter, face)


def vote(rng: np.random.Generator, subject: np.ndarray, intensity: np.ndarray, annotators: int = 10) -> np.ndarray:
    """Draw the vote counts of some annotators: subject `int[N]`, intensity `f64[N]` in 0..1 -> `int[N, 10]`.

    The clearer the expression, the more votes it gets. A weak expression gets votes for neutral.
    """
    return rng.multinomial(annotators, annotator_probabilities(subject, intensity))


def draw_split(seed: int, usage: str, n: int, training: Split | None = None) -> Split:
    """Draw n rows of one Usage, with duplicates of some images of `training`, if it is given.

    Row i depends only on the seed, the Usage, i and the Training row that it duplicates, not on n.
    """

    def stream(purpose: int, batch: int = 0) -> np.random.Generator:
        return np.random.default_rng((seed, USAGES.index(usage), purpose, batch))

    uniform = stream(0).random((n, 2))
    subject_cdf = np.cumsum(SUBJECT_PROBABILITIES / SUBJECT_PROBABILITIES.sum())
    subject = np.searchsorted(subject_cdf, uniform[:, 0], side="right")
    intensity = 0.2 + 0.8 * uniform[:, 1] ** 0.6
    if training is None:
        duplicates = np.arange(0)
        trap_rows = [*NAMELESS_ROWS, NINE_VOTES_ROW, *SAME_NAME_ROWS]
        subject[trap_rows] = NOT_A_FACE, NOT_A_FACE, 1, 2, 3
        intensity[trap_rows] = 1
    else:
        duplicates = np.arange(DUPLICATE_EVERY // 2, min(n, len(training.subject)), DUPLICATE_EVERY)
        subject[duplicates] = training.subject[duplicates]
        intensity[duplicates] = training.intensity[duplicates]

    pixels = np.empty((n, SIDE, SIDE), np.uint8)
    starts = range(0, n, BATCH)
    for start in tqdm(starts, desc=f"Drawing {usage}", unit="face", unit_scale=BATCH, disable=None):
        rows = slice(start, start + BATCH)
        pixels[rows] = draw_faces(stream(1, start), np.minimum(subject[rows], 7), intensity[rows])
        clutter = start + np.flatnonzero(subject[rows] == NOT_A_FACE)
        pixels[clutter] = draw_clutter(stream(2, start), len(clutter))
    votes = vote(stream(3), subject, intensity)
    label = LABELS_OF_VOTES[vote(stream(4), subject, intensity, annotators=1).argmax(1)]
    if training is None:
        votes[NINE_VOTES_ROW, votes[NINE_VOTES_ROW].argmax()] -= 1
    else:
        pixels[duplicates] = training.pixels[duplicates]
    return Split(subject, intensity, pixels, votes, label)


def file_names(votes: np.ndarray) -> list[str]:
    """The file names of all rows in order, votes `int[N, 10]` -> N names, "" where all ten votes are for NF.

    Every second nameless row consumes a number, as about half do in the real file.
    """
    nameless = votes[:, NOT_A_FACE] == 10
    number = np.cumsum(~nameless | (np.cumsum(nameless) % 2 == 1)) - 1
    number[SAME_NAME_ROWS[0]] = number[SAME_NAME_ROWS[1]]
    return ["" if empty else f"fer{i:07d}.png" for empty, i in zip(nameless, number, strict=True)]


def _write_images(path: Path, splits: dict[str, Split]) -> None:
    digits = np.array([str(gray) for gray in range(256)], dtype=object)
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write(",".join(FER_HEADER) + "\n")
        for usage, split in splits.items():
            for label, pixels in zip(split.label, split.pixels, strict=True):
                file.write(f"{label},{' '.join(digits[pixels.ravel()])},{usage}\n")


def _write_votes(path: Path, splits: dict[str, Split]) -> None:
    votes = np.concatenate([split.votes for split in splits.values()])
    usages = [usage for usage, split in splits.items() for _ in split.votes]
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write(",".join(FERPLUS_HEADER) + "\n")
        for usage, name, counts in zip(usages, file_names(votes), votes, strict=True):
            file.write(f"{usage},{name},{','.join(map(str, counts))}\n")


def write_csvs(out_dir: Path, sizes: dict[str, int], seed: int) -> tuple[Path, Path]:
    """Write fer2013.csv and fer2013new.csv with `sizes` rows per Usage (MIN_ROWS or more) and return their paths.

    The same sizes and seed give the same bytes (another kind of processor may round a few gray values differently).
    Files that already hold these bytes are kept.

    Raises:
        FileConflictError: an existing file has other content, so it may be the real data. Nothing is changed.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = out_dir / "fer2013.csv", out_dir / "fer2013new.csv"
    with tempfile.TemporaryDirectory(prefix=".synthetic-", dir=out_dir) as scratch:
        drafts = [Path(scratch, path.name) for path in paths]
        training = draw_split(seed, "Training", sizes["Training"])
        splits = {"Training": training}
        for usage in USAGES[1:]:
            splits[usage] = draw_split(seed, usage, sizes[usage], training)
        _write_images(drafts[0], splits)
        _write_votes(drafts[1], splits)
        missing = [(draft, path) for draft, path in zip(drafts, paths, strict=True) if not path.exists()]
        for draft, path in zip(drafts, paths, strict=True):
            if (draft, path) not in missing and not filecmp.cmp(draft, path, shallow=False):
                raise FileConflictError(
                    f"{path} has other content and is left unchanged; delete it or choose another folder with -o"
                )
        for draft, path in missing:
            os.replace(draft, path)
    return paths


def main(argv: list[str] | None = None, prog: str | None = None) -> int:
    """Run the command and return its exit status: 1 after an error that the user can put right, 130 after Ctrl-C, 143
    after SIGTERM.

    Args:
        argv: the command line's arguments; by default those of this process.
        prog: the name of the command in --help, for a program that calls this one.
    """
    parser = console.Parser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG.format(command=prog or "python -m fer_generator.synthetic"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folder_help = "folder for the two files, made if missing (default: sample)"
    parser.add_argument("-o", "--out", type=Path, default=Path("sample"), metavar="FOLDER", help=folder_help)
    flags = dict(zip(USAGES, ("--train", "--valid", "--test"), strict=True))
    for usage, split, default in zip(USAGES, ("training", "validation", "test"), (2400, 600, 600), strict=True):
        text = f"number of {split} images ({usage}), at least {MIN_ROWS[usage]} (default: {default})"
        parser.add_argument(flags[usage], dest=usage, type=int, default=default, metavar="N", help=text)
    seed_help = "random seed; the same seed and sizes give the same files (default: 0)"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=seed_help)
    args = console.parse(parser, argv)
    sizes = {usage: getattr(args, usage) for usage in USAGES}
    for usage, minimum in MIN_ROWS.items():
        if sizes[usage] < minimum:
            parser.error(f"{flags[usage]} must be at least {minimum}, not {sizes[usage]}")
    if args.seed < 0:
        parser.error(f"--seed must be at least 0, not {args.seed}")

    def command() -> str:
        try:
            images, votes = write_csvs(args.out, sizes, args.seed)
        except OSError as error:
            raise UserError(f"cannot write to {args.out}: {error.strerror}; choose another folder with -o") from None
        counts = ", ".join(f"{n} {usage}" for usage, n in sizes.items())
        lines = [
            f"{console.escaped(images)}: {sum(sizes.values())} images ({counts})",
            f"{console.escaped(votes)}: ten votes for each image",
            f"Next: {generator_command(args.out / 'data', images, votes, prog)}",
        ]
        return "\n".join(lines)

    return console.status(command, "run the same command again", (str(args.out),))


def generator_command(out_dir: Path, fer_csv: Path, ferplus_csv: Path, prog: str | None = None) -> str:
    """The command line that turns both files into image folders, quoted for this system's shell.

    Args:
        out_dir, fer_csv, ferplus_csv: arguments of the command.
        prog: the name of this command as the user typed it, for example "fer-jax sample".
    """
    program, _, name = (prog or "").rpartition(" ")
    start = f"{program} generate" if name == "sample" else "python -m fer_generator.generate_training_data"
    paths = ["-d", str(out_dir), "-fer", str(fer_csv), "-ferplus", str(ferplus_csv)]
    return f"{start} {subprocess.list2cmdline(paths) if os.name == 'nt' else shlex.join(paths)}"


if __name__ == "__main__":
    sys.exit(main(prog="python -m fer_generator.synthetic"))
