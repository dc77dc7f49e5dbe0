"""The robustness of a network: its accuracy on corrupted images, by corruption and strength, and their mean.

It stands in for other cameras and detectors, as far as that can be computed from the images themselves.
"""

from collections.abc import Callable, Mapping

import numpy as np

from fer_jax import inference
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from fer_jax.evaluation.intervals import bootstrap_weights, interval
from fer_jax.evaluation.metrics import Predictions
from fer_jax.evaluation.result import Evaluation, Robustness
from fer_jax.inference import Network
from fer_jax.training.confusion import confusion_metrics

METRICS = ("accuracy", "balanced_accuracy")


def predict(network: Network, images: np.ndarray, flip: bool, report: Callable[[str], None]) -> np.ndarray:
    """Return the log probabilities of corrupted images: f32[C, 5, N, 8], corruptions in the order of `CORRUPTIONS`.

    Args:
        network: the network.
        images: u8[N, 48, 48].
        flip: average in the predictions for the mirrored images.
        report: called with a line after each corruption.
    """
    log_probs = np.empty((len(CORRUPTIONS), STRENGTHS, len(images), metrics_lib.CLASSES), np.float32)
    for row, name in enumerate(CORRUPTIONS):
        for strength in range(1, STRENGTHS + 1):
            corrupted = corrupt(images, name, strength)
            log_probs[row, strength - 1] = inference.log_probabilities(network, corrupted, flip)
        report(f"robustness, {row + 1} of {len(CORRUPTIONS)} corruptions: {name}")
    return log_probs


def add(result: Evaluation, log_probs: np.ndarray, subsets: Mapping[str, np.ndarray]) -> Evaluation:
    """Return an evaluation with its robustness.

    Args:
        result: the evaluation of N images under its main protocol.
        log_probs: float[C, 5, N, 8], from `predict` for the split's images of `result.rows`.
        subsets: bool[M] by name, of all images of the split; see `evaluator.subset_masks`.
    """
    masks = {name: mask[result.rows] for name, mask in subsets.items()}
    return result._replace(robustness=measure(log_probs, result.main_predictions, masks))


def measure(
    log_probs: np.ndarray, clean: Predictions, subsets: Mapping[str, np.ndarray], seed: int = 0, replicas: int = 1000
) -> Robustness:
    """Return the robustness of a model from its predictions.

    Args:
        log_probs: float[C, 5, N, 8], from `predict`.
        clean: the predictions for the same N images without corruption, with their labels.
        subsets: bool[N] by name; "all" is one of them. A subset without images has no entry in the result.
        seed: fixes the replicas.
        replicas: of the 95 % percentile bootstrap intervals over the images.
    """
    conditions = [clean._replace(log_probabilities=values) for values in log_probs.reshape(-1, *log_probs.shape[2:])]
    single = _metrics(conditions, np.ones((len(clean.label), 1)))[..., 0].reshape(len(METRICS), -1, STRENGTHS)
    mean = {}
    for subset, mask in subsets.items():
        if not mask.any():
            continue
        part = [metrics_lib.take(condition, mask) for condition in conditions]
        count = int(mask.sum())
        value = _metrics(part, np.ones((count, 1))).mean(axis=1)[:, 0]
        blocks = [_metrics(part, weights).mean(axis=1) for weights in bootstrap_weights(count, seed, replicas)]
        replicates = np.concatenate(blocks, axis=1)
        mean[subset] = {name: interval(float(value[i]), replicates[i]) for i, name in enumerate(METRICS)}
    by_strength = {name: dict(zip(METRICS, single[:, row], strict=True)) for row, name in enumerate(CORRUPTIONS)}
    return Robustness(mean, by_strength)


def _metrics(conditions: list[Predictions], weights: np.ndarray) -> np.ndarray:
    """The metrics of R replicas, weights f64[N, R], under K conditions: f64[M, K, R]."""
    computed = [confusion_metrics(metrics_lib.weighted_confusion(condition, weights)) for condition in conditions]
    return np.stack([[metrics[name] for metrics in computed] for name in METRICS])
