"""The metrics of an evaluation as a line, as tables of text, and as JSON."""

import math
from collections.abc import Sequence
from typing import Any

from fer_jax.data.labels import EMOTIONS, PROTOCOLS
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.result import SUBSETS, Evaluation, Robustness
from fer_jax.reporting.document import Table

# name in `metrics.compute`: (name in tables, True if shown in percent)
MAIN = {
    "accuracy": ("accuracy", True),
    "balanced_accuracy": ("balanced accuracy", True),
    "top2_accuracy": ("top-2 accuracy", True),
    "f1": ("F1, weighted", True),
    "precision": ("precision, weighted", True),
    "recall": ("recall, weighted", True),
    "macro_f1": ("F1, macro", True),
    "macro_precision": ("precision, macro", True),
    "macro_recall": ("recall, macro", True),
    "roc_auc": ("ROC AUC, one vs. rest", False),
    "nll": ("negative log likelihood", False),
    "brier": ("Brier score (0 to 2)", False),
    "ece": ("calibration error (ECE)", True),
    "kl_from_votes": ("KL divergence from votes", False),
    "agreement": ("votes for the prediction", True),
    "label_agreement": ("votes for the label", True),
}
SUMMARY = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")  # the main numbers; defined for every subset
ACCURACIES = ("accuracy", "balanced_accuracy", "top2_accuracy")
PER_CLASS = {"precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC AUC"}
CALIBRATED = ("nll", "brier", "ece", "kl_from_votes")  # the metrics that a temperature changes
SPLITS = {"train": "training", "valid": "validation", "test": "test"}


def show(name: str, interval: Interval) -> str:
    """Return a metric with its interval as text, or "none" if it is not defined."""
    value, low, high = interval
    if math.isnan(value):
        return "none"
    percent = MAIN[name][1] if name in MAIN else not name.startswith("roc_auc")
    if percent:
        return f"{value:.2%} ({low:.1%} to {high:.1%})"
    return f"{value:.4f} ({low:.3f} to {high:.3f})"


def verdict(result: Evaluation) -> str:
    """Return the result in one line."""
    by_subset = result.metrics[result.main_protocol]
    text = f"{result.name}: accuracy {show('accuracy', by_subset['all']['accuracy'])}"
    if "without_duplicates" in by_subset:
        text += f", {by_subset['without_duplicates']['accuracy'].value:.2%} without duplicates"
    return f"{text}; {len(result.rows):,} {SPLITS[result.split]} images, {result.main_protocol}"


def summary_table(result: Evaluation) -> Table:
    """Return the main numbers under the main protocol, by subset."""
    by_subset = result.metrics[result.main_protocol]
    counts = result.counts[result.main_protocol]
    rows = [["images", *(f"{counts[subset]:,}" for subset in by_subset)]]
    for name in SUMMARY:
        rows.append([MAIN[name][0], *(show(name, metrics[name]) for metrics in by_subset.values())])
    return Table(["", *(SUBSETS[subset] for subset in by_subset)], rows)


def main_table(result: Evaluation) -> Table:
    """Return every metric under every protocol."""
    rows = [["images", *(f"{result.counts[protocol]['all']:,}" for protocol in PROTOCOLS)]]
    for name, (title, _) in MAIN.items():
        rows.append([title, *(show(name, result.metrics[protocol]["all"][name]) for protocol in PROTOCOLS)])
    return Table(["", *PROTOCOLS], rows, f"{result.name}, {SPLITS[result.split]} split; with 95% intervals")


def duplicates_table(result: Evaluation) -> Table:
    """Return every accuracy on all images and without the duplicates of images in other splits."""
    subsets = list(result.counts[result.main_protocol])
    rows = [
        [f"images, {protocol}", *(f"{result.counts[protocol][subset]:,}" for subset in subsets)]
        for protocol in PROTOCOLS
    ]
    for name in ACCURACIES:
        for protocol in PROTOCOLS:
            cells = (show(name, result.metrics[protocol][subset][name]) for subset in subsets)
            rows.append([f"{MAIN[name][0]}, {protocol}", *cells])
    caption = f"{result.name}, {SPLITS[result.split]} split, with and without duplicates"
    return Table(["", *(SUBSETS[subset] for subset in subsets)], rows, caption)


