"""The training step, (state, batch) -> (state, metrics), and the evaluation step, as pure functions.

Everything that does not change during a run (model, optimizer, loss, ...) is a keyword argument: bind it with
functools.partial, then jax.jit. Data-parallel training needs no other code: shard the batch over a mesh and replicate
the state. Under jit the sums over the batch, BatchNorm's too, are then sums over all devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from fer_jax.data import augment
from fer_jax.data.batching import Batch
from fer_jax.training import metrics as metrics_lib
from fer_jax.training.losses import Loss
from fer_jax.training.metrics import Metrics
from fer_jax.training.network import predict_step, rendered
from fer_jax.training.optim import Decay
from fer_jax.training.packing import Packed, pack, unpack

Render = Callable[..., jax.Array]


class TrainState(NamedTuple):
    """The part of a run that changes from step to step, and that a checkpoint stores."""

    step: jax.Array  # i32[]
    params: Packed
    batch_stats: Packed
    opt_state: Any
    average: dict[str, Packed] | None  # {"params", "batch_stats"}: their average over past steps


def create_state(variables: Any, optimizer: optax.GradientTransformation, averaged: bool) -> TrainState:
    """Return the state before the first step; with `averaged` it has an average, which starts at these variables."""
    latest = {"params": pack(variables["params"]), "batch_stats": pack(variables["batch_stats"])}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **latest,
        opt_state=optimizer.init(latest["params"]),
        average=jax.tree.map(jnp.copy, latest) if averaged else None,
    )


def eval_variables(state: TrainState) -> Any:
    """Return the variables to predict with, {"params", "batch_stats"}: the average if one is kept, else the latest."""
    latest = {"params": state.params, "batch_stats": state.batch_stats}
    return {name: unpack(packed) for name, packed in (state.average or latest).items()}


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    key: jax.Array,
    render: Render,
    decay: Decay | None,
) -> tuple[TrainState, Metrics]:
    """Take one optimizer step.

    Args:
        state: the state before the step.
        batch: f32 images, or u8 images with the parameters that `render` needs; they are mixed after rendering.
        model: called with `train=True`.
        optimizer: the one that `create_state` was given.
        loss: per example, logits f32[B, 8] and target f32[B, 8] -> f32[B].
        key: the random key of the run; dropout draws from it, folded with the step.
        render: `augment.render_device`, bound to a size and a normalisation.
        decay: the decay of the average of weights and batch statistics, see `optim.create_decay`; None: no average.

    Returns:
        The state after the step, and the metrics of the batch in training: with dropout, before the update.
    """
    target = _blend(batch.target, batch.mixing_weight)

    def mean_loss(params: Packed) -> tuple[jax.Array, tuple[Packed, jax.Array, jax.Array]]:
        logits, updates = model.apply(
            {"params": unpack(params), "batch_stats": unpack(state.batch_stats)},
            _mixed(rendered(batch, render), batch),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(key, state.step)},
        )
        per_example = loss(logits, target)
        mean = jnp.sum(per_example * batch.mask) / jnp.maximum(batch.mask.sum(), 1)
        return mean, (pack(updates.get("batch_stats", {})), logits, per_example)

    (mean, (batch_stats, logits, per_example)), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if decay is not None:
        latest = {"params": params, "batch_stats": batch_stats}
        average = optax.incremental_update(latest, average, 1 - decay(state.step))

    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(mean) & jnp.isfinite(grad_norm)
    metrics = metrics_lib.count_batch(per_example, logits, target, batch.mask)._replace(
        grad_norm=grad_norm,
        steps=jnp.ones((), jnp.int32),
        bad_step=jnp.where(finite, metrics_lib.NEVER, state.step).astype(jnp.int32),
    )
    return TrainState(state.step + 1, params, batch_stats, opt_state, average), metrics


def train_steps(
    state: TrainState,
    totals: Metrics,
    images: jax.Array | None,
    batches: Batch,
    seed: jax.Array,
    *,
    step: Callable[..., tuple[TrainState, Metrics]],
) -> tuple[TrainState, Metrics]:
    """Take K optimizer steps in one call, so that the device need not wait for the host.

    Args:
        state: the state before the steps.
        totals: the metrics of the epoch so far.
        images: u8[N, 48, 48], or None if the batches contain their images.
        batches: [K, B, ...]; with `images`, `image` holds the indices of images, i32[K, B].
        seed: u32[2], the seed of the run as the data of a random key.
        step: `train_step` with all keyword arguments bound except `key`.

    Returns:
        The state after the steps, and `totals` with the metrics of the steps merged in.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), 1)

    def body(carry: tuple[TrainState, Metrics], batch: Batch) -> tuple[tuple[TrainState, Metrics], None]:
        state, totals = carry
        if images is not None:
            batch = batch._replace(image=images[batch.image])
        state, metrics = step(state, batch, key=key)
        return (state, metrics_lib.merge(totals, metrics)), None

    if len(batches.mask) == 1:  # without a loop XLA optimises more
        return body((state, totals), jax.tree.map(lambda rows: rows[0], batches))[0]
    return jax.lax.scan(body, (state, totals), batches)[0]


def eval_step(variables: Any, batch: Batch, *, model: nn.Module, loss: Loss, render: Render) -> Metrics:
    """Return the metrics of one batch, without padded rows."""
    logits = predict_step(variables, batch, model=model, render=render)
    return metrics_lib.count_batch(loss(logits, batch.target), logits, batch.target, batch.mask)


def _mixed(images: jax.Array, batch: Batch) -> jax.Array:
    """Apply CutMix if the batch has boxes, else mixup. Row i is mixed with row B - 1 - i of the whole batch."""
    if batch.box is None:
        return _blend(images, batch.mixing_weight)
    return jnp.where(augment.inside(batch.box, images.shape[1], jnp)[..., None], images[::-1], images)


def _blend(rows: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Return weight x row i + (1 - weight) x row B - 1 - i, for weights f32[B]; None: the rows as they are."""
    if weight is None:
        return rows
    weight = weight.reshape(-1, *[1] * (rows.ndim - 1))
    return weight * rows + (1 - weight) * rows[::-1]
