"""The table of duplicates and near-duplicates between splits, and a sheet of the near-duplicates."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fer_jax.core import atomic
from fer_jax.data import duplicates, folders
from fer_jax.data.duplicates import THRESHOLD, DuplicateCounts, NearDuplicate
from fer_jax.data.folders import SIDE
from fer_jax.reporting import document
from fer_jax.reporting.document import Table


def write(data_dir: str, sheet: Path | None, limit: int) -> None:
    """Print the table of the splits that exist, and draw up to `limit` near-duplicates to the file `sheet`, a PNG.

    Raises:
        UserError: no split, or one that cannot be read.
    """
    names = [split for split in folders.FOLDERS if folders.has(data_dir, split)]
    # Where there is no split, loading the first one raises the error that explains what to do.
    counts, pairs = duplicates.compare({name: folders.load(data_dir, name) for name in names or folders.FOLDERS})
    print(document.to_text(table(counts)))
    if sheet is not None and pairs:
        draw(pairs[:limit], sheet)
        print(f"sheet: {sheet}, {min(limit, len(pairs))} of {len(pairs)} pairs")


def table(counts: dict[tuple[str, str], DuplicateCounts]) -> Table:
    """A row for each pair of splits."""
    caption = (
        f"near: no duplicate, but a correlation of {THRESHOLD} or more (mirrored or shifted, where that is needed)"
    )
    header = ["images of", "duplicated in", "images", "exact", "near", "near: mirrored", "shifted", "in place"]
    rows = [
        [first, second if first != second else "itself", *(f"{count:,}" for count in pair_counts)]
        for (first, second), pair_counts in counts.items()
    ]
    return Table(header, rows, caption)


def draw(pairs: list[NearDuplicate], path: Path) -> None:
    """Draw a sheet of pairs, with the correlation and the file names under each."""
    columns = 8
    rows = -(-len(pairs) // columns)
    page = np.full((rows * 64, columns * 104), 255, np.uint8)
    figure = Figure(figsize=(columns * 1.56, rows * 0.96))
    axes = figure.add_axes((0.01, 0, 0.99, 1))
    axes.set_axis_off()
    for i, pair in enumerate(pairs):
        top, left = i // columns * 64, i % columns * 104
        page[top : top + SIDE, left : left + 2 * SIDE] = pair.pixels
        text = f"{pair.correlation:.3f}  {'  '.join(Path(name).stem for name in pair.names)}"
        axes.text(left, top + SIDE + 2, text, fontsize=6.5, va="top")
    axes.imshow(page, cmap="gray", vmin=0, vmax=255, aspect="auto")
    with atomic.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=140)
