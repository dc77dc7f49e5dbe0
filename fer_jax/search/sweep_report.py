"""The report of a sweep: a row for each variant, with its spread over seeds and its difference from the first."""

import csv as csv_format
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from fer_jax.reporting import document, plots, style
from fer_jax.reporting.document import Block, ImageBlock, Table, Text

Row = Mapping[str, Any]  # the metrics of a run; see sweep.outcome

# The metrics of the table: title, and whether it is in percent.
SHOWN = {
    "majority_without_duplicates": ("without duplicates", True),
    "majority": ("majority", True),
    "clean": ("clean", True),
    "macro_f1_without_duplicates": ("F1 without duplicates", True),
    "macro_f1": ("F1, macro", True),
    "ece": ("ECE", True),
    "kl_from_votes": ("KL from votes", False),
    "corrupted": ("corrupted", True),  # the mean over corruptions and strengths, where it was asked for
    "train_minutes": ("minutes", False),
}
COMPARED = ("majority_without_duplicates", "majority")  # with the first variant
# The metrics on a terminal, as many as fit.
TERMINAL = ("majority_without_duplicates", "majority", "macro_f1_without_duplicates")


class Spread(NamedTuple):
    """The mean and the standard deviation of a metric over seeds; the deviation is nan for one seed."""

    mean: float
    deviation: float


def spread(values: Sequence[float]) -> Spread:
    """The mean and the standard deviation, with n - 1."""
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))


class Pooled(NamedTuple):
    """The standard deviation of a seed over all variants, nan if unknown, with its degrees of freedom."""

    deviation: float
    freedom: int


def pool(groups: Sequence[Sequence[float]]) -> Pooled:
    """The standard deviation of a seed over all variants: each variant has few seeds, and all spread much alike."""
    freedom = sum(len(values) - 1 for values in groups)
    squares = sum(float(np.var(values)) * len(values) for values in groups)
    differ = any(len(set(values)) > 1 for values in groups)  # equal values are no measurement of the spread
    return Pooled(math.sqrt(squares / freedom) if differ else float("nan"), freedom)


def difference(values: Sequence[float], reference: Sequence[float], pooled: Pooled) -> tuple[float, float, float]:
    """The mean of `values` minus that of `reference`, with both ends of its 95 % interval.

    The interval is Student's, by the pooled standard deviation; its ends are nan where that is. Seeds are not paired,
    since a changed recipe draws other numbers from the same seed. Intervals are not corrected for their number: of
    twenty variants that change nothing, one interval misses zero by chance.
    """
    value = float(np.mean(values) - np.mean(reference))
    half = stats.t.ppf(0.975, pooled.freedom) * pooled.deviation * math.sqrt(1 / len(values) + 1 / len(reference))
    return value, float(value - half), float(value + half)


def by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each variant, in the order of each variant's first row."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["variant"], []).append(row)
    return groups


def csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, a line for each run."""
    text = io.StringIO()
    writer = csv_format.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table(rows: Sequence[Row], fields: Sequence[str] = tuple(SHOWN)) -> Table:
    """A line for each variant: the mean and standard deviation over its seeds, and the differences in accuracy.

    Columns without any value are left out.
    """
    groups = by_variant(rows)
    reference = next(iter(groups))
    columns = [("", list(groups)), ("seeds", [str(len(group)) for group in groups.values()])]
    for field in fields:
        values = _values(groups, field)
        columns.append((SHOWN[field][0], [_mean(field, values.get(name, [])) for name in groups]))
        if field in COMPARED:
            columns.append((f"from {reference}", [_difference(reference, values, name) for name in groups]))
    header, cells = zip(*[(title, column) for title, column in columns if any(column)], strict=True)
    caption = "validation accuracy; mean"  # other metrics have their names above them
    if len(rows) > len(groups):
        caption += " (standard deviation) over seeds"
    if len(groups) > 1:
        caption += ", difference in points (95% interval)"
    return Table([*header], [[*line] for line in zip(*cells, strict=True)], caption)


def _mean(field: str, values: Sequence[float]) -> str:
    """The mean with the standard deviation as text; "" where there is no value."""
    if not values:
        return ""
    mean, deviation = spread(values)
    digits = ".2%" if SHOWN[field][1] else ".3f" if field != "train_minutes" else ".1f"
    return f"{mean:{digits}}" + (f" ({deviation:{digits}})" if not math.isnan(deviation) else "")


def _difference(reference: str, values: Mapping[str, Sequence[float]], name: str) -> str:
    """The difference from the reference in points, with its interval; "" where there is none."""
    if name == reference or name not in values or reference not in values:
        return ""
    value, low, high = difference(values[name], values[reference], pool(list(values.values())))
    return f"{100 * value:+.2f}" + (f" ({100 * low:+.1f} to {100 * high:+.1f})" if not math.isnan(low) else "")


def _values(groups: Mapping[str, Sequence[Row]], field: str) -> dict[str, list[float]]:
    """The values of a metric by variant; variants without one are left out, as where every image is a duplicate."""
    values = {name: [row[field] for row in group if row[field] is not None] for name, group in groups.items()}
    return {name: numbers for name, numbers in values.items() if numbers}


def terminal_text(rows: Sequence[Row]) -> str:
    """The table for a terminal, with as many metrics as fit without a cut in its first four columns."""
    for count in range(len(TERMINAL), 0, -1):
        cells = table(rows, TERMINAL[:count])
        text = document.to_text(cells)
        fits = max(map(len, text.splitlines())) <= document.TERMINAL
        if fits and all(cell in text for line in cells.rows for cell in line[:4]):
            break
    return text


def chart(rows: Sequence[Row]) -> Figure:
    """The accuracy of every run by majority without duplicates, a line for each variant, with its mean as a bar."""
    groups = by_variant(rows)
    title = "Accuracy by majority, without duplicates"
    figure = style.chart(0.9 + 0.34 * len(groups), title, "validation", len(rows), "run")
    axes = figure.add_subplot()
    accuracies = _values(groups, "majority_without_duplicates")
    for place, name in enumerate(groups):
        values = accuracies.get(name, [np.nan])
        axes.plot(values, [place] * len(values), "o", color=style.BLUE, alpha=0.7)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=style.VERMILLION, linewidth=2)
    explanation = "accuracy; bar: mean"
    if len(groups) > 1:
        reference = accuracies.get(next(iter(groups)), [np.nan])
        axes.axvline(float(np.mean(reference)), color=style.GREY, linestyle=":")
        explanation += ", dotted: the first variant's"
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(style.percent)
    style.label(axes, explanation, "")
    return figure


def _about_differences(rows: Sequence[Row]) -> str:
    """An explanation of the differences and their intervals; "" for one variant."""
    groups = by_variant(rows)
    if len(groups) < 2:
        return ""
    deviations = []
    for field in COMPARED:
        pooled = pool(list(_values(groups, field).values()))
        if not math.isnan(pooled.deviation):
            name = "by " * (field == "majority") + SHOWN[field][0]
            deviations.append(f"{100 * pooled.deviation:.2f} points {name} ({pooled.freedom} degrees of freedom)")
    if not deviations:
        return (
            " Differences are between mean accuracies. There is no interval: it needs a variant with at least two "
            "seeds that differ."
        )
    return (
        " Differences are between mean accuracies. Their 95% intervals cover the chance of the seeds. The standard "
        f"deviation of a seed is assumed to be the same for all variants: {', '.join(deviations)}. A difference whose "
        "interval contains zero may be chance. Of twenty variants that change nothing, one interval misses zero."
    )


def page(rows: Sequence[Row], checkpoint: str) -> list[Block]:
    """The whole report."""
    epoch = "after their last epoch" if checkpoint == "latest" else "at their best epoch on these same images"
    text = (
        f"Networks {epoch}, on the validation images by majority. Look first at accuracy without duplicates: it leaves "
        "out images with an exact or near duplicate among the training images, where memory would help."
    )
    image = ImageBlock("accuracy", plots.png(chart(rows)), "Accuracy by majority of every run, without duplicates")
    return [Text(text + _about_differences(rows)), table(rows), image]
