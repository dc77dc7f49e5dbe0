"""The metrics of a confusion matrix, for many matrices at once, in numpy.

Training and evaluation share them: add a metric of the confusion matrix here, of probabilities in
`fer_jax.evaluation.metrics`.
"""

import numpy as np

from fer_jax.data.labels import EMOTIONS


def ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """Return the quotient as f64, `otherwise` where the denominator is not above 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, otherwise, np.float64), where=denominator > 0)


def confusion_metrics(confusions: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of R confusion matrices, as scikit-learn defines them.

    Args:
        confusions: [8, 8, R], examples by [label, prediction].

    Returns:
        f64[R] in 0..1 by name; a metric with a denominator of zero is 0.
        - accuracy
        - balanced_accuracy: the mean recall of the labelled classes
        - precision, recall, f1: weighted by label frequency
        - macro_precision, macro_recall, macro_f1: the plain mean over the classes that are labelled or predicted
        - precision/happiness and so on: of one class, nan where it is neither labelled nor predicted
    """
    confusions = np.asarray(confusions, np.float64)
    correct, labelled, predicted = np.einsum("iir->ir", confusions), confusions.sum(axis=1), confusions.sum(axis=0)
    total = labelled.sum(axis=0)
    per_class = {
        "precision": ratio(correct, predicted, otherwise=0),
        "recall": ratio(correct, labelled, otherwise=0),
        "f1": ratio(2 * correct, labelled + predicted, otherwise=0),
    }
    present = labelled + predicted > 0
    result = {
        "accuracy": ratio(correct.sum(axis=0), total, otherwise=0),
        "balanced_accuracy": ratio(per_class["recall"].sum(axis=0), (labelled > 0).sum(axis=0), otherwise=0),
    }
    for name, values in per_class.items():
        result[name] = ratio((values * labelled).sum(axis=0), total, otherwise=0)
        result[f"macro_{name}"] = ratio(values.sum(axis=0), present.sum(axis=0), otherwise=0)
        by_class = zip(EMOTIONS, np.where(present, values, np.nan), strict=True)
        result |= {f"{name}/{emotion}": value for emotion, value in by_class}
    return result
