"""Figures for people: the confusion matrix as a picture and the figures of an evaluation as a table."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fer_jax.labels import EMOTIONS


def confusion_figure(confusion: np.ndarray, title: str) -> Figure:
    """A confusion matrix [label, prediction]: colour is the share of the row, text the share and the count."""
    confusion = np.asarray(confusion)
    rows = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(rows, 1)
    figure = Figure(figsize=(8.6, 6.8), layout="tight")
    axes = figure.add_subplot()
    # light to dark blue reads the same with and without colour vision, and in grey print
    image = axes.imshow(share, cmap=matplotlib.colormaps["Blues"], vmin=0, vmax=1)
    for i in range(len(EMOTIONS)):
        for j in range(len(EMOTIONS)):
            colour = "white" if share[i, j] > 0.5 else "black"
            text = f"{share[i, j]:.0%}\n{confusion[i, j]:.0f}" if confusion[i, j] else "0"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    labels = [f"{emotion} ({count:.0f})" for emotion, count in zip(EMOTIONS, rows[:, 0], strict=True)]
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(EMOTIONS)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled (pictures)")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="share of the label's pictures", fraction=0.046)
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """The figure as u8[H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def table(result: dict[str, Any]) -> str:
    """The figures of `metrics.summary` as text: per class, then over all."""
    lines = [f"{'':<14}{'precision':>10}{'recall':>10}{'F1':>10}{'pictures':>10}"]
    for emotion, row in result["per_class"].items():
        figures = "".join(f"{row[name]:>10.2%}" for name in ("precision", "recall", "f1"))
        lines.append(f"{emotion:<14}{figures}{row['count']:>10}")
    for title, prefix in (("weighted", ""), ("macro", "macro_")):
        figures = "".join(f"{result[prefix + name]:>10.2%}" for name in ("precision", "recall", "f1"))
        lines.append(f"{title:<14}{figures}{result['count']:>10}")
    lines.append(f"accuracy {result['accuracy']:.2%}, cross entropy {result['loss']:.4f}")
    return "\n".join(lines)
