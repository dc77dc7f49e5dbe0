"""Predictions for image files: a table, a CSV file and a sheet of the images."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_jax import inference
from fer_jax.core import atomic
from fer_jax.core.text import counted, printable
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import crop
from fer_jax.reporting import document
from fer_jax.reporting.document import Table

SHEET = 48  # images on the sheet at most
ROWS = 40  # rows of the table on the terminal at most


def predict_files(
    paths: Sequence[Path], runs: Sequence[Path], checkpoint: str, flip: bool, csv_file: Path | None, sheet: Path | None
) -> None:
    """Predict images, print the two likeliest emotions of each, and write all probabilities.

    Args:
        paths: image files, or folders of them.
        runs: run folders; their probabilities are averaged.
        checkpoint: "best" or "latest".
        flip: average in the predictions for the mirrored images.
        csv_file: the file for all probabilities, or None.
        sheet: the PNG file for the first images as the network sees them, or None.

    Raises:
        UserError: a file is missing or is not an image, or a run cannot be read.
    """
    files = crop.find(paths)
    images = np.stack([crop.read(file) for file in files])
    networks = [inference.restore(run, checkpoint) for run in runs]
    log_probs = [inference.log_probabilities(network, images, flip) for network in networks]
    probabilities = np.exp(inference.average(log_probs))
    if csv_file is not None:
        with atomic.replacing(csv_file) as partial, open(partial, "w", newline="", encoding="utf-8") as out_file:
            csv.writer(out_file).writerows(as_csv(files, probabilities))
    if sheet is not None:
        _draw_sheet(files, images, probabilities, f"{' and '.join(map(str, runs))}{', flip' * flip}", sheet)
    print(document.to_text(table(files[:ROWS], probabilities[:ROWS])))
    if len(files) > ROWS:
        rest = counted(len(files) - ROWS, "more image")
        print(f"... and {rest}{'' if csv_file else '; --csv writes all of them to a file'}")
    if csv_file is not None:
        print(f"probabilities: {csv_file}")
    if sheet is not None:
        print(f"sheet: {sheet}, {min(SHEET, len(files))} of {len(files)} images")


def table(files: Sequence[Path], probabilities: np.ndarray) -> Table:
    """Return the two likeliest emotions of each image."""
    rows = []
    for file, row in zip(files, probabilities, strict=True):
        first, second = np.argsort(-row)[:2]
        name = printable(file)
        name = name if len(name) <= 50 else f"...{name[-47:]}"
        rows.append([name, EMOTIONS[first], f"{row[first]:.1%}", EMOTIONS[second], f"{row[second]:.1%}"])
    return Table(["image", "likeliest", "", "then", ""], rows)


def as_csv(files: Sequence[Path], probabilities: np.ndarray) -> list[list[str]]:
    """Return a header, and a row for each image: its file and its probabilities to four digits."""
    rows = [
        [printable(file), *(f"{value:.4f}" for value in row)] for file, row in zip(files, probabilities, strict=True)
    ]
    return [["file", *EMOTIONS], *rows]


def _draw_sheet(files: Sequence[Path], images: np.ndarray, probabilities: np.ndarray, title: str, file: Path) -> None:
    from fer_jax.reporting import galleries, plots

    shown = slice(SHEET)
    names = [printable(Path(path.name)) for path in files[shown]]
    drawn = plots.png(galleries.predictions(images[shown], probabilities[shown], names, title))
    with atomic.replacing(file) as partial:
        partial.write_bytes(drawn)
