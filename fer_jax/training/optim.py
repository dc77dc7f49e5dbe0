"""Optimizer and learning-rate schedule from a config, built of optax parts.

A schedule gives the factor on `optim.learning_rate` at each step; its config is in epochs, so it means the
same whatever the batch size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from fer_jax.training import muon

Decay = Callable[[jax.Array], jax.Array]


def _constant(config: ConfigDict, epoch: jax.Array, epochs: int) -> jax.Array:
    return jnp.ones_like(epoch)


def _step(config: ConfigDict, epoch: jax.Array, epochs: int) -> jax.Array:
    """`scales[i]` from epoch `boundaries[i]` on, 1 before the first."""
    passed = jnp.searchsorted(jnp.asarray(config.boundaries, jnp.float32), epoch, side="right")
    return jnp.asarray((1.0, *config.scales))[passed]


def _cosine(config: ConfigDict, epoch: jax.Array, epochs: int) -> jax.Array:
    """Half a cosine from 1 at the end of the warm-up to `final_scale` (Loshchilov & Hutter 2017)."""
    done = (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-9)
    return config.final_scale + (1 - config.final_scale) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))


SCHEDULES: dict[str, Callable[[ConfigDict, jax.Array, int], jax.Array]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
}


def create_schedule(learning_rate: float, config: ConfigDict, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Step -> learning rate: the named schedule, under `schedule.warmup_epochs` of linear warm-up from zero.

    Raises:
        KeyError: `schedule.name` is not in `SCHEDULES`; see `fer_jax.training.checks`.
    """
    warmup_steps = max(config.warmup_epochs * steps_per_epoch, 1.0)

    def schedule(step: jax.Array) -> jax.Array:
        ramp = jnp.minimum((step + 1) / warmup_steps, 1.0)
        return learning_rate * ramp * SCHEDULES[config.name](config, step / steps_per_epoch, epochs)

    return schedule


def create_decay(config: ConfigDict, steps_per_epoch: int, epochs: int) -> Decay | None:
    """Step -> how much of the average of the weights stays when those after that step join it; None: there is none.

    `ema_decay` gives the exponential moving average, warmed up as min(decay, (1 + step) / (10 + step)), or the first
    weights would linger in short runs. `swa_epochs` gives the mean of all steps in the last so many epochs, and until
    then the latest weights: stochastic weight averaging (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407), but
    with every step in it rather than one an epoch.
    """
    if config.swa_epochs:
        start = round((epochs - config.swa_epochs) * steps_per_epoch)

        def mean(step: jax.Array) -> jax.Array:
            before = jnp.maximum(step - start, 0).astype(jnp.float32)
            return before / (before + 1)

        return mean
    if config.ema_decay:
        return lambda step: jnp.minimum(config.ema_decay, (1 + step) / (10 + step))
    return None


def _kernels(params: Any) -> Any:
    """Decay is for kernels: biases and the scales of normalisation layers are vectors and stay out of it."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _adam(config: ConfigDict) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=config.b1, b2=config.b2)


def _sgd(config: ConfigDict) -> optax.GradientTransformation:
    return optax.trace(decay=config.momentum, nesterov=config.nesterov)


def _lion(config: ConfigDict) -> optax.GradientTransformation:
    """The sign of a mean of gradient and momentum (Chen et al. 2023, https://arxiv.org/abs/2302.06675)."""
    return optax.scale_by_lion(b1=config.b1, b2=config.b2)


def _muon(config: ConfigDict) -> optax.GradientTransformation:
    """Orthogonalised momentum for convolution kernels; all else by Adam, Nesterov's where Muon is."""
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


def create_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clip, add L2, scale by `optim.name`, add decoupled decay, scale by -rate: each part only where set.

    `l2` is added to the gradient before the scaling, as torch.optim's `weight_decay` does for Adam and SGD;
    `weight_decay` after it, as AdamW does (Loshchilov & Hutter 2019). Without it "adamw" is "adam".

    Raises:
        KeyError: `optim.name` is not in `OPTIMIZERS`; see `fer_jax.training.checks`.
    """
    parts = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.l2:
        parts.append(optax.add_decayed_weights(config.l2, mask=_kernels))
    parts.append(OPTIMIZERS[config.name](config))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_kernels))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))
