"""Draws a sample data set in the format of FER2013 and FER+, so that everything runs without a download.

    python -m fer_generator.synthetic -o sample

writes sample/fer2013.csv (48x48 grey pictures) and sample/fer2013new.csv (ten votes for each). The faces are
drawn (fer_generator/faces.py), the ten taggers simulated; the files have the traps of the real ones:

- pictures that all ten taggers found not to be a face have no file name;
- the running number in the file names skips some nameless rows and counts others, so it is not a row number;
- one file name stands on two rows with different pictures; the number of the first of them is missing;
- one picture has 9 votes;
- some Training pictures stand again, pixel for pixel, in PublicTest and PrivateTest, with other votes.
"""

import argparse
import filecmp
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fer_generator.expressions import EMOTIONS
from fer_generator.faces import SIZE, draw_clutter, draw_faces

USAGES = ("Training", "PublicTest", "PrivateTest")
PIXEL_HEADER = "emotion,pixels,Usage"
VOTE_HEADER = "Usage,Image name," + ",".join(EMOTIONS) + ",unknown,NF"
NOT_A_FACE = 9  # the column of the votes, and the subject of a picture without a face
# fer2013.csv numbers its own labels: anger, disgust, fear, happiness, sadness, surprise, neutral
FER2013_LABELS = np.array([6, 3, 5, 4, 0, 1, 2, 6, 6, 6])

# Share of pictures by subject (the columns of the votes): skewed as FER+ is, but the rare ones are less rare.
SUBJECTS = np.array([0.21, 0.21, 0.15, 0.13, 0.10, 0.06, 0.07, 0.05, 0.0, 0.02])

