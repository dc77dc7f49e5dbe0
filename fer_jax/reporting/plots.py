"""The charts of a report: from plain arrays to matplotlib figures, which `png` and `pixels` turn into pictures.

`title` says whose pictures a chart shows (run, split, protocol); the chart puts what is shown on the line above it
and the number of pictures after it. An interval is drawn as it is given: 95 % is what titles say.
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
from fer_jax.reporting.style import BLUE, GREY, ORANGE, SKY, SMALL, TEXT, TINY, VERMILLION, percent, with_counts
from fer_jax.training.history import EpochRecord, best_record

Interval = tuple[float, float, float]  # value, low, high
Bins = tuple[np.ndarray, np.ndarray, np.ndarray, float]  # confidence, accuracy, count, expected calibration error


class Slice(Protocol):
    """Pictures whose measure lies in `low`..`high`."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def count(self) -> int: ...
    @property
    def accuracy(self) -> Interval: ...


def pixels(figure: Figure) -> np.ndarray:
    """The figure as u8[H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def confusion(counts: np.ndarray, title: str) -> Figure:
    """Confusion matrix i[8, 8] of [label, prediction]: colour is the share of the row, text also the count."""
    rows = np.sum(counts, axis=1)
    share = counts / np.maximum(rows, 1)[:, None]
    figure = style.chart(6.1, "Confusion matrix", title, rows.sum())
    axes = figure.add_subplot()
    # light to dark blue reads the same with and without colour vision, and in grey print
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(share.shape):
        rounded = f"{share[i, j]:.0%}" if share[i, j] >= 0.005 else "<1%"
        text = f"{rounded}\n{counts[i, j]:,.0f}" if counts[i, j] else "0"
        colour = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=SMALL)
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(EMOTIONS)), with_counts(EMOTIONS, rows))
    style.label(axes, "predicted", "labelled, with the number of pictures")
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, format=percent, ticks=[0, 0.5, 1])
    bar.set_label("share of the label's pictures", fontsize=TEXT)
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
    """Reliability diagram (Guo et al. 2017, https://arxiv.org/abs/1706.04599): accuracy against confidence.

    Args:
        confidence: f[B], mean confidence of the pictures in each of B bins of equal width over 0..1 (with more than
            15 their counts run into each other); where a bin is empty, anything.
        accuracy: f[B], the share of them that is right.
        count: i[B], how many they are.
        ece: expected calibration error, 0..1.
        title: whose pictures.
        after: the same four after temperature scaling, drawn as a second curve.
    """
    bins = len(count)
    figure = style.chart(7.0, "Reliability diagram", title, np.sum(count))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    centre, width, some = (np.arange(bins) + 0.5) / bins, 0.94 / bins, np.asarray(count) > 0
    right, sure = np.where(some, accuracy, np.nan), np.where(some, confidence, np.nan)
    gap: dict[str, Any] = {"facecolor": "none", "edgecolor": VERMILLION, "hatch": "///", "linewidth": 1.2}
    upper.bar(centre, right, width, color=SKY, label="accuracy (at its foot: pictures)")
    upper.bar(centre, sure - right, width, right, label=f"gap to mean confidence (ECE {ece:.1%})", **gap)
    upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1.2, label="accuracy = confidence")
    for i in np.flatnonzero(some):
        upper.text(centre[i], 0.012, f"{count[i]}", ha="center", fontsize=TINY)
    lower.bar(centre, count, width, color=SKY)
    if after is not None:
        sure, right, scaled, ece_after = (np.asarray(field) for field in after)
        line: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 7, "markeredgecolor": "white"}
        label = f"after temperature scaling (ECE {ece_after:.1%})"
        upper.plot(sure[scaled > 0], right[scaled > 0], label=label, linewidth=1.8, **line)
        lower.stairs(scaled, np.linspace(0, 1, bins + 1), color=BLUE, linewidth=1.8)
    upper.set(xlim=(0, 1), ylim=(0, 1))
    lower.set_ylim(bottom=0)
    style.count_axis(lower)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL)
    upper.yaxis.set_major_formatter(percent)
    lower.xaxis.set_major_formatter(percent)
    style.label(upper, "", "accuracy")
    style.label(lower, "confidence: probability of the predicted class", "pictures")
    figure.align_ylabels()
    return figure


def class_bars(f1: Mapping[str, Interval], counts: Sequence[int], title: str) -> Figure:
    """F1 of each class as a bar with the whisker of its interval; under it the class's number of pictures."""
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
    style.label(axes, "label, with the number of pictures", "F1")
    return figure


def training_curves(history: Sequence[EpochRecord], title: str) -> Figure:
    """Loss, accuracy, macro F1 and learning rate by epoch, from the records of `fer_jax.training.history`, at least one.

    The best epoch, by validation accuracy, is marked.
    """
    figure = style.chart(6.1, "Training", title, len(history), "epoch")
    epoch = [record.epoch for record in history]
    best = best_record(history)
    panels = figure.subplots(2, 2, sharex=True)
    looks = {"train": (ORANGE, "s", "--", "training (while it learns)"), "valid": (BLUE, "o", "-", "validation")}
    every = max(len(history) // 12, 1)
    for axes, name in zip(panels.flat, ("loss", "accuracy", "macro_f1"), strict=False):
        for split, (colour, marker, dash, label) in looks.items():
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
    """Accuracy by how many taggers agree with the label, with intervals, and the number of pictures below.

    Each point, at least one, is the share of a picture's taggers that chose its label (0..1, in tenths), how many
    pictures have it, and the accuracy on them. A tagger drawn at random is right on those as often as the share says:
    the diagonal.
    """
    share = np.array([point[0] for point in points])
    count = np.array([point[1] for point in points])
    value, low, high = np.array([point[2] for point in points], float).T
    model, tagger = _mean(value, count), _mean(share, count)
    figure = style.chart(6.0, "Accuracy by agreement of the taggers, with 95% intervals", title, count.sum())
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1.2, label=f"one tagger (mean {tagger:.1%})")
    upper.vlines(share, low, high, color=BLUE, linewidth=2)
    upper.plot(share, value, color=BLUE, marker="o", markersize=7, label=f"model (mean {model:.1%})")
    lower.bar(share, count, 0.07, color=SKY)
    lower.bar_label(lower.containers[0], fmt="{:,.0f}", fontsize=SMALL)
    upper.set(xlim=(min(0.5, share.min()) - 0.06, 1.06), ylim=(0, 1.02))
    lower.set_ylim(0, 1.3 * max(count.max(), 1))
    style.count_axis(lower)
    upper.legend(loc="lower right", fontsize=SMALL)
    upper.yaxis.set_major_formatter(percent)
    lower.xaxis.set_major_formatter(percent)
    style.label(upper, "", "accuracy")
    style.label(lower, "share of the taggers who chose the label", "pictures")
    figure.align_ylabels()
    return figure


def slices(measures: Mapping[str, Sequence[Slice]], title: str) -> Figure:
    """Accuracy in slices of the pictures (quarters by sharpness, say): a panel for each measure, a row a slice.

    Every measure slices the same pictures; there is at least one.
    """
    rows = [len(parts) for parts in measures.values()]
    first = next(iter(measures.values()))
    count = np.array([part.count for part in first])
    overall = _mean(np.array([part.accuracy[0] for part in first]), count)
    limits = _limits(part.accuracy for parts in measures.values() for part in parts)
    height = 0.9 + 0.36 * sum(rows) + 0.45 * len(rows)
    figure = style.chart(height, "Accuracy by slice, with 95% intervals", title, count.sum())
    panels = figure.subplots(len(rows), sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (name, parts) in zip(panels, measures.items(), strict=True):
        _intervals(axes, [part.accuracy for part in parts], limits)
        axes.axvline(overall, color="black", linestyle="--", linewidth=1.2)
        axes.set_yticks(
            range(len(parts)),
            [f"{style.short(part.low)} to {style.short(part.high)} ({part.count:,})" for part in parts],
        )
        axes.set_title(name, fontsize=TEXT, loc="left")
        style.label(axes, "", "")
    style.label(panels[-1], f"accuracy (dashed: all pictures, {overall:.1%})", "")
    return figure


def forest(rows: Mapping[str, Mapping[str, Interval]], count: int, title: str) -> Figure:
    """Several models beside each other: a row for each, and for each of its scores (all have the same) a panel."""
    scores = list(next(iter(rows.values())))
    figure = style.chart(1.0 + 0.5 * len(rows), "Models compared, with 95% intervals", title, count)
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        intervals = [row[score] for row in rows.values()]
        _intervals(axes, intervals, _limits(intervals))
        style.label(axes, score, "")
    panels[0].set_yticks(range(len(rows)), [textwrap.fill(name, 20) for name in rows])
    return figure


def _mean(values: np.ndarray, counts: np.ndarray) -> float:
    some = counts > 0
    return float((values[some] * counts[some]).sum() / max(counts.sum(), 1))


def _limits(intervals: Iterable[Interval]) -> tuple[float, float]:
    """From where to where an axis of shares goes that shows them all with some room, inside 0..1."""
    ends = np.array([*intervals], float)
    ends = ends[np.isfinite(ends)] if np.isfinite(ends).any() else np.array([0, 1])
    room = max(0.15 * (ends.max() - ends.min()), 0.01)
    return max(ends.min() - room, 0), min(ends.max() + room, 1)


def _intervals(axes: Axes, intervals: Sequence[Interval], limits: tuple[float, float]) -> None:
    """A row for each, from the top: a marker at the value, a line from low to high, the value as text above."""
    value, low, high = np.array(intervals, float).T
    y, paper = range(len(intervals)), {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.hlines(y, low, high, color=BLUE, linewidth=2, zorder=4)
    axes.plot(value, y, color=BLUE, marker="o", markersize=7, linestyle="none", zorder=4, clip_on=False)
    for i in y:
        if np.isnan(value[i]):
            axes.text(0.5, i, "none", transform=axes.get_yaxis_transform(), ha="center", fontsize=SMALL, bbox=paper)
            continue
        place: dict[str, Any] = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{value[i]:.1%}", (value[i], i), fontsize=SMALL, bbox=paper, **place)
    axes.set(xlim=limits, ylim=(len(y) - 0.5, -0.8))
    axes.xaxis.set_major_formatter(percent)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color="#DDDDDD")
