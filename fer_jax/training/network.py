"""The network of a config with the rendering of its input; all that predictions need, without an optimizer."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax.data import augment
from fer_jax.data.batching import Batch, Render
from fer_jax.models import registry


class NetworkParts(NamedTuple):
    """The network of a config and the rendering of its input."""

    model: nn.Module
    render: Render
    render_device: Callable[..., jax.Array]


def build_network(config: ConfigDict) -> NetworkParts:
    """The network that a checked config names; see `checks.check_network`."""
    image, on_device = config.image, config.augment.renderer == "device"
    return NetworkParts(
        model=registry.create_model(**config.model),
        render=Render(image.normalize, image.size, on_device),
        render_device=partial(augment.render_device, size=image.size, normalize=image.normalize),
    )


def predict_step(variables: Any, batch: Batch, *, model: nn.Module, render: Callable[..., jax.Array]) -> jax.Array:
    """Logits f32[B, 8] of one batch, dropout off and with the running batch statistics."""
    logits = model.apply(variables, rendered(batch, render), train=False)
    assert isinstance(logits, jax.Array)  # and not also updated variables: nothing is mutable here
    return logits


def rendered(batch: Batch, render: Callable[..., jax.Array]) -> jax.Array:
    """The input of the network, f32[B, S, S, 1]: the batch's images, rendered here unless the host has done it."""
    return batch.image if batch.params is None else render(batch.image, batch.params)
