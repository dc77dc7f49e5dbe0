"""The plots of a report: from plain arrays to matplotlib figures, which `png` and `pixels` turn into images.

`title` names the model, split and protocol of a plot. The plot adds its subject on the line above, and the number of
images at the end. Intervals are drawn as they are given; the titles say 95 %.
"""

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_jax.data.labels import EMOTIONS
from fer_jax.reporting import style
from fer_jax.reporting.style import (
    BLUE,
    FAINT,
    FEW,
    GREY,
    ORANGE,
    SKY,
    SMALL,
    TEXT,
    TINY,
    VERMILLION,
    percent,
    with_counts,
)
from fer_jax.training.history import EpochRecord, best_record

Interval = tuple[float, float, float]  # value, low, high
Bins = tuple[np.ndarray, np.ndarray, np.ndarray, float]  # confidence, accuracy, count, expected calibration error


class Slice(Protocol):
    """The images whose property lies in `low`..`high`."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def count(self) -> int: ...
    @property
    def accuracy(self) -> Interval: ...


def pixels(figure: Figure) -> np.ndarray:
    """Return the drawn figure as u8[H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def png(figure: Figure) -> bytes:
    """Return the drawn figure as the bytes of a PNG file."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def confusion(counts: np.ndarray, title: str) -> Figure:
    """Draw a confusion matrix i[8, 8] of [label, prediction]; the colour is the fraction of the row.

    Each cell shows its percentage of the row, and its count.
    """
    rows = np.sum(counts, axis=1)
    fraction = counts / np.maximum(rows, 1)[:, None]
    figure = style.chart(6.1, "Confusion matrix", title, rows.sum())
    axes = figure.add_subplot()
    # light to dark blue reads the same with and without colour vision, and in grey print
    image = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(fraction.shape):
        rounded = f"{fraction[i, j]:.0%}" if fraction[i, j] >= 0.005 else "<1%"
        text = f"{rounded}\n{counts[i, j]:,.0f}" if counts[i, j] else "0"
        colour = "white" if fraction[i, j] > 0.5 else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=SMALL)
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(EMOTIONS)), with_counts(EMOTIONS, rows))
    style.label(axes, "prediction", "label, with the number of images")
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, format=percent, ticks=[0, 0.5, 1])
    bar.set_label("fraction of the label's images", fontsize=TEXT)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def reliability(
    confidence: np.ndarray,
    accuracy: np.ndarray,
    count: np.ndarray,
    ece: float,
    title: str,
    after: Bins | None = None,
) -> Figure:
    """Draw a reliability diagram (Guo et al. 2017, https://arxiv.org/abs/1706.04599): accuracy against confidence.

    Bins of at most `style.FEW` images are faint.

    Args:
        confidence: f[B], mean confidence of the images in each of B bins of equal width over 0..1; the value of an
            empty bin is not used. With more than 15 bins the counts run into each other.
        accuracy: f[B], the fraction of them that is classified correctly.
        count: i[B], their number.
        ece: expected calibration error, 0..1.
        title: the model and its data.
        after: the same four after temperature scaling, drawn as a second curve.
    """
    bins = len(count)
    figure = style.chart(7.0, "Reliability diagram", title, np.sum(count))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    centre, width, filled = (np.arange(bins) + 0.5) / bins, 0.94 / bins, np.asarray(count) > 0
    height, mean = np.where(filled, accuracy, np.nan), np.where(filled, confidence, np.nan)
    gap: dict[str, Any] = {"facecolor": "none", "edgecolor": VERMILLION, "hatch": "///", "linewidth": 1.2}
    bars = upper.bar(centre, height, width, color=SKY, label="accuracy (number: images)")
    gaps = upper.bar(centre, mean - height, width, height, label=f"gap to mean confidence (ECE {ece:.1%})", **gap)
    for i in np.flatnonzero(filled & (np.asarray(count) <= FEW)):
        bars[i].set_alpha(FAINT)
        gaps[i].set_alpha(FAINT)
    upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1.2, label="accuracy = confidence")
    for i in np.flatnonzero(filled):
        upper.text(centre[i], 0.012, f"{count[i]}", ha="center", fontsize=TINY)
    lower.bar(centre, count, width, color=SKY)
    if after is not None:
        mean, height, scaled, ece_after = (np.asarray(field) for field in after)
        _curve(upper, mean, height, scaled, f"after temperature scaling (ECE {ece_after:.1%})")
        lower.stairs(scaled, np.linspace(0, 1, bins + 1), color=BLUE, linewidth=1.8)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    lower.set_ylim(bottom=0)
    style.count_axis(lower)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL)
    upper.yaxis.set_major_formatter(percent)
    lower.xaxis.set_major_formatter(percent)
    style.label(upper, "", "accuracy")
    style.label(lower, "confidence: probability of the predicted class", "images")
    figure.align_ylabels()
    return figure


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, count: np.ndarray, label: str) -> None:
    """Draw a curve through points of `count` images each; points of at most `FEW` are faint and stay off the curve."""
    marker: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 7, "markeredgecolor": "white"}
    enough, few = count > FEW, (count > 0) & (count <= FEW)
    axes.plot(x[enough], y[enough], label=label, linewidth=1.8, **marker)
    if few.any():  # or the layout makes room for an unclipped line without points
        axes.plot(x[few], y[few], linestyle="none", alpha=FAINT, clip_on=False, **marker)


def class_bars(f1: Mapping[str, Interval], counts: Sequence[int], title: str) -> Figure:
    """Draw the F1 of each class as a bar with the whisker of its interval, and the class's number of images below."""
    values = np.array([*f1.values()], float)
    figure = style.chart(4.0, "F1 by class, with 95% intervals", title, sum(counts))
    axes = figure.add_subplot()
    x = np.arange(len(values))
    axes.bar(x, np.nan_to_num(values[:, 0]), 0.72, color=SKY)
    axes.vlines(x, values[:, 1], values[:, 2], color="black", linewidth=2)
    for i, value in enumerate(values[:, 0]):
        text = "none" if np.isnan(value) else f"{value:.0%}"
        axes.text(i, 0.02, text, ha="center", va="bottom", fontsize=TEXT)
    axes.set_xticks(x, with_counts(f1, counts))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(percent)
    style.label(axes, "label, with the number of images", "F1")
    return figure


def training_curves(history: Sequence[EpochRecord], title: str) -> Figure:
    """Draw loss, accuracy, macro F1 and learning rate by epoch, from at least one record.

    The best epoch, by validation accuracy, is marked.
    """
    figure = style.chart(6.1, "Training", title, len(history), "epoch")
    epoch = [record.epoch for record in history]
    best = best_record(history)
    panels = figure.subplots(2, 2, sharex=True)
    curves = {"train": (ORANGE, "s", "--", "training (while it learns)"), "valid": (BLUE, "o", "-", "validation")}
    every = max(len(history) // 12, 1)
    for axes, name in zip(panels.flat, ("loss", "accuracy", "macro_f1"), strict=False):
        for split, (colour, marker, dash, label) in curves.items():
            values = [getattr(record, split)[name] for record in history]
            axes.plot(epoch, values, color=colour, marker=marker, linestyle=dash, markevery=every, label=label)
        if name != "loss":
            axes.yaxis.set_major_formatter(percent)
        style.label(axes, "", name.replace("_f1", " F1"))
    rate = panels[1, 1]
    rate.plot(epoch, [record.learning_rate for record in history], color="black", marker=".", markevery=every)
    style.label(rate, "", "learning rate")
    rate.yaxis.set_major_formatter("{x:g}")
    rate.set_xlim(0.4, epoch[-1] + 0.6)
    rate.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    for axes in panels.flat:
        axes.axvline(best.epoch, color=GREY, linestyle=":", linewidth=1.5)
    rate.set_ylim(bottom=0)
    for axes in panels[1]:
        axes.set_xlabel("epoch", fontsize=TEXT)
    note = f"best epoch {best.epoch}: {best.valid['accuracy']:.1%}"
    panels[0, 1].plot([], [], color=GREY, linestyle=":", label=note)
    figure.align_ylabels()
    figure.legend(*panels[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=SMALL)
    return figure


def agreement(points: Sequence[tuple[float, int, Interval]], title: str) -> Figure:
    """Draw accuracy by the annotators' agreement with the label, with intervals, and the number of images below.

    The diagonal is the accuracy of one annotator drawn at random. Points of at most `style.FEW` images are faint.

    Args:
        points: at least one: the fraction of an image's annotators that chose its label (0..1, in tenths), the number
            of images with this fraction, and the accuracy on them.
        title: the model and its data.
    """
    fraction = np.array([point[0] for point in points])
    count = np.array([point[1] for point in points])
    value, low, high = np.array([point[2] for point in points], float).T
    model, annotator = _mean(value, count), _mean(fraction, count)
    figure = style.chart(6.0, "Accuracy by agreement of the annotators, with 95% intervals", title, count.sum())
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    diagonal = f"one annotator (mean {annotator:.1%})"
    upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1.2, label=diagonal)
    upper.vlines(fraction, low, high, color=BLUE, linewidth=2, alpha=np.where(count > FEW, 1, FAINT))
    _curve(upper, fraction, value, count, f"model (mean {model:.1%})")
    lower.bar(fraction, count, 0.07, color=SKY)
    lower.bar_label(lower.containers[0], fmt="{:,.0f}", fontsize=SMALL)
    upper.set(xlim=(min(0.5, fraction.min()) - 0.06, 1.06), ylim=(0, 1.02))
    lower.set_ylim(0, 1.3 * max(count.max(), 1))
    style.count_axis(lower)
    upper.legend(loc="lower right", fontsize=SMALL)
    upper.yaxis.set_major_formatter(percent)
    lower.xaxis.set_major_formatter(percent)
    style.label(upper, "", "accuracy")
    style.label(lower, "fraction of the annotators who chose the label", "images")
    figure.align_ylabels()
    return figure


def slices(properties: Mapping[str, Sequence[Slice]], title: str) -> Figure:
    """Draw the accuracy in slices of the images, for example quarters by sharpness.

    Each property has a panel, and each slice a row. There is at least one property, and all slice the same images.
    """
    rows = [len(parts) for parts in properties.values()]
    first = next(iter(properties.values()))
    count = np.array([part.count for part in first])
    overall = _mean(np.array([part.accuracy[0] for part in first]), count)
    limits = _limits(part.accuracy for parts in properties.values() for part in parts)
    height = 0.9 + 0.36 * sum(rows) + 0.45 * len(rows)
    figure = style.chart(height, "Accuracy by slice, with 95% intervals", title, count.sum())
    panels = figure.subplots(len(rows), sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (name, parts) in zip(panels, properties.items(), strict=True):
        _intervals(axes, [part.accuracy for part in parts], limits)
        axes.axvline(overall, color="black", linestyle="--", linewidth=1.2)
        axes.set_yticks(
            range(len(parts)),
            [f"{style.short(part.low)} to {style.short(part.high)} ({part.count:,})" for part in parts],
        )
        axes.set_title(name, fontsize=TEXT, loc="left")
        style.label(axes, "", "")
    style.label(panels[-1], f"accuracy (dashed: all images, {overall:.1%})", "")
    return figure


def forest(models: Mapping[str, Mapping[str, Interval]], count: int, title: str) -> Figure:
    """Draw several models next to each other: a row for each model, and a panel for each metric."""
    metrics = list(next(iter(models.values())))
    figure = style.chart(1.0 + 0.5 * len(models), "Models compared, with 95% intervals", title, count)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        intervals = [model[metric] for model in models.values()]
        _intervals(axes, intervals, _limits(intervals))
        style.label(axes, metric, "")
    panels[0].set_yticks(range(len(models)), [textwrap.fill(name, 20) for name in models])
    return figure


def _mean(values: np.ndarray, counts: np.ndarray) -> float:
    filled = counts > 0
    return float((values[filled] * counts[filled]).sum() / max(counts.sum(), 1))


def _limits(intervals: Iterable[Interval]) -> tuple[float, float]:
    """The limits, inside 0..1, of an axis that shows all intervals with some room."""
    ends = np.array([*intervals], float)
    ends = ends[np.isfinite(ends)] if np.isfinite(ends).any() else np.array([0, 1])
    room = max(0.15 * (ends.max() - ends.min()), 0.01)
    return max(ends.min() - room, 0), min(ends.max() + room, 1)


def _intervals(axes: Axes, intervals: Sequence[Interval], limits: tuple[float, float]) -> None:
    """Draw a row for each interval, from the top: a marker at the value, a line from low to high, the value above."""
    value, low, high = np.array(intervals, float).T
    y, box = range(len(intervals)), {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.hlines(y, low, high, color=BLUE, linewidth=2, zorder=4)
    axes.plot(value, y, color=BLUE, marker="o", markersize=7, linestyle="none", zorder=4, clip_on=False)
    for i in y:
        if np.isnan(value[i]):
            axes.text(0.5, i, "none", transform=axes.get_yaxis_transform(), ha="center", fontsize=SMALL, bbox=box)
            continue
        offset: dict[str, Any] = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{value[i]:.1%}", (value[i], i), fontsize=SMALL, bbox=box, **offset)
    axes.set(xlim=limits, ylim=(len(y) - 0.5, -0.8))
    axes.xaxis.set_major_formatter(percent)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color="#DDDDDD")