def class_table(result: Evaluation) -> Table:
    """Return precision, recall, F1 and ROC AUC of every class under the main protocol."""
    metrics = result.main_metrics
    counts = metrics_lib.confusion(result.main_predictions).sum(axis=1)
    rows = [
        [emotion, f"{count:,}", *(show(name, metrics[f"{name}/{emotion}"]) for name in PER_CLASS)]
        for emotion, count in zip(EMOTIONS, counts, strict=True)
    ]
    return Table(["", "images", *PER_CLASS.values()], rows, f"by class, protocol {result.main_protocol}")


def models_table(results: Sequence[Evaluation]) -> Table:
    """Return the main numbers of several models, a row each."""
    protocol = results[0].main_protocol
    # Short titles, so that the intervals of accuracy fit a terminal.
    columns = [("all", "accuracy", "accuracy")]
    if "without_duplicates" in results[0].metrics[protocol]:
        columns.append(("without_duplicates", "accuracy", "without duplicates"))
    columns += [("all", "macro_f1", "F1, macro"), ("all", "nll", "NLL"), ("all", "ece", "ECE")]
    rows = [
        [result.name, *(show(name, result.metrics[protocol][subset][name]) for subset, name, _ in columns)]
        for result in results
    ]
    titles = [title for *_, title in columns]
    if all(result.robustness for result in results):
        titles.append("corrupted")
        for row, result in zip(rows, results, strict=True):
            row.append(show("accuracy", result.robustness.mean["all"]["accuracy"]) if result.robustness else "none")
    caption = f"{SPLITS[results[0].split]} split, {protocol}, {len(results[0].rows):,} images; with 95% intervals"
    return Table(["", *titles], rows, caption)


def as_json(result: Evaluation) -> dict[str, Any]:
    """Return the metrics for programs: those of the main protocol by plain name, and all with their intervals.

    `protocols` has, by protocol and subset, the number of images and [value, low, high] of each metric. An undefined
    metric is null. ROC AUC is given for all images only. `robustness` has the means over all corruptions by subset, and
    the values of the five strengths by corruption, where they were measured.
    """
    confusion = metrics_lib.confusion(result.main_predictions)
    values = {name: interval.value for name, interval in result.main_metrics.items()}
    per_class = {
        emotion: {**{name: values[f"{name}/{emotion}"] for name in PER_CLASS}, "count": int(count)}
        for emotion, count in zip(EMOTIONS, confusion.sum(axis=1), strict=True)
    }
    protocols = {
        protocol: {
            subset: {"count": result.counts[protocol][subset], **{name: list(metrics[name]) for name in metrics}}
            for subset, metrics in by_subset.items()
        }
        for protocol, by_subset in result.metrics.items()
    }
    return without_nan(
        {
            "model": result.name,
            "split": result.split,
            "protocol": result.main_protocol,
            "count": len(result.rows),
            **{name: values[name] for name in MAIN},
            "per_class": per_class,
            "confusion": confusion.tolist(),
            "temperature": result.temperature,
            "calibrated": {name: list(result.calibrated[name]) for name in CALIBRATED},
            "protocols": protocols,
            **({"robustness": _robustness(result.robustness)} if result.robustness else {}),
        }
    )


def _robustness(robustness: Robustness) -> dict[str, Any]:
    return {
        "mean": {
            subset: {name: list(value) for name, value in means.items()} for subset, means in robustness.mean.items()
        },
        "by_strength": {
            corruption: {name: values.tolist() for name, values in metrics.items()}
            for corruption, metrics in robustness.by_strength.items()
        },
    }


def without_nan(value: Any) -> Any:
    """Return the value with None for every nan, which JSON does not have."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
