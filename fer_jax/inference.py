"""A trained network from its run folder, and what it says of pictures."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from scipy.special import log_softmax
from tqdm import tqdm

from fer_jax import augment, calibration, checkpoint, loader, train_step, weights
from fer_jax import config as config_lib
from fer_jax import metrics as metrics_lib
from fer_jax.cli import UserError
from fer_jax.data import SIDE
from fer_jax.devices import Devices, memory_told
from fer_jax.experiment import Parts, build
from fer_jax.labels import EMOTIONS
from fer_jax.loader import Batch, Examples


class Network(NamedTuple):
    """A checkpoint of a run with all that is needed to use it."""

    run: Path
    config: ConfigDict
    parts: Parts
    variables: Any  # {"params", "batch_stats"}: the moving average where the run kept one
    step: int
    history: list[dict[str, Any]]  # of all the run's epochs so far, also those after this step; see fer_jax.history
    checkpoint: str = "best"  # or "latest"


class Saliency(NamedTuple):
    """What `saliency` finds, by class; zero for a class without pictures."""

    maps: np.ndarray  # f32[8, 48, 48], >= 0
    faces: np.ndarray  # f32[8, 48, 48], the mean of the pictures used, 0..255
    count: np.ndarray  # type: ignore[assignment]  # i64[8], how many they are; hides tuple.count, which nobody needs


MEMORY = "end other programs that use it, or set JAX_PLATFORMS=cpu"


@memory_told(MEMORY)
def restore(run: Path, which: str) -> Network:
    """The "best" or "latest" checkpoint of a run folder, on these devices whatever it was trained on.

    It computes in float32. A released network (see `fer_jax.release`) has one set of weights: it is read whichever is
    asked for.

    Raises:
        OutOfMemoryError: the device has not enough.
        UserError: no run there, no checkpoint yet, or one of another version.
    """
    config = config_lib.read(run)
    exact = config.copy_and_resolve_references()
    exact.model.dtype = "float32"  # whatever it was trained in: weights are, and CPUs are slow in bfloat16
    parts = build(exact)
    if (run / config_lib.WEIGHTS).exists():
        found = weights.load(run, jax.eval_shape(lambda: train_step.eval_variables(parts.init())))
        variables = Devices().replicate(found.variables)
        return Network(run, config, parts, variables, found.step, found.history, found.checkpoint)
    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        like = jax.eval_shape(lambda: {"state": parts.init(), "totals": metrics_lib.zeros()})
        saved = checkpoint.restore(manager, which, like, Devices().replicated)
        history = checkpoint.history(manager)
    if saved is None:
        raise UserError(f"{run} has no {which} checkpoint yet; it appears after the first epoch")
    return Network(run, config, parts, train_step.eval_variables(saved.tree["state"]), saved.step, history, which)


@memory_told(MEMORY)
def log_probabilities(network: Network, images: np.ndarray, flip: bool = False) -> np.ndarray:
    """The logarithm of the class probabilities of each picture: u8[N, 48, 48] -> f64[N, 8].

    With `flip` the probabilities are the mean of those of the picture and of its mirror image.
    """
    parts = network.parts
    # one program for both views
    step = jax.jit(partial(train_step.predict_step, model=parts.model, render=parts.render_device))
    if flip:
        return calibration.average([_view(network, step, view) for view in (images, images[:, :, ::-1])])
    return _view(network, step, images)


def _view(network: Network, step: Callable[[Any, Batch], jax.Array], images: np.ndarray) -> np.ndarray:
    devices = Devices()
    batch_size = devices.round_up(min(network.config.train.eval_batch_size, len(images)))
    examples = Examples(images, np.zeros((len(images), len(EMOTIONS)), np.float32))
    logits = []
    batches = loader.eval_batches(examples, network.parts.render, batch_size=batch_size)
    bar = tqdm(total=len(images), desc=f"predicting with {network.run.name}", unit="img", leave=False, disable=None)
    with bar, closing(loader.prefetch(batches, devices.shard)) as ready:
        for batch in ready:
            logits.append(np.asarray(step(network.variables, batch)))
            bar.update(min(batch_size, len(images) - bar.n))
    return log_softmax(np.concatenate(logits)[: len(images)].astype(np.float64), axis=1)


@memory_told(MEMORY)
def saliency(network: Network, images: np.ndarray, label: np.ndarray) -> Saliency:
    """Where pixels matter for each class: the mean size of the gradient of the label's log probability.

    Simonyan et al. 2013, section 3 (https://arxiv.org/abs/1312.6034).

    Args:
        network: the network.
        images: u8[N, 48, 48].
        label: i64[N]; of each class the first 32 pictures are used.
    """
    render, rows = network.parts.render, 32
    gradient = jax.jit(partial(_input_gradient, model=network.parts.model))
    maps, faces = np.zeros((2, len(EMOTIONS), SIDE, SIDE), np.float32)
    count = np.minimum(np.bincount(label, minlength=len(EMOTIONS)), rows)
    for c in np.flatnonzero(count):
        chosen = images[label == c][:rows]
        faces[c] = chosen.mean(axis=0)
        filled = np.resize(chosen, (rows, SIDE, SIDE))  # always as many, so that it compiles once
        params = augment.identity(rows, render.size)
        pictures = augment.render(filled, params, size=render.size, normalize=render.normalize)
        size = np.abs(np.asarray(gradient(network.variables, pictures, c)))[: len(chosen), ..., 0].mean(axis=0)
        maps[c] = np.asarray(Image.fromarray(size).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return Saliency(maps, faces, count)


def _input_gradient(variables: Any, image: jax.Array, label: jax.Array, *, model: Any) -> jax.Array:
    def log_probability(image: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.log_softmax(model.apply(variables, image, train=False))[:, label])

    return jax.grad(log_probability)(image)
