"""The list of images with doubtful labels: a table, a CSV file and a sheet of the first ones."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fer_jax.core import atomic
from fer_jax.core.text import counted
from fer_jax.curation import suspects
from fer_jax.curation.own_data import SOURCES
from fer_jax.curation.suspects import Ranking
from fer_jax.data import folders
from fer_jax.data.folders import FOLDERS
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces.timeline_plot import drawable
from fer_jax.reporting import document, galleries, plots
from fer_jax.reporting.document import Table

ROWS = 20  # of the table on the terminal
NAME = 50  # characters of a file's name in the table
SHEET = 48  # images on the sheet


def list_suspects(
    config: ConfigDict, runs: Sequence[Path], folds: int, workdir: Path, csv_file: Path | None, sheet: Path | None
) -> None:
    """Print the training images whose votes contradict the predictions most, and write the files that are named.

    Args:
        config: of the folds' networks; `data.dir` is the data folder.
        runs: the networks that predict; if there are none, networks of `folds` folds are trained in `workdir`. After a
            signal nothing is written.
        folds, workdir: see `suspects.out_of_fold`.
        csv_file: the file for the whole list, or None.
        sheet: the PNG file for the first images, or None.

    Raises:
        UserError: config, data or a run cannot be used.
    """
    data_dir = Path(config.data.dir).expanduser()
    split = folders.load(data_dir, "train")
    if runs:
        log_probs = suspects.predictions(runs, split.images)
    elif (finished := suspects.out_of_fold(config, folds, workdir)) is not None:
        log_probs = finished
    else:
        return
    write(suspects.rank(split, log_probs), sources(data_dir / FOLDERS["train"]), csv_file, sheet)


def write(ranking: Ranking, files: Mapping[str, str], csv_file: Path | None, sheet: Path | None) -> None:
    """Print the first rows of a ranking, and write all of it to a CSV file and the first images to a PNG file.

    Args:
        ranking: the images.
        files: the user's file by the name of the image; see `sources`.
        csv_file, sheet: see `list_suspects`.
    """
    rows = as_rows(ranking, files)
    if csv_file is not None:
        with atomic.replacing(csv_file) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    if sheet is not None:
        shown = slice(SHEET)
        title = "Images whose votes contradict the predictions most"
        figure = galleries.gallery(
            ranking.images[shown],
            ranking.votes[shown],
            ranking.probabilities[shown],
            ranking.label[shown],
            title,
            [drawable(files.get(str(name), str(name))) for name in ranking.names[shown]],
        )
        with atomic.replacing(sheet) as partial:
            partial.write_bytes(plots.png(figure))
    agreed = np.mean(ranking.label == ranking.prediction)
    print(document.to_text(table(ranking, files)))
    print(f"the prediction is the label for {agreed:.1%} of {counted(len(ranking.label), 'image')}")
    for name, path in (("list", csv_file), ("sheet", sheet)):
        if path is not None:
            print(f"{name}: {path}")


def sources(folder: Path) -> dict[str, str]:
    """Return the files of the user behind the images of an imported split; {} for a split of other origin."""
    try:
        with open(folder / SOURCES, newline="", encoding="utf-8") as file:
            return {row["name"]: row["file"] for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}


def as_rows(ranking: Ranking, files: Mapping[str, str]) -> list[list[str]]:
    """Return a header, and a row for each image with its probabilities to four digits."""
    header = ["name", "file", "contradiction", "label", "target", "prediction", *EMOTIONS]
    rows = [
        [
            str(name),
            files.get(str(name), ""),
            f"{contradiction:.4f}",
            EMOTIONS[label],
            f"{target[label]:.2f}",
            EMOTIONS[prediction],
            *(f"{value:.4f}" for value in probabilities),
        ]
        for name, contradiction, label, target, prediction, probabilities in zip(
            ranking.names,
            ranking.contradiction,
            ranking.label,
            ranking.target,
            ranking.prediction,
            ranking.probabilities,
            strict=True,
        )
    ]
    return [header, *rows]


def table(ranking: Ranking, files: Mapping[str, str]) -> Table:
    """Return the first images: file, label, prediction, its probability, contradiction."""
    rows = [
        [
            _shortened(files.get(str(ranking.names[i]), str(ranking.names[i]))),
            EMOTIONS[ranking.label[i]],
            EMOTIONS[ranking.prediction[i]],
            f"{ranking.probabilities[i].max():.1%}",
            f"{ranking.contradiction[i]:.2f}",
        ]
        for i in range(min(ROWS, len(ranking.names)))
    ]
    caption = "contradiction: KL divergence of the predictions from the votes, in nats"
    return Table(["image", "label", "prediction", "probability", "contradiction"], rows, caption)


def _shortened(name: str) -> str:
    """The name without its start if it is long."""
    return name if len(name) <= NAME else f"...{name[3 - NAME :]}"
