"""Sheets of faces: single faces with their votes and probabilities, and class means with their saliency."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.ndimage import gaussian_filter

from fer_jax.core.text import counted
from fer_jax.data.labels import EMOTIONS, VOTES
from fer_jax.reporting.style import BLUE, DPI, ORANGE, SMALL, TEXT, TINY, TITLE, WIDTH, percent, wrapped

PALE = "#E3E3E3"
MARGIN = 0.1  # inches
NAME = 24  # characters of an image's name that fit under it


def gallery(
    images: np.ndarray,
    votes: np.ndarray,
    probabilities: np.ndarray,
    label: np.ndarray,
    title: str,
    names: Sequence[str] = (),
) -> Figure:
    """Draw faces in two columns, each with its label, the prediction, and bars of votes and probabilities.

    Args:
        images: u8[K, 48, 48], K >= 0, in the order of reading.
        votes: i[K, 10], in the order of `labels.VOTES`.
        probabilities: f[K, 8].
        label: i[K], 0..7.
        title: names the selection of images.
        names: of each image, for the captions; none by default. A long name loses its start.
    """
    fractions = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    captions = [
        f"label {EMOTIONS[emotion]}\nmodel {EMOTIONS[prediction]}"
        for emotion, prediction in zip(label, probabilities.argmax(axis=1), strict=True)
    ]
    bars = {"votes of the annotators": (ORANGE, fractions), "probability by the model": (BLUE, probabilities)}
    return _faces(images, captions, VOTES, bars, _with_count(title, len(images)), [_short(name) for name in names])


def predictions(
    images: np.ndarray, probabilities: np.ndarray, names: Sequence[str], title: str, notes: Sequence[str] = ()
) -> Figure:
    """Draw faces in two columns, each with its name, the prediction, and bars of the probabilities.

    Args:
        images: u8[K, 48, 48], K >= 1, in the order of reading.
        probabilities: f[K, 8].
        names: of each image; a long name loses its start.
        title: names the selection of images.
        notes: lines below the faces.
    """
    captions = [f"{_short(name)}\n{EMOTIONS[c]}" for name, c in zip(names, probabilities.argmax(axis=1), strict=True)]
    bars = {"probability by the model": (BLUE, probabilities)}
    return _faces(images, captions, EMOTIONS, bars, title, notes=notes)


def _faces(
    images: np.ndarray,
    captions: Sequence[str],
    classes: Sequence[str],
    bars: Mapping[str, tuple[str, np.ndarray]],
    title: str,
    names: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Figure:
    """Draw faces in two columns with captions below them and bars next to them.

    Bars are f[K, classes] by name, with a colour. They can be of the first classes only. The longest bar of the last
    name has its percentage at the end. `names` go below captions of two lines and the bars, where they have room.
    """
    side, left, full, pitch = 1.15, 2.1, 0.95, 0.148  # inches: face, start and 100% of bars, bar pair
    cell = 1.68 + 0.17 * bool(names)  # inches: row
    rows = -(-len(images) // 2)
    notes_top = max(cell * rows, 0.2) + 0.35
    figure, axes, top = _canvas(title, notes_top + 0.2 * len(notes))
    for i, note in enumerate(notes):
        axes.text(MARGIN, top + notes_top + 0.2 * i, note, va="top", fontsize=TINY)
    if not len(images):
        axes.text(MARGIN, top, "There is no such image.", va="top", fontsize=TEXT)
        return figure
    colours = {name: colour for name, (colour, _) in bars.items()} | {"100%": PALE}
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    corner: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, top), "bbox_transform": axes.transData}
    axes.legend(handles=handles, ncols=3, fontsize=SMALL, frameon=False, handlelength=1.2, borderpad=0, **corner)

    x, y = np.arange(len(images)) % 2 * WIDTH / 2, top + 0.35 + np.arange(len(images)) // 2 * cell
    middle = pitch * (np.arange(len(classes)) + 0.5)
    *_, (_, last) = bars.values()
    for i, image in enumerate(images):
        face = x[i] + MARGIN
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(face, face + side, y[i] + side, y[i]))
        axes.text(face, y[i] + side + 0.04, captions[i], va="top", fontsize=SMALL, parse_math=False)
        if names:
            axes.text(face, y[i] + side + 0.37, names[i], va="top", fontsize=SMALL, parse_math=False)
        for j, name in enumerate(classes):
            axes.text(x[i] + left - 0.06, y[i] + middle[j], name, ha="right", va="center_baseline", fontsize=TINY)
        end, longest = x[i] + left + full + 0.04, last[i].argmax()
        axes.text(end, y[i] + middle[longest], f"{last[i, longest]:.0%}", va="center_baseline", fontsize=TINY)

    # All bars of a kind are one collection of thick lines: hundreds of patches would take their time.
    offsets = (np.arange(len(bars)) - (len(bars) - 1) / 2) * 0.4
    for (colour, values), offset in zip(bars.values(), offsets, strict=True):
        level = (y[:, None] + middle[: values.shape[1]] + offset * pitch).ravel()
        start = np.repeat(x + left, values.shape[1])
        axes.hlines(level, start, start + full, color=PALE, linewidth=72 * 0.38 * pitch)
        axes.hlines(level, start, start + full * values.ravel(), color=colour, linewidth=72 * 0.38 * pitch)
    return figure


def _short(name: str) -> str:
    """The name without its start if it is long."""
    return name if len(name) <= NAME else f"...{name[3 - NAME :]}"


def saliency(maps: np.ndarray, mean_faces: np.ndarray, counts: np.ndarray, title: str, quantity: str) -> Figure:
    """Draw for each class the mean map on the mean face, and the map alone below it.

    Maps are smoothed (Gaussian, 1.5 pixels), since gradients of neighbouring pixels differ at random. Each is drawn
    relative to its own maximum. The number above it is this maximum, the only comparison between classes. A white line
    on the face surrounds the values above three quarters of the maximum.

    Args:
        maps: f[8, 48, 48], >= 0; the map of a class without images is not used.
        mean_faces: f[8, 48, 48]; each is stretched from black to white.
        counts: i[8], the number of images behind each mean.
        title: the method, and the images.
        quantity: the measured quantity, for the colour bar.
    """
    side, step, block = 1.62, 1.727, 3.82  # inches: image, column, row of classes
    figure, axes, top = _canvas(_with_count(title, np.sum(counts)), 2 * block + 1.05)
    note = "Above: on the mean face, with a line around values over 75% of the maximum. Below: alone."
    axes.text(MARGIN, top, note, va="top", fontsize=TINY)
    colours = colormaps["inferno"]
    for i, emotion in enumerate(EMOTIONS):
        x, y = MARGIN + i % 4 * step, top + 0.7 + i // 4 * block
        axes.text(x, y - 0.24, f"{emotion} ({counts[i]:,})", fontsize=SMALL)
        if not counts[i]:
            axes.text(x, y - 0.06, "no images", fontsize=TINY)
            continue
        smooth = gaussian_filter(maps[i], 1.5)
        highest = smooth.max()
        axes.text(x, y - 0.06, f"maximum {highest:.2g}", fontsize=TINY)
        level = smooth / (highest or 1)
        face = Normalize()(mean_faces[i])
        blended, alone = (x, x + side, y + side, y), (x, x + side, y + 2 * side + 0.06, y + side + 0.06)
        blend = 0.6 * level[..., None]
        axes.imshow((1 - blend) * face[..., None] + blend * colours(level)[..., :3], extent=blended)
        if level.min() < 0.75 < level.max():
            axes.contour(level, levels=[0.75], colors="white", linewidths=1.2, extent=blended, origin="upper")
        axes.imshow(level, cmap=colours, vmin=0, vmax=1, extent=alone, interpolation="bilinear")
    height = figure.get_figheight()
    bar = figure.add_axes((0.2, 0.5 / height, 0.6, 0.12 / height))
    figure.colorbar(ScalarMappable(Normalize(0, 1), colours), cax=bar, orientation="horizontal", format=percent)
    bar.set_xlabel(f"{quantity}, relative to the class's maximum", fontsize=SMALL)
    bar.tick_params(labelsize=SMALL)
    return figure


def _with_count(title: str, count: float) -> str:
    """The title with the number of images, which stays on one line."""
    return f"{title} ({counted(count, 'image')})".replace(f"({count:,.0f} ", f"({count:,.0f}\xa0")


def _canvas(title: str, height: float) -> tuple[Figure, Axes, float]:
    """Return a figure whose only axes measure inches from its top left corner, so that every position is known.

    Returns:
        The figure, its axes, and the end of the title in inches. `height` inches follow below it.
    """
    title = wrapped(title)
    top = 0.25 + 0.2 * len(title.splitlines())
    figure = Figure(figsize=(WIDTH, top + height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(top + height, 0), autoscale_on=False)
    axes.axis("off")
    figure.suptitle(title, x=0.01, y=1 - 0.1 / (top + height), ha="left", va="top", fontsize=TITLE, parse_math=False)
    return figure, axes, top
