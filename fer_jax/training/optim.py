"""Learning-rate schedule, weight average and optimizer from a config, built of optax parts.

A new schedule, for example one-cycle or linear, is a function here and an entry in `SCHEDULES`. A new optimizer is a
function here and an entry in `OPTIMIZERS`. New config fields go into `fer_jax.core.schema`, and their rules into
`fer_jax.training.checks`.

Schedules count in epochs, so that a config means the same at every batch size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fer_jax.core.errors import UserError
from fer_jax.training import muon
from fer_jax.training.packing import Packed, pack, unpack

Decay = Callable[[jax.Array], jax.Array]


def _constant(config: ConfigDict, epoch: jax.Array, epochs: int) -> jax.Array:
    """The factor 1."""
    return jnp.ones_like(epoch)


def _step(config: ConfigDict, epoch: jax.Array, epochs: int) -> jax.Array:
    """The factor `scales[i]` from epoch `boundaries[i]` on, 1 before the first boundary."""
    stage = jnp.searchsorted(jnp.asarray(config.boundaries, jnp.float32), epoch, side="right")
    return jnp.asarray((1.0, *config.scales))[stage]


def _cosine(config: ConfigDict, epoch: jax.Array, epochs: int) -> jax.Array:
    """Half a cosine from 1 at the end of the warm-up to `final_scale` at the end of the run.

    Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983.
    """
    progress = (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-9)
    return config.final_scale + (1 - config.final_scale) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))


# From (config.schedule, epoch f32[], epochs of the run) to the factor on `optim.learning_rate`. `epoch` is a fraction
# within an epoch. `create_schedule` adds the warm-up to all of them.
SCHEDULES: dict[str, Callable[[ConfigDict, jax.Array, int], jax.Array]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
}


def create_schedule(learning_rate: float, config: ConfigDict, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Return the schedule of a config: a function from step to learning rate.

    The rate is `learning_rate` times the factor of the named schedule. During `schedule.warmup_epochs` it is also
    multiplied by a linear ramp from zero to one.

    Args:
        learning_rate: `optim.learning_rate`.
        config: `config.schedule`, checked by `fer_jax.training.checks`.
        steps_per_epoch: optimizer steps in an epoch.
        epochs: epochs of the run.

    Raises:
        KeyError: `schedule.name` is not in `SCHEDULES`; the checks rule that out.
    """
    warmup_steps = max(config.warmup_epochs * steps_per_epoch, 1.0)

    def schedule(step: jax.Array) -> jax.Array:
        ramp = jnp.minimum((step + 1) / warmup_steps, 1.0)
        return learning_rate * ramp * SCHEDULES[config.name](config, step / steps_per_epoch, epochs)

    return schedule


def create_decay(config: ConfigDict, steps_per_epoch: int, epochs: int) -> Decay | None:
    """Return the decay of the average of the weights, a function of the step; None if no average is kept.

    After each step average = decay x average + (1 - decay) x weights.

    - `ema_decay`: an exponential moving average. It is warmed up as min(decay, (1 + step) / (10 + step)); otherwise the
      first weights would linger in short runs.
    - `swa_epochs`: the mean over all steps of the last `swa_epochs` epochs, and the latest weights until then. This is
      stochastic weight averaging (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407) with every step instead of
      one step per epoch.

    Args:
        config: `config.optim`.
        steps_per_epoch: optimizer steps in an epoch.
        epochs: epochs of the run.
    """
    if config.swa_epochs:
        start = round((epochs - config.swa_epochs) * steps_per_epoch)

        def mean(step: jax.Array) -> jax.Array:
            averaged_steps = jnp.maximum(step - start, 0).astype(jnp.float32)
            return averaged_steps / (averaged_steps + 1)

        return mean
    if config.ema_decay:
        return lambda step: jnp.minimum(config.ema_decay, (1 + step) / (10 + step))
    return None


def _kernels(params: Any) -> Any:
    """The mask of the weights that decay: kernels, but not biases and normalisation scales, which are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _adam(config: ConfigDict) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=config.b1, b2=config.b2)


def _sgd(config: ConfigDict) -> optax.GradientTransformation:
    return optax.trace(decay=config.momentum, nesterov=config.nesterov)


def _lion(config: ConfigDict) -> optax.GradientTransformation:
    """The sign of a weighted mean of gradient and momentum (Chen et al. 2023, https://arxiv.org/abs/2302.06675)."""
    return optax.scale_by_lion(b1=config.b1, b2=config.b2)


def _muon(config: ConfigDict) -> optax.GradientTransformation:
    """Muon for convolution kernels and Adam for all other weights, both with Nesterov momentum if it is set."""
    parts = {
        "muon": muon.scale_by_muon(config.momentum, config.nesterov),
        "adam": optax.scale_by_adam(b1=config.b1, b2=config.b2, nesterov=config.nesterov),
    }

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda leaf: "muon" if leaf.ndim == 4 else "adam", params)

    return optax.partition(parts, labels)


OPTIMIZERS: dict[str, Callable[[ConfigDict], optax.GradientTransformation]] = {
    "adam": _adam,
    "adamw": _adam,
    "sgd": _sgd,
    "lion": _lion,
    "muon": _muon,
}


def _set_to_zero(layers: Sequence[str]) -> optax.GradientTransformation:
    """Zeros instead of the updates of all weights in some layers."""

    def init(params: Packed) -> optax.EmptyState:
        names = list(unpack(params))
        if unknown := [layer for layer in layers if layer not in names]:
            raise UserError(f"optim.freeze: the network has no layer {unknown[0]!r}; it has {', '.join(names)}")
        return optax.EmptyState()

    def update(updates: Packed, state: optax.EmptyState, params: Any = None) -> tuple[Packed, optax.EmptyState]:
        trees = unpack(updates)
        return pack(trees | {layer: jax.tree.map(jnp.zeros_like, trees[layer]) for layer in layers}), state

    return optax.GradientTransformation(init, update)


def create_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return the optimizer of a config: clipping, L2, `optim.name`, decoupled decay, the learning rate, in this order.

    Each part is added only if it is set. `l2` is added to the gradient, as torch.optim's `weight_decay` is for Adam and
    SGD. `weight_decay` is added to the optimizer's step, as AdamW does (Loshchilov & Hutter 2019,
    https://arxiv.org/abs/1711.05101). Without it "adamw" is "adam". The layers of `freeze` take no step,
    and clipping leaves their gradients out.

    Args:
        config: `config.optim`, checked by `fer_jax.training.checks`.
        schedule: from step to learning rate.

    Raises:
        KeyError: `optim.name` is not in `OPTIMIZERS`; the checks rule that out.
    """
    frozen = [_set_to_zero(config.freeze)] if config.freeze else []
    parts = [*frozen]  # before clipping: the norm is that of the trained weights
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.l2:
        parts.append(optax.add_decayed_weights(config.l2, mask=_kernels))
    parts.append(OPTIMIZERS[config.name](config))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_kernels))
    return optax.chain(*parts, *frozen, optax.scale_by_learning_rate(schedule))
