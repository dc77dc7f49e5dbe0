"""The report of several models on the same images: their metrics next to each other, and a test of each pair."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from fer_jax.evaluation import comparison
from fer_jax.evaluation.comparison import Comparison
from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.result import SUBSETS, Evaluation
from fer_jax.reporting import document, plots, report, tables
from fer_jax.reporting.document import Block, Contents, Heading, Table, Text

PRINTED = 28  # pairs in the terminal, all those of eight models; the report has every pair

Pairs = Mapping[tuple[str, str], Comparison]  # by the names of both models


def compare_pairs(results: Sequence[Evaluation]) -> Pairs:
    """Return the comparison of each pair of models."""
    return {
        (a.name, b.name): comparison.compare(a.main_predictions, b.main_predictions)
        for a, b in combinations(results, 2)
    }


def page(results: Sequence[Evaluation], pairs: Pairs) -> list[Block]:
    """Return the whole comparison."""
    rows = {
        result.name: {tables.MAIN[name][0]: result.main_metrics[name] for name in ("accuracy", "macro_f1")}
        for result in results
    }
    title = f"{tables.SPLITS[results[0].split]}, {results[0].main_protocol}"
    return [
        Heading("Summary"),
        Text(f"{verdict(results, pairs)}. A difference is clear if its 95% interval excludes zero."),
        tables.models_table(results),
        Contents(),
        Heading("Metrics"),
        _metrics_table(results),
        report.image("models", plots.forest(rows, len(results[0].rows), title)),
        Heading("Pairs"),
        _pairs_table(pairs),
        Text(
            "Intervals are 95% intervals of the paired bootstrap. McNemar's exact test looks at the images that only "
            "one of two models classifies correctly. p is the probability that equally good models split them as "
            "unevenly, or more so. Several pairs are several tests: of ten pairs of equal models expect one p under "
            "0.1. No test here covers the effect of another training seed."
        ),
        Heading("Method"),
        *report.METHOD,
    ]


def text(results: Sequence[Evaluation], pairs: Pairs) -> str:
    """Return the comparison for the terminal: the verdict, the main numbers and the pairs."""
    table = _pairs_table(pairs)
    more = f"\n... and {len(pairs) - PRINTED} more pairs in the report" if len(pairs) > PRINTED else ""
    parts = [
        verdict(results, pairs),
        document.to_text(tables.models_table(results)),
        document.to_text(table._replace(rows=table.rows[:PRINTED])) + more,
    ]
    return "\n\n".join(parts)


def verdict(results: Sequence[Evaluation], pairs: Pairs) -> str:
    """Return the comparison in one line: the most accurate model, and its lead over the next one."""
    best, second, *_ = sorted(results, key=lambda result: -result.main_metrics["accuracy"].value)
    if (best.name, second.name) in pairs:
        lead = pairs[best.name, second.name].accuracy
    else:
        value, low, high = pairs[second.name, best.name].accuracy
        lead = Interval(-value, -high, -low)
    clarity = "a clear difference" if lead.low > 0 else "no clear difference"  # zero is in the interval
    return f"Most accurate: {best.name}, {_points(lead)} points ahead of {second.name}: {clarity}"


def _metrics_table(results: Sequence[Evaluation]) -> Table:
    """Every metric of all models, a column each."""
    protocol, counts = results[0].main_protocol, results[0].counts[results[0].main_protocol]
    rows = []
    for name, (title, _) in tables.MAIN.items():
        rows.append([title, *(tables.show(name, result.main_metrics[name]) for result in results)])
        if name == "accuracy":
            for subset in list(counts)[1:]:
                cells = [tables.show(name, result.metrics[protocol][subset][name]) for result in results]
                rows.append([f"accuracy, {SUBSETS[subset]} ({counts[subset]:,})", *cells])
    caption = f"{tables.SPLITS[results[0].split]} split, {protocol}: {counts['all']:,} images; with 95% intervals"
    return Table(["", *(result.name for result in results)], rows, caption)


def _pairs_table(pairs: Pairs) -> Table:
    rows = [
        [
            f"{a} - {b}",
            _points(pair.accuracy),
            _points(pair.macro_f1),
            f"{pair.only_a:,}",
            f"{pair.only_b:,}",
            f"{pair.mcnemar_p:.3g}",
        ]
        for (a, b), pair in pairs.items()
    ]
    return Table(
        ["", "accuracy", "F1, macro", "only first", "only second", "McNemar's p"],
        rows,
        "first - second, in percentage points; only first: images that only the first classifies correctly",
    )


def _points(difference: Interval) -> str:
    value, low, high = (100 * fraction for fraction in difference)
    return f"{value:+.2f} ({low:+.1f} to {high:+.1f})"
