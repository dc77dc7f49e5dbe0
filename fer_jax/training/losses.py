"""Losses per example, on logits. The label mode names its loss, see `labels.MODES`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Cross entropy with a distribution, in nats: f32[B, 8], f32[B, 8] -> f32[B]."""
    return optax.softmax_cross_entropy(logits, target)


def multi_target(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-log max over classes of target x p, in nats: f32[B, 8], f32[B, 8] -> f32[B] (Barsoum et al. 2016, eq. 5).

    The target is multi-hot, smoothed by 0.001. A network that is sure of any one of its emotions has no loss.
    """
    # Padded rows have targets of zero. The floor keeps their masked loss finite: 0 x inf would be nan.
    return -jnp.max(jax.nn.log_softmax(logits) + jnp.log(jnp.maximum(target, 1e-6)), axis=-1)


LOSSES = {"cross_entropy": cross_entropy, "multi_target": multi_target}


def logit_adjusted(loss: Loss, prior: np.ndarray, tau: float) -> Loss:
    """Return the loss of logits + tau log prior, so that the logits themselves need not favour frequent classes.

    Menon et al. 2020, eq. 10 (https://arxiv.org/abs/2007.07314). For training only: predictions use the plain logits.

    Args:
        loss: a value of `LOSSES`.
        prior: f64[8], the class frequencies in training; their sum does not matter.
        tau: the strength, 1 in theory; 0 leaves the loss as it is.
    """
    if tau == 0:
        return loss
    offset = tau * np.log(np.maximum(prior, 1e-6)).astype(np.float32)  # a class without an image: 0 x inf is nan
    return lambda logits, target: loss(logits + offset, target)
