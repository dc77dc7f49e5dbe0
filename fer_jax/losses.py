"""Per-example losses on logits; the label mode names the one it goes with (`labels.MODES`)."""

import jax
import jax.numpy as jnp
import optax


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
