"""Per-example losses on logits; the label mode names the one it goes with (`labels.MODES`)."""

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
    """-log max over classes of mark x p, in nats: f32[B, 8], f32[B, 8] -> f32[B] (Barsoum et al. 2016, eq. 5).

    The network is free to say any one of the marked emotions.
    """
    # Padded rows have marks of zero: the floor keeps their (masked) loss finite, which 0 x inf would not.
    return -jnp.max(jax.nn.log_softmax(logits) + jnp.log(jnp.maximum(target, 1e-6)), axis=-1)


LOSSES = {"cross_entropy": cross_entropy, "multi_target": multi_target}


def logit_adjusted(loss: Loss, prior: np.ndarray, tau: float) -> Loss:
    """The loss of logits + tau log prior, so that the logits themselves need not favour frequent classes.

    Menon et al. 2020, eq. 10 (https://arxiv.org/abs/2007.07314). For training alone: the network's own logits predict.

    Args:
        loss: a value of `LOSSES`.
        prior: f64[8], how frequent the classes are in training; their sum does not matter.
        tau: how much of it, 1 in theory; at 0 the loss stays as it is.
    """
    if tau == 0:
        return loss
    offset = tau * np.log(np.maximum(prior, 1e-6)).astype(np.float32)  # a class without a picture: 0 x inf is nan
    return lambda logits, target: loss(logits + offset, target)
