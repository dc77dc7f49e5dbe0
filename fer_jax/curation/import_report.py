"""The result of an import on the terminal: images by class and split, and the images left out."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fer_jax.core.cli import command
from fer_jax.core.text import counted
from fer_jax.curation.listing import LeftOut
from fer_jax.curation.own_data import Imported
from fer_jax.data.labels import EMOTIONS
from fer_jax.reporting import document
from fer_jax.reporting.document import Table

SKIPPED = 10  # files named that cannot be read
NAMED = 3  # images named for each other reason


def show(result: Imported, out: Path) -> None:
    """Print the files that cannot be read to stderr, and the table, the images left out and the next command."""
    for entry in result.unreadable[:SKIPPED]:
        print(f"skipped: {entry.name}: {entry.reason}", file=sys.stderr)
    if len(result.unreadable) > SKIPPED:
        more = counted(len(result.unreadable) - SKIPPED, "more file")
        print(f"skipped: {more} that cannot be read", file=sys.stderr)
    print(document.to_text(table(result.counts)))
    print("\n".join([*absences(result.counts), *reasons(result.left_out)]))
    print(f"data folder: {out}; train with: {command('main')} --config finetune --config.data.dir={out}")


def table(counts: Mapping[str, Sequence[int]]) -> Table:
    """Return the images by class and split; classes without an image have no row."""
    columns = np.array(list(counts.values()))
    rows = [
        [emotion, *(f"{count:,}" for count in (*columns[:, index], columns[:, index].sum()))]
        for index, emotion in enumerate(EMOTIONS)
        if columns[:, index].any()
    ]
    rows.append(["all", *(f"{count:,}" for count in (*columns.sum(axis=1), columns.sum()))])
    return Table(["images", *counts, "all"], rows)


def absences(counts: Mapping[str, Sequence[int]]) -> list[str]:
    """Return lines that name the emotions without a training image, and those without a validation image."""
    lines = []
    if absent := [emotion for emotion, count in zip(EMOTIONS, counts["train"], strict=True) if not count]:
        lines.append(f"no training image of {', '.join(absent)}: a network trained on these data does not predict them")
    pairs = zip(EMOTIONS, counts["train"], counts["valid"], strict=True)
    if absent := [emotion for emotion, train, valid in pairs if train and not valid]:
        lines.append(f"no validation image of {', '.join(absent)}: their metrics are missing; give more images of them")
    return lines


def reasons(left_out: Sequence[LeftOut]) -> list[str]:
    """Return a line for each reason: the number of images, the reason, and the first images."""
    names: dict[str, list[str]] = {}
    for entry in left_out:
        names.setdefault(entry.reason, []).append(f"{entry.name}{f' ({entry.detail})' * bool(entry.detail)}")
    return [
        f"left out: {len(group):,} {reason}: {', '.join(group[:NAMED])}{', ...' * (len(group) > NAMED)}"
        for reason, group in names.items()
    ]
