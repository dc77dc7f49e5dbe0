"""The result of evaluating a model on a split."""

from typing import NamedTuple

import numpy as np

from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.metrics import Predictions

# The subsets of a split, with their names in tables. A duplicate is an image that is also in another split that
# training or selection uses: exact if the pixels are the same. The last subset has no near-duplicates either.
SUBSETS = {
    "all": "all images",
    "without_exact_duplicates": "without exact duplicates",
    "without_duplicates": "without duplicates",
}


class Robustness(NamedTuple):
    """The metrics of a model on corrupted images, under the main protocol."""

    mean: dict[str, dict[str, Interval]]  # over all corruptions and strengths, by subset and by metric
    by_strength: dict[str, dict[str, np.ndarray]]  # f64[5] of all images, by corruption and by metric


class Evaluation(NamedTuple):
    """A model's predictions on a split, and their metrics."""

    name: str
    split: str
    main_protocol: str  # the protocol of classes, calibration, slices and images
    predictions: dict[str, Predictions]  # by protocol
    rows: np.ndarray  # i64[N], the rows of the split that the main protocol keeps
    # by protocol, subset and name; roc_auc of "all" alone; nan if a subset is empty
    metrics: dict[str, dict[str, dict[str, Interval]]]
    counts: dict[str, dict[str, int]]  # images, by protocol and subset
    temperature: float  # fitted on validation under the main protocol
    calibrated: dict[str, Interval]  # the metrics of the main protocol at that temperature
    robustness: Robustness | None = None  # None where it was not asked for

    @property
    def main_metrics(self) -> dict[str, Interval]:
        """The metrics of all images under the main protocol."""
        return self.metrics[self.main_protocol]["all"]

    @property
    def main_predictions(self) -> Predictions:
        """The predictions under the main protocol."""
        return self.predictions[self.main_protocol]
