"""The robustness of a model as text, table and plot."""

import numpy as np
from matplotlib.figure import Figure

from fer_jax.evaluation.corruptions import CORRUPTIONS, STRENGTHS
from fer_jax.evaluation.result import SUBSETS, Evaluation, Robustness
from fer_jax.reporting import style, tables
from fer_jax.reporting.document import Block, Heading, Table, Text
from fer_jax.reporting.style import BLUE, ORANGE, SMALL, TEXT, percent

COLUMNS = 4  # panels in a row of the plot
EXPLANATION = (
    f"Accuracy on corrupted images: {len(CORRUPTIONS)} corruptions, {STRENGTHS} strengths each, as in ImageNet-C "
    "(Hendrycks and Dietterich 2019), with fixed seeds. They stand in for other cameras and detectors, as far as that "
    "can be computed from these images. A moved crop shows the mirror image beyond the border, where a real one shows "
    "the surroundings. The mean over all corruptions and strengths is the metric to compare."
)


def section(result: Evaluation, robustness: Robustness) -> list[Block]:
    """Return the means, and the accuracies by corruption and strength."""
    return [
        Heading("Robustness"),
        Text(EXPLANATION),
        _mean_table(result, robustness),
        _strength_table(result, robustness),
        Text("The strengths are, for " + "; ".join(_parameter(name) for name in CORRUPTIONS) + "."),
    ]


def _mean_table(result: Evaluation, robustness: Robustness) -> Table:
    rows = [
        [f"mean {tables.MAIN[name][0]}", *(tables.show(name, means[name]) for means in robustness.mean.values())]
        for name in ("accuracy", "balanced_accuracy")
    ]
    caption = f"{result.name}, corrupted images, protocol {result.main_protocol}; with 95% intervals"
    return Table(["", *(SUBSETS[subset] for subset in robustness.mean)], rows, caption)


def _strength_table(result: Evaluation, robustness: Robustness) -> Table:
    rows = []
    for name, metrics in robustness.by_strength.items():
        accuracy, balanced = metrics["accuracy"], metrics["balanced_accuracy"]
        rows.append([name, *(f"{value:.1%}" for value in (*accuracy, accuracy.mean(), balanced.mean()))])
    columns = ["1 (weak)", *map(str, range(2, STRENGTHS)), f"{STRENGTHS} (strong)", "mean", "mean balanced accuracy"]
    uncorrupted = result.main_metrics["accuracy"].value
    caption = f"accuracy by corruption and strength, all images; {uncorrupted:.1%} without corruption"
    return Table(["", *columns], rows, caption)


def _parameter(name: str) -> str:
    values = ", ".join(f"{value:g}" for value in CORRUPTIONS[name].values)
    return f"{name}: {values} ({CORRUPTIONS[name].parameter})"


def plot(result: Evaluation, robustness: Robustness, title: str) -> Figure:
    """Draw accuracy and balanced accuracy by strength, a panel for each corruption; strength 0 is no corruption."""
    rows = -(-len(robustness.by_strength) // COLUMNS)
    figure = style.chart(0.6 + 1.75 * rows, "Accuracy by strength of the corruption (0: none)", title, len(result.rows))
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    lines = {"accuracy": (BLUE, "o", "-"), "balanced_accuracy": (ORANGE, "s", "--")}
    for axes, (name, metrics) in zip(panels.flat, robustness.by_strength.items(), strict=False):
        for metric, (colour, marker, dash) in lines.items():
            values = np.concatenate([[result.main_metrics[metric].value], metrics[metric]])
            axes.plot(values, color=colour, marker=marker, linestyle=dash, markersize=5, label=tables.MAIN[metric][0])
        axes.set_title(name, fontsize=TEXT, loc="left")
        style.label(axes, "", "")
        axes.grid(axis="y", color="#DDDDDD")
    for axes in panels.flat[len(robustness.by_strength) :]:
        axes.set_visible(False)
    for column in range(COLUMNS):  # the lowest panel of a column may stand above an empty place
        lowest = panels.flat[: len(robustness.by_strength)][column::COLUMNS][-1]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("strength", fontsize=TEXT)
    panels[0, 0].set(ylim=(0, 1), xticks=range(STRENGTHS + 1))
    panels[0, 0].yaxis.set_major_formatter(percent)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=SMALL)
    return figure
