"""The figures of an evaluation for reading and for programs: tables of text, and JSON."""

import math
from typing import Any

from fer_jax.data.labels import EMOTIONS, PROTOCOLS
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.result import SUBSETS, Evaluation
from fer_jax.reporting.document import Table

# name in `scores.figures`: (what tables call it, whether it is shown in percent)
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
    "roc_auc": ("ROC AUC, one against the rest", False),
    "nll": ("negative log likelihood", False),
    "brier": ("Brier score (0 to 2)", False),
    "ece": ("expected calibration error", True),
    "kl_from_votes": ("KL divergence from the votes", False),
    "agreement": ("taggers who agree with the prediction", True),
    "label_agreement": ("taggers who agree with the label", True),
}
PER_CLASS = {"precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC AUC"}
CALIBRATED = ("nll", "brier", "ece", "kl_from_votes")  # what a temperature changes


def show(name: str, interval: Interval) -> str:
    """A figure with its interval as text, "none" if it is not defined."""
    value, low, high = interval
    if math.isnan(value):
        return "none"
    percent = MAIN[name][1] if name in MAIN else not name.startswith("roc_auc")
    if percent:
        return f"{value:.2%} ({low:.1%} to {high:.1%})"
    return f"{value:.4f} ({low:.3f} to {high:.3f})"


def verdict(result: Evaluation) -> str:
    """The result in one line."""
    metrics, count = result.metrics[result.main_protocol], result.counts[result.main_protocol]["all"]
    text = f"{result.name}: accuracy {show('accuracy', metrics['all']['accuracy'])} on {count:,} {result.split} images"
    if "without_duplicates" in metrics:
        text += f", {metrics['unseen_near']['accuracy'].value:.2%} without duplicates"
    return f"{text} ({result.main_protocol})"


def main_table(result: Evaluation) -> Table:
    """Every figure under every protocol."""
    rows = [["pictures", *(f"{result.counts[protocol]['all']:,}" for protocol in PROTOCOLS)]]
    for name, (title, _) in MAIN.items():
        rows.append([title, *(show(name, result.metrics[protocol]["all"][name]) for protocol in PROTOCOLS)])
    return Table(["", *PROTOCOLS], rows, f"{result.name}, {result.split} split; with 95% intervals")


def duplicates_table(result: Evaluation) -> Table:
    """Every accuracy on all pictures and on those that were not seen in training or selection."""
    rows = []
    for name in ("accuracy", "balanced_accuracy", "top2_accuracy"):
        for subset in result.counts[result.main_protocol]:
            cells = (show(name, result.metrics[protocol][subset][name]) for protocol in PROTOCOLS)
            rows.append([f"{MAIN[name][0]}, {SUBSETS[subset]}", *cells])
    for subset in result.counts[result.main_protocol]:
        rows.append([f"pictures, {SUBSETS[subset]}", *(f"{result.counts[p][subset]:,}" for p in PROTOCOLS)])
    return Table(["", *PROTOCOLS], rows, f"{result.name}, {result.split} split, with and without memory")


def class_table(result: Evaluation) -> Table:
    """Precision, recall, F1 and ROC AUC of every class under the main_protocol protocol."""
    own = result.metrics[result.main_protocol]["all"]
    counts = metrics_lib.confusion(result.predictions[result.main_protocol]).sum(axis=1)
    rows = [
        [emotion, f"{count:,}", *(show(name, own[f"{name}/{emotion}"]) for name in PER_CLASS)]
        for emotion, count in zip(EMOTIONS, counts, strict=True)
    ]
    return Table(["", "pictures", *PER_CLASS.values()], rows, f"by class, protocol {result.main_protocol}")


def as_json(result: Evaluation) -> dict[str, Any]:
    """The figures for programs: those of the main_protocol protocol by plain name, and all with their intervals.

    `protocols` holds, by protocol and subset, the number of pictures and [value, low, high] of each figure; null
    stands where a figure is not defined. ROC AUC is given for all pictures alone.
    """
    confusion = metrics_lib.confusion(result.predictions[result.main_protocol])
    own = {name: of.value for name, of in result.metrics[result.main_protocol]["all"].items()}
    per_class = {
        emotion: {**{name: own[f"{name}/{emotion}"] for name in PER_CLASS}, "count": int(count)}
        for emotion, count in zip(EMOTIONS, confusion.sum(axis=1), strict=True)
    }
    protocols = {
        protocol: {
            subset: {"count": result.counts[protocol][subset], **{name: list(of) for name, of in found.items()}}
            for subset, found in by_subset.items()
        }
        for protocol, by_subset in result.metrics.items()
    }
    return without_nan(
        {
            "model": result.name,
            "split": result.split,
            "protocol": result.main_protocol,
            "count": len(result.rows),
            **{name: own[name] for name in MAIN},
            "per_class": per_class,
            "confusion": confusion.tolist(),
            "temperature": result.temperature,
            "calibrated": {name: list(result.calibrated[name]) for name in CALIBRATED},
            "protocols": protocols,
        }
    )


def without_nan(value: Any) -> Any:
    """The same with None for every nan, which JSON does not know."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
