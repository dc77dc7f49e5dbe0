"""Saliency maps: the pixels that the log probability of each class depends on."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from fer_jax.core.devices import memory_errors
from fer_jax.data import augment
from fer_jax.data.folders import SIDE
from fer_jax.data.labels import EMOTIONS
from fer_jax.inference.network import MEMORY, Network


class Saliency(NamedTuple):
    """Saliency maps by class; zero for a class without images."""

    maps: np.ndarray  # f32[8, 48, 48], >= 0
    faces: np.ndarray  # f32[8, 48, 48], the mean of the images used, 0..255
    count: np.ndarray  # type: ignore[assignment]  # i64[8], the number of images used; hides tuple.count


@memory_errors(MEMORY)
def saliency(network: Network, images: np.ndarray, label: np.ndarray) -> Saliency:
    """Return the mean absolute gradient of the label's log probability by pixel, for each class.

    Simonyan et al. 2013, section 3 (https://arxiv.org/abs/1312.6034).

    Args:
        network: the network.
        images: u8[N, 48, 48].
        label: i64[N]; the first 32 images of each class are used.
    """
    render, rows = network.parts.render, 32
    gradient = jax.jit(partial(_input_gradient, model=network.parts.model))
    maps, faces = np.zeros((2, len(EMOTIONS), SIDE, SIDE), np.float32)
    count = np.minimum(np.bincount(label, minlength=len(EMOTIONS)), rows)
    for c in np.flatnonzero(count):
        examples = images[label == c][:rows]
        faces[c] = examples.mean(axis=0)
        filled = np.resize(examples, (rows, SIDE, SIDE))  # one batch size, so that it compiles once
        params = augment.identity(rows, render.size)
        inputs = augment.render(filled, params, size=render.size, normalize=render.normalize)
        magnitude = np.abs(np.asarray(gradient(network.variables, inputs, c)))[: len(examples), ..., 0].mean(axis=0)
        maps[c] = np.asarray(Image.fromarray(magnitude).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return Saliency(maps, faces, count)


def _input_gradient(variables: Any, image: jax.Array, label: jax.Array, *, model: Any) -> jax.Array:
    def log_probability(image: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.log_softmax(model.apply(variables, image, train=False))[:, label])

    return jax.grad(log_probability)(image)
