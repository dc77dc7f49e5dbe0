"""The sums and the confusion matrix that training and evaluation add up; divided once, at the end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.labels import EMOTIONS
from fer_jax.training.confusion import confusion_metrics

NEVER = np.iinfo(np.int32).max


class Metrics(NamedTuple):
    """Sums over examples and steps, to be added by `merge` and never averaged."""

    loss: jax.Array  # f32[], sum over examples
    examples: jax.Array  # f32[], their number
    confusion: jax.Array  # f32[8, 8], examples by [label, prediction]
    grad_norm: jax.Array  # f32[], sum over steps; zero in evaluation
    steps: jax.Array  # i32[]
    bad_step: jax.Array  # i32[], the first step with a non-finite loss or gradient, or NEVER


def zeros() -> Metrics:
    """The neutral element of `merge`."""
    classes = len(EMOTIONS)
    return Metrics(
        loss=jnp.zeros(()),
        examples=jnp.zeros(()),
        confusion=jnp.zeros((classes, classes)),
        grad_norm=jnp.zeros(()),
        steps=jnp.zeros((), jnp.int32),
        bad_step=jnp.full((), NEVER, jnp.int32),
    )


@jax.jit  # one launch instead of one for each field
def merge(a: Metrics, b: Metrics) -> Metrics:
    """Return the metrics of both sets of examples together."""
    sums = jax.tree.map(jnp.add, a, b)
    return sums._replace(bad_step=jnp.minimum(a.bad_step, b.bad_step))


def count_batch(loss: jax.Array, logits: jax.Array, target: jax.Array, mask: jax.Array) -> Metrics:
    """Return the metrics of one batch, without gradient norm and steps.

    Args:
        loss: f32[B], per example.
        logits: f32[B, 8].
        target: f32[B, 8]; its largest entry counts as the label.
        mask: f32[B], 0 for padded rows.
    """
    label = jax.nn.one_hot(jnp.argmax(target, axis=-1), len(EMOTIONS)) * mask[:, None]
    prediction = jax.nn.one_hot(jnp.argmax(logits, axis=-1), len(EMOTIONS))
    # Full precision: on GPUs and TPUs the default would round counts.
    confusion = jnp.matmul(label.T, prediction, precision=jax.lax.Precision.HIGHEST)
    # where, not *: a padded row may hold anything, and nan x 0 is nan.
    loss_sum = jnp.sum(jnp.where(mask > 0, loss, 0))
    return zeros()._replace(loss=loss_sum, examples=mask.sum(), confusion=confusion)


def summary(metrics: Metrics) -> dict[str, float]:
    """Return the mean `loss` per example, and the `confusion_metrics` that are not of one class."""
    loss = float(metrics.loss) / max(int(metrics.examples), 1)
    scores = confusion_metrics(np.asarray(metrics.confusion)[..., None])
    return {"loss": loss, **{name: float(values[0]) for name, values in scores.items() if "/" not in name}}
