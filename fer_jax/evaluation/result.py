"""The result of evaluating a model on a split."""

from typing import NamedTuple

import numpy as np

from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.metrics import Predictions

# Subsets by the duplicates of images in splits that training and selection saw, with their names in tables.
SUBSETS = {
    "all": "all pictures",
    "without_exact_duplicates": "without exact repeats",
    "without_duplicates": "without exact and near repeats",
}


class Evaluation(NamedTuple):
    """A model's predictions on a split and the figures made of them."""

    name: str
    split: str
    main_protocol: str  # the protocol of pictures and slices
    predictions: dict[str, Predictions]  # by protocol
    rows: np.ndarray  # i64[N], where the main_protocol's pictures stand in the split
    # by protocol, subset and name; roc_auc of "all" alone; nan where there is no picture
    metrics: dict[str, dict[str, dict[str, Interval]]]
    counts: dict[str, dict[str, int]]  # pictures, by protocol and subset
    temperature: float  # fitted on validation under the main_protocol protocol
    calibrated: dict[str, Interval]  # the main_protocol's figures at that temperature
