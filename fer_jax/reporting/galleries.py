"""Faces to look at: single ones with what is said of them, and class means with their saliency."""

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
NAME = 24  # characters of a picture's name that fit under it


def gallery(images: np.ndarray, votes: np.ndarray, probabilities: np.ndarray, label: np.ndarray, title: str) -> Figure:
    """Faces two to a row, each with its label, the prediction, and bars of the votes beside those of the model.

    Args:
        images: u8[K, 48, 48], K >= 0, in the order of reading.
        votes: i[K, 10], in the order of `labels.VOTES`.
        probabilities: f[K, 8].
        label: i[K], 0..7.
        title: which pictures they are.
    """
    share = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    words = [
        f"label {EMOTIONS[given]}\nmodel {EMOTIONS[guess]}"
        for given, guess in zip(label, probabilities.argmax(axis=1), strict=True)
    ]
    bars = {"votes of the taggers": (ORANGE, share), "probability by the model": (BLUE, probabilities)}
    return _faces(images, words, VOTES, bars, f"{title} ({counted(len(images), 'picture')})")


def predictions(images: np.ndarray, probabilities: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Faces two to a row, each with its name, the prediction, and bars of the probabilities.

    Args:
        images: u8[K, 48, 48], K >= 1, in the order of reading.
        probabilities: f[K, 8].
        names: what each is called; of long ones the end is shown.
        title: which pictures they are.
    """
    short = [name if len(name) <= NAME else f"...{name[3 - NAME :]}" for name in names]
    words = [f"{name}\n{EMOTIONS[guess]}" for name, guess in zip(short, probabilities.argmax(axis=1), strict=True)]
    return _faces(images, words, EMOTIONS, {"probability by the model": (BLUE, probabilities)}, title)


def _faces(
    images: np.ndarray,
    words: Sequence[str],
    classes: Sequence[str],
    bars: Mapping[str, tuple[str, np.ndarray]],
    title: str,
) -> Figure:
    """Faces two to a row with words below them, and beside them bars f[K, classes] of each name in its colour.

    Bars may be of the first classes only; those of the last name have a number at their longest.
    """
    cell, side, left, full, pitch = 1.68, 1.15, 2.1, 0.95, 0.148  # inches: row, face, start and 100% of bars, bar pair
    rows = -(-len(images) // 2)
    figure, axes, top = _canvas(title, max(cell * rows, 0.2) + 0.35)
    if not len(images):
        axes.text(MARGIN, top, "There is no such picture.", va="top", fontsize=TEXT)
        return figure
    named = {name: colour for name, (colour, _) in bars.items()} | {"100%": PALE}
    handles = [Patch(color=colour, label=name) for name, colour in named.items()]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, top), "bbox_transform": axes.transData}
    axes.legend(handles=handles, ncols=3, fontsize=SMALL, frameon=False, handlelength=1.2, borderpad=0, **place)

    x, y = np.arange(len(images)) % 2 * WIDTH / 2, top + 0.35 + np.arange(len(images)) // 2 * cell
    middle = pitch * (np.arange(len(classes)) + 0.5)
    *_, (_, last) = bars.values()
    for i, image in enumerate(images):
        face = x[i] + MARGIN
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(face, face + side, y[i] + side, y[i]))
        axes.text(face, y[i] + side + 0.04, words[i], va="top", fontsize=SMALL, parse_math=False)
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


def saliency(maps: np.ndarray, mean_faces: np.ndarray, counts: np.ndarray, title: str, quantity: str) -> Figure:
    """For each class the mean face under the mean map, and below it the map alone.

    Maps are smoothed (Gaussian, 1.5 pixels: gradients of neighbouring pixels differ at random), and each is drawn
    relative to its own maximum, which stands above it: of one class against another only that number tells. A white
    line on the face surrounds what is above three quarters of it.

    Args:
        maps: f[8, 48, 48], >= 0; of a class without pictures anything.
        mean_faces: f[8, 48, 48]; the same; each is stretched from black to white.
        counts: i[8], the pictures that each is the mean of.
        title: how the maps were made, and of which pictures.
        quantity: what they measure, beside the colour bar.
    """
    side, step, block = 1.62, 1.727, 3.82  # inches: picture, column, row of classes
    figure, axes, top = _canvas(f"{title} ({counted(np.sum(counts), 'picture')})", 2 * block + 1.05)
    note = "Above: on the mean face, a line around what exceeds 75% of the maximum. Below: alone."
    axes.text(MARGIN, top, note, va="top", fontsize=TINY)
    colours = colormaps["inferno"]
    for i, emotion in enumerate(EMOTIONS):
        x, y = MARGIN + i % 4 * step, top + 0.7 + i // 4 * block
        axes.text(x, y - 0.24, f"{emotion} ({counts[i]:,})", fontsize=SMALL)
        if not counts[i]:
            axes.text(x, y - 0.06, "no pictures", fontsize=TINY)
            continue
        smooth = gaussian_filter(maps[i], 1.5)
        highest = smooth.max()
        axes.text(x, y - 0.06, f"maximum {highest:.2g}", fontsize=TINY)
        level = smooth / (highest or 1)
        face = Normalize()(mean_faces[i])
        over, below = (x, x + side, y + side, y), (x, x + side, y + 2 * side + 0.06, y + side + 0.06)
        blend = 0.6 * level[..., None]
        axes.imshow((1 - blend) * face[..., None] + blend * colours(level)[..., :3], extent=over)
        if level.min() < 0.75 < level.max():
            axes.contour(level, levels=[0.75], colors="white", linewidths=1.2, extent=over, origin="upper")
        axes.imshow(level, cmap=colours, vmin=0, vmax=1, extent=below, interpolation="bilinear")
    height = figure.get_figheight()
    bar = figure.add_axes((0.2, 0.5 / height, 0.6, 0.12 / height))
    figure.colorbar(ScalarMappable(Normalize(0, 1), colours), cax=bar, orientation="horizontal", format=percent)
    bar.set_xlabel(f"{quantity}, relative to the class's maximum", fontsize=SMALL)
    bar.tick_params(labelsize=SMALL)
    return figure


def _canvas(title: str, height: float) -> tuple[Figure, Axes, float]:
    """A figure under a title whose only axes measure inches from its top left corner, so that all has a known place.

    Returns the figure, its axes, and how far down the title ends; below that there are `height` inches.
    """
    title = wrapped(title)
    top = 0.25 + 0.2 * len(title.splitlines())
    figure = Figure(figsize=(WIDTH, top + height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(top + height, 0), autoscale_on=False)
    axes.axis("off")
    figure.suptitle(title, x=0.01, y=1 - 0.1 / (top + height), ha="left", va="top", fontsize=TITLE, parse_math=False)
    return figure, axes, top
