"""What came of a sweep, for reading: a row per variant, its spread over seeds, how far it is from the first."""

import csv as csv_format
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from fer_jax.reporting import plots, style
from fer_jax.reporting.document import Block, ImageBlock, Table, Text

Row = Mapping[str, Any]  # of sweep.outcome

SHOWN = {
    "majority_without_duplicates": ("without repeats", True),
    "majority": ("majority", True),
    "clean": ("clean", True),
    "macro_f1_without_duplicates": ("F1 without repeats", True),
    "macro_f1": ("F1, macro", True),
    "ece": ("ECE", True),
    "kl_from_votes": ("KL from votes", False),
    "train_minutes": ("minutes", False),
}
COMPARED = ("majority_without_duplicates", "majority")  # with those of the first variant
TOLD = ("majority_without_duplicates", "majority", "macro_f1_without_duplicates")  # what a terminal has room for


class Spread(NamedTuple):
    """Several seeds' figure: mean and standard deviation (nan for one seed)."""

    mean: float
    deviation: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation, with n - 1."""
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))


class Pooled(NamedTuple):
    """The standard deviation of a seed (nan where it is not known), and how many degrees of freedom it rests on."""

    deviation: float
    freedom: int


def pool(groups: Sequence[Sequence[float]]) -> Pooled:
    """How far seeds of one variant are apart, over all variants: each has few, and they spread much alike."""
    freedom = sum(len(values) - 1 for values in groups)
    squares = sum(float(np.var(values)) * len(values) for values in groups)
    differ = any(len(set(values)) > 1 for values in groups)  # seeds alike tell nothing
    return Pooled(math.sqrt(squares / freedom) if differ else float("nan"), freedom)


def difference(values: Sequence[float], reference: Sequence[float], pooled: Pooled) -> tuple[float, float, float]:
    """How much higher the mean of `values` is, with Student's 95 % interval of the pooled standard deviation.

    Its ends are nan where that is. Seeds are not paired, since a changed recipe draws other numbers from the same seed.
    The intervals are one by one: of twenty variants that change nothing, one interval misses zero by chance.
    """
    value = float(np.mean(values) - np.mean(reference))
    half = stats.t.ppf(0.975, pooled.freedom) * pooled.deviation * math.sqrt(1 / len(values) + 1 / len(reference))
    return value, float(value - half), float(value + half)


def by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each variant, in the order in which the variants come first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["variant"], []).append(row)
    return found


def csv(rows: Sequence[Row]) -> str:
    """A line per run."""
    text = io.StringIO()
    writer = csv_format.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table(rows: Sequence[Row], fields: Sequence[str] = tuple(SHOWN)) -> Table:
    """A line per variant: mean and standard deviation over its seeds, and the differences in accuracy, in points."""
    groups = by_variant(rows)
    first, known, lines = next(iter(groups)), {field: _known(groups, field) for field in fields}, []
    for name, group in groups.items():
        cells = []
        for field in fields:
            percent = SHOWN[field][1]
            values = known[field].get(name)
            mean, deviation = spread(values) if values else Spread(float("nan"), float("nan"))
            digits = ".2%" if percent else ".3f" if field != "train_minutes" else ".1f"
            cells.append(f"{mean:{digits}}" + (f" ({deviation:{digits}})" if deviation == deviation else ""))
            if field in COMPARED:
                cells.append(_from(first, known[field], name))
        lines.append([name, str(len(group)), *cells])
    header = ["", "seeds"]
    for field in fields:
        header += [SHOWN[field][0], *([f"from {first}"] if field in COMPARED else [])]
    return Table(header, lines, "validation; mean (standard deviation) over seeds, difference in points (95% interval)")


def _from(first: str, values: Mapping[str, Sequence[float]], name: str) -> str:
    if name == first or name not in values or first not in values:
        return ""
    value, low, high = difference(values[name], values[first], pool(list(values.values())))
    return f"{100 * value:+.2f}" + (f" ({100 * low:+.1f} to {100 * high:+.1f})" if low == low else "")


def _known(groups: Mapping[str, Sequence[Row]], field: str) -> dict[str, list[float]]:
    """A field's figures by variant, where there are any: without repeats there may be no picture to judge by."""
    found = {name: [row[field] for row in group if row[field] is not None] for name, group in groups.items()}
    return {name: values for name, values in found.items() if values}


def chart(rows: Sequence[Row]) -> Figure:
    """Accuracy by majority without the repeats of every run, a line per variant, its mean as a bar."""
    groups = by_variant(rows)
    title = "Accuracy by majority, without repeats"
    figure = style.chart(0.9 + 0.34 * len(groups), title, "validation", len(rows), "run")
    axes = figure.add_subplot()
    known = _known(groups, "majority_without_duplicates")
    for place, name in enumerate(groups):
        values = known.get(name, [np.nan])
        axes.plot(values, [place] * len(values), "o", color=style.BLUE, alpha=0.7)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=style.VERMILLION, linewidth=2)
    axes.axvline(float(np.mean(known.get(next(iter(groups)), [np.nan]))), color=style.GREY, linestyle=":")
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(style.percent)
    style.label(axes, "accuracy; bar: mean, dotted: the first variant's", "")
    return figure


def _interval(rows: Sequence[Row]) -> str:
    """What the intervals are of, in words."""
    groups, told = by_variant(rows), []
    for field in COMPARED:
        pooled = pool(list(_known(groups, field).values()))
        if pooled.deviation == pooled.deviation:
            by = "by " * (field == "majority") + SHOWN[field][0]
            told.append(f"{100 * pooled.deviation:.2f} points {by} ({pooled.freedom} degrees of freedom)")
    if not told:
        return "There is no interval: that needs a variant with two seeds or more that differ."
    return (
        "Their 95% intervals are of chance in the seeds, whose standard deviation is taken as the same for all "
        f"variants: {', '.join(told)}. One that spans zero may be chance, and of twenty that should, one does not."
    )


def page(rows: Sequence[Row], checkpoint: str) -> list[Block]:
    """The whole report."""
    which = "after their last epoch" if checkpoint == "latest" else "at their best epoch on these same pictures"
    told = (
        f"Networks {which}, on the validation pictures by majority. Without repeats: less the pictures that stand, "
        "exactly or nearly, among the training pictures too, so that memory counts for nothing: look there first. The "
        f"differences are between mean accuracies. {_interval(rows)}"
    )
    picture = ImageBlock("accuracy", plots.png(chart(rows)), "Accuracy by majority of every run, without repeats")
    return [Text(told), table(rows), picture]
