"""The plots of a tuning: the importance of each field, and the values and accuracies of the trials."""

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
    """A field's values as positions on a line from 0 to 1."""

    positions: np.ndarray  # f[N], of the trials
    ticks: Sequence[tuple[float, str]]  # position and text


def numbers(values: Sequence[float], low: float, high: float, log: bool = False, text: str = "{:.3g}") -> Scale:
    """The scale of numbers from `low` to `high`, linear or logarithmic."""
    middle = (low * high) ** 0.5 if log else (low + high) / 2
    transform = np.log if log else np.asarray

    def position(value: Any) -> Any:
        return (transform(value) - transform(low)) / (transform(high) - transform(low))

    ticks = [(float(position(value)), text.format(value)) for value in (low, middle, high)]
    return Scale(position(np.array(values, float)), ticks)


def choices(values: Sequence[Any], options: Sequence[Any]) -> Scale:
    """The scale of choices among `options`; trials of one choice lie next to each other, so that no line hides one."""
    centers = {repr(option): (index + 0.5) / len(options) for index, option in enumerate(options)}
    spread = np.linspace(-0.25, 0.25, len(values)) / len(options) if len(values) > 1 else np.zeros(1)
    positions = np.array([centers[repr(value)] for value in values]) + spread
    return Scale(positions, [(centers[repr(option)], str(option)) for option in options])


def importance(importances: Mapping[str, float], trials: int, title: str) -> Figure:
    """A bar for the importance of each field, largest first.

    Args:
        importances: the fraction of the variance of accuracy that each field explains; the sum is 1.
        trials: the number of trials.
        title: the study's name.
    """
    figure = style.chart(0.9 + 0.34 * len(importances), "Importance of the fields (fANOVA)", title, trials, "trial")
    axes = figure.add_subplot()
    names, values = list(importances), np.array([*importances.values()])
    axes.barh(range(len(names)), values, 0.7, color=SKY)
    for row, value in enumerate(values):
        axes.text(value, row, f" {value:.0%}", va="center", fontsize=TEXT)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, max(1.12 * values.max(), 0.01)))
    axes.xaxis.set_major_formatter(percent)
    style.label(axes, "fraction of the variance of validation accuracy", "")
    return figure


def parallel(fields: Mapping[str, Scale], accuracy: Sequence[float], title: str) -> Figure:
    """Parallel coordinates: a row for each field and one for accuracy, a line for each trial; the best is thick.

    Args:
        fields: the values of the trials, at least one trial.
        accuracy: f[N], 0..1, of the same trials, not all equal.
        title: the study's name.
    """
    low, high = min(accuracy), max(accuracy)
    rows = {**fields, "accuracy": numbers(accuracy, low, high, text="{:.1%}")}
    figure = style.chart(0.7 + 0.72 * len(rows), "Values and accuracy of the trials", title, len(accuracy), "trial")
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("", ["#C9DDF0", "#0B4F8A"])
    shade = ScalarMappable(Normalize(low, high), colours)
    heights = np.arange(len(rows))
    lines = np.stack([scale.positions for scale in rows.values()])
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
    order = np.argsort(accuracy, kind="stable")
    for trial in order:
        best = trial == order[-1]
        colour = VERMILLION if best else shade.to_rgba(accuracy[trial])
        width, marker = (2.5, 6) if best else (1.3, 3.5)
        axes.plot(lines[:, trial], heights, color=colour, linewidth=width, marker="o", markersize=marker)
    for row, scale in enumerate(rows.values()):
        axes.axhline(row, color="#BBBBBB", linewidth=1, zorder=0)
        for position, text in scale.ticks:
            axes.text(position, row + 0.33, text, ha="center", va="center", fontsize=SMALL, bbox=background, zorder=5)
    axes.set_yticks(heights, [textwrap.fill(name.replace(".", ". "), 18).replace(". ", ".") for name in rows])
    axes.set(xticks=[], xlim=(-0.06, 1.06), ylim=(len(rows) - 0.4, -0.4))
    style.label(axes, "each line is a trial: the darker, the more accurate; the thick one is the best", "")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    return figure
