"""Log probabilities: from logits, and the mean of several predictions. Without jax."""

from collections.abc import Sequence

import numpy as np


def average(log_probs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logarithm of the mean probability, f64[N, 8].

    Args:
        log_probs: log probabilities of the same images, float[N, 8] each: one per network or view.

    Raises:
        ValueError: the list is empty, or shapes differ.
    """
    return np.logaddexp.reduce(np.stack(log_probs).astype(np.float64), axis=0) - np.log(len(log_probs))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax of each row: float[N, 8] -> f64[N, 8]."""
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
