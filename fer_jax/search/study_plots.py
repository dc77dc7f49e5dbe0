"""The charts of a tuning: which fields matter, and which values go with which accuracy."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from fer_jax.reporting import style
from fer_jax.reporting.style import SKY, SMALL, TEXT, VERMILLION, percent


class Scale(NamedTuple):
    """A field's values laid out on a line from 0 to 1."""

    places: np.ndarray  # f[N], of the trials
    ticks: Sequence[tuple[float, str]]  # place and text


def numbers(values: Sequence[float], low: float, high: float, log: bool = False, text: str = "{:.3g}") -> Scale:
    """Numbers from `low` to `high`, evenly or by their logarithm."""
    middle = (low * high) ** 0.5 if log else (low + high) / 2
    line = np.log if log else np.asarray

    def place(value: Any) -> Any:
        return (line(value) - line(low)) / (line(high) - line(low))

    return Scale(place(np.array(values, float)), [(float(place(v)), text.format(v)) for v in (low, middle, high)])


def choices(values: Sequence[Any], known: Sequence[Any]) -> Scale:
    """Choices side by side; trials of the same choice next to each other, so that their lines can be told apart."""
    place = {repr(choice): (index + 0.5) / len(known) for index, choice in enumerate(known)}
    spread = np.linspace(-0.25, 0.25, len(values)) / len(known) if len(values) > 1 else np.zeros(1)
    places = np.array([place[repr(value)] for value in values]) + spread
    return Scale(places, [(place[repr(choice)], str(choice)) for choice in known])


def importance(shares: Mapping[str, float], trials: int, title: str) -> Figure:
    """How much of the differences in accuracy each field accounts for, the largest first: a bar each, together 1."""
    figure = style.chart(0.9 + 0.34 * len(shares), "Importance of the fields (fANOVA)", title, trials, "trial")
    axes = figure.add_subplot()
    names, values = list(shares), np.array([*shares.values()])
    axes.barh(range(len(names)), values, 0.7, color=SKY)
    for row, value in enumerate(values):
        axes.text(value, row, f" {value:.0%}", va="center", fontsize=TEXT)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, max(1.12 * values.max(), 0.01)))
    axes.xaxis.set_major_formatter(percent)
    style.label(axes, "share of the variance of validation accuracy", "")
    return figure


def parallel(fields: Mapping[str, Scale], accuracy: Sequence[float], title: str) -> Figure:
    """Parallel coordinates: a row for each field and one for accuracy, a line for each trial, the best stands out.

    Args:
        fields: the trials' values, at least one.
        accuracy: f[N], 0..1, of the same trials, not all equal.
        title: whose trials.
    """
    low, high = min(accuracy), max(accuracy)
    rows = {**fields, "accuracy": numbers(accuracy, low, high, text="{:.1%}")}
    figure = style.chart(0.7 + 0.72 * len(rows), "Values and accuracy of the trials", title, len(accuracy), "trial")
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("", ["#C9DDF0", "#0B4F8A"])
    shade = ScalarMappable(Normalize(low, high), colours)
    down = np.arange(len(rows))
    lines = np.stack([scale.places for scale in rows.values()])
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
    order = np.argsort(accuracy, kind="stable")
    for trial in order:
        best = trial == order[-1]
        colour = VERMILLION if best else shade.to_rgba(accuracy[trial])
        width, marker = (2.5, 6) if best else (1.3, 3.5)
        axes.plot(lines[:, trial], down, color=colour, linewidth=width, marker="o", markersize=marker)
    for row, scale in enumerate(rows.values()):
        axes.axhline(row, color="#BBBBBB", linewidth=1, zorder=0)
        for place, text in scale.ticks:
            axes.text(place, row + 0.33, text, ha="center", va="center", fontsize=SMALL, bbox=paper, zorder=5)
    axes.set_yticks(down, [textwrap.fill(name.replace(".", ". "), 18).replace(". ", ".") for name in rows])
    axes.set(xticks=[], xlim=(-0.06, 1.06), ylim=(len(rows) - 0.4, -0.4))
    style.label(axes, "a line is a trial: the darker the more accurate, the thick one is the best", "")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    return figure