# What a tagger says of a face at full intensity (rows: shown; columns: as in the votes).
SEEN = np.array(
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

# Where the traps lie: rows of Training (the nameless ones as in the real file).
NAMELESS_ROWS = (17, 59)
NINE_VOTES_ROW = 35
SAME_NAME_ROWS = (52, 69)
REPEAT_EVERY = 25  # the share of repeats, 4 %, is half of that in the real PublicTest
LEAST = {"Training": 100, "PublicTest": 25, "PrivateTest": 25}

BATCH = 10  # pictures drawn at once: larger arrays leave the processor's cache


class OccupiedError(Exception):
    """A file of other content lies where the sample should go."""


class Split(NamedTuple):
    """The rows of one Usage."""

    subject: np.ndarray  # int[N]: the emotion drawn, 0..7, or NOT_A_FACE
    intensity: np.ndarray  # f64[N] in 0..1
    pixels: np.ndarray  # u8[N, 48, 48]
    votes: np.ndarray  # int[N, 10]
    label: np.ndarray  # int[N]: fer2013.csv's own label


def tagger_probabilities(subject: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """What one tagger says of each picture: subject `int[N]`, intensity `f64[N]` in 0..1 -> `f64[N, 10]`."""
    clear = np.clip((intensity - 0.15) / 0.5, 0, 1)[:, None]
    clear = clear * clear * (3 - 2 * clear)
    face = clear * SEEN[np.minimum(subject, 7)] + (1 - clear) * SEEN[0]
    # the more intense, the less a thing looks like a face
    thing = np.zeros_like(face)
    thing[:, NOT_A_FACE] = np.minimum(1, 0.5 + 0.6 * intensity)
    thing[:, 8] = 1 - thing[:, NOT_A_FACE]
    return np.where(subject[:, None] == NOT_A_FACE, thing, face)


def vote(rng: np.random.Generator, subject: np.ndarray, intensity: np.ndarray, taggers: int = 10) -> np.ndarray:
    """Counts the votes of some taggers: subject `int[N]`, intensity `f64[N]` in 0..1 -> `int[N, 10]`.

    The clearer the expression, the more the votes centre on it; a weak one reads as neutral.
    """
    return rng.multinomial(taggers, tagger_probabilities(subject, intensity))


def draw_split(seed: int, usage: str, n: int, training: Split | None = None) -> Split:
    """Draws n rows of one Usage; given the Training rows, it repeats some of their pictures.

    Row i depends on the seed, the Usage and i (and the Training row that it repeats) alone, not on n.
    """

    def stream(purpose: int, batch: int = 0) -> np.random.Generator:
        return np.random.default_rng((seed, USAGES.index(usage), purpose, batch))

    chance = stream(0).random((n, 2))
    subject = np.searchsorted(np.cumsum(SUBJECTS / SUBJECTS.sum()), chance[:, 0], side="right")
    intensity = 0.2 + 0.8 * chance[:, 1] ** 0.6
    if training is None:
        repeats = np.arange(0)
        traps = [*NAMELESS_ROWS, NINE_VOTES_ROW, *SAME_NAME_ROWS]
        subject[traps] = NOT_A_FACE, NOT_A_FACE, 1, 2, 3
        intensity[traps] = 1
    else:
        repeats = np.arange(REPEAT_EVERY // 2, min(n, len(training.subject)), REPEAT_EVERY)
        subject[repeats] = training.subject[repeats]
        intensity[repeats] = training.intensity[repeats]

    pixels = np.empty((n, SIZE, SIZE), np.uint8)
    starts = range(0, n, BATCH)
    for start in tqdm(starts, desc=f"Drawing {usage}", unit="face", unit_scale=BATCH, disable=None):
        rows = slice(start, start + BATCH)
        pixels[rows] = draw_faces(stream(1, start), np.minimum(subject[rows], 7), intensity[rows])
        things = start + np.flatnonzero(subject[rows] == NOT_A_FACE)
        pixels[things] = draw_clutter(stream(2, start), len(things))
    votes = vote(stream(3), subject, intensity)
    label = FER2013_LABELS[vote(stream(4), subject, intensity, taggers=1).argmax(1)]
    if training is None:
        votes[NINE_VOTES_ROW, votes[NINE_VOTES_ROW].argmax()] -= 1
    else:
        pixels[repeats] = training.pixels[repeats]
    return Split(subject, intensity, pixels, votes, label)


def file_names(votes: np.ndarray) -> list[str]:
    """Names for all rows in order, votes `int[N, 10]` -> N names, "" where all ten votes are for NF.

    Every other nameless row takes up a number, as about half do in the real file.
    """
    nameless = votes[:, NOT_A_FACE] == 10
    number = np.cumsum(~nameless | (np.cumsum(nameless) % 2 == 1)) - 1
    number[SAME_NAME_ROWS[0]] = number[SAME_NAME_ROWS[1]]
    return ["" if no_name else f"fer{i:07d}.png" for no_name, i in zip(nameless, number, strict=True)]


def _write_pictures(path: Path, splits: dict[str, Split]) -> None:
    digits = np.array([str(grey) for grey in range(256)], dtype=object)
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write(PIXEL_HEADER + "\n")
        for usage, split in splits.items():
            for label, pixels in zip(split.label, split.pixels, strict=True):
                file.write(f"{label},{' '.join(digits[pixels.ravel()])},{usage}\n")


def _write_votes(path: Path, splits: dict[str, Split]) -> None:
    votes = np.concatenate([split.votes for split in splits.values()])
    usages = [usage for usage, split in splits.items() for _ in split.votes]
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write(VOTE_HEADER + "\n")
        for usage, name, counts in zip(usages, file_names(votes), votes, strict=True):
            file.write(f"{usage},{name},{','.join(map(str, counts))}\n")


def write_csvs(out_dir: Path, sizes: dict[str, int], seed: int) -> tuple[Path, Path]:
    """Writes fer2013.csv and fer2013new.csv of `sizes` rows per Usage (LEAST or more); returns their paths.

    The same sizes and seed give the same bytes (another kind of processor may round a few greys differently).
    Files that hold these bytes already are left alone. Raises OccupiedError, and changes nothing, if one
    holds others: it may be the real data set.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = out_dir / "fer2013.csv", out_dir / "fer2013new.csv"
    with tempfile.TemporaryDirectory(prefix=".synthetic-", dir=out_dir) as scratch:
        drawn = [Path(scratch, path.name) for path in paths]
        training = draw_split(seed, "Training", sizes["Training"])
        splits = {"Training": training}
        for usage in USAGES[1:]:
            splits[usage] = draw_split(seed, usage, sizes[usage], training)
        _write_pictures(drawn[0], splits)
        _write_votes(drawn[1], splits)
        missing = [(new, path) for new, path in zip(drawn, paths, strict=True) if not path.exists()]
        for new, path in zip(drawn, paths, strict=True):
            if (new, path) not in missing and not filecmp.cmp(new, path, shallow=False):
                raise OccupiedError(f"{path} holds something else: delete it or choose another folder with -o")
        for new, path in missing:
            os.replace(new, path)
    return paths


def main(argv: list[str] | None = None) -> None:
    """The command line; exits with status 1 on what the user can mend, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_generator.synthetic",
        description="Draw a sample data set: fer2013.csv and fer2013new.csv with drawn faces and "
        "simulated votes. Existing files of other content are refused, never overwritten.",
        epilog="example: python -m fer_generator.synthetic -o sample --train 2400 --seed 0",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("sample"), help="folder for the two files")
    for usage, flag, default in zip(USAGES, ("--train", "--valid", "--test"), (2400, 600, 600), strict=True):
        text = f"{usage} pictures, at least {LEAST[usage]}"
        parser.add_argument(flag, dest=usage, type=int, default=default, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, help="the same seed and sizes give the same files")
    args = parser.parse_args(argv)
    sizes = {usage: getattr(args, usage) for usage in USAGES}
    for usage, least in LEAST.items():
        if sizes[usage] < least:
            parser.error(f"{sizes[usage]} {usage} pictures are too few: ask for {least} or more")
    if args.seed < 0:
        parser.error("--seed must be 0 or more")
    try:
        faces, votes = write_csvs(args.out, sizes, args.seed)
    except OccupiedError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot write to {args.out}: {error.strerror}: choose another folder with -o")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    counts = ", ".join(f"{n} {usage}" for usage, n in sizes.items())
    print(f"{faces}: {sum(sizes.values())} pictures ({counts})")
    print(f"{votes}: ten votes for each")
    command = ["python", "fer_generator/generate_training_data.py", "-d"]
    print("Next:", shlex.join([*command, str(args.out / "data"), "-fer", str(faces), "-ferplus", str(votes)]))


if __name__ == "__main__":
    main()
