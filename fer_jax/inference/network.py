"""A trained network from its run folder, and its predictions."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.special import log_softmax, logsumexp
from tqdm import tqdm

from fer_jax.core import run_folder
from fer_jax.core.devices import Devices, memory_errors
from fer_jax.core.errors import UserError
from fer_jax.data import batching
from fer_jax.data.batching import Batch, Examples
from fer_jax.data.labels import EMOTIONS
from fer_jax.inference import weights
from fer_jax.models import registry
from fer_jax.training.checks import check_network
from fer_jax.training.history import EpochRecord, best_record
from fer_jax.training.network import NetworkParts, build_network, predict_step
from fer_jax.training.shapes import named_leaves


class Network(NamedTuple):
    """A trained network, ready to predict."""

    run: Path
    config: ConfigDict
    parts: NetworkParts
    predict: Callable[[Any, Batch], jax.Array]  # compiled (variables, batch) -> logits f32[B, 8]
    variables: Any  # {"params", "batch_stats"}: the moving average where the run kept one
    step: int
    history: list[EpochRecord]  # all epochs of the run so far, also those after this step
    checkpoint: str = "best"  # or "latest"
    code: Sequence[Mapping[str, Any]] = ()  # versions of fer_jax that trained it; see checkpoint.Progress


MEMORY = "end other programs that use it, or set JAX_PLATFORMS=cpu"


@memory_errors(MEMORY)
def restore(run: Path | str, which: str = "best") -> Network:
    """Return the network of a run folder, or a shipped network by name, on the devices of this process.

    It computes in float32.

    Args:
        run: the run folder, a released network's folder, or the name of a shipped network.
        which: the "best" or "latest" checkpoint. A released network has one set of weights, which is read for both.

    Raises:
        OutOfMemoryError: the device has too little memory.
        UserError: there is no run, no checkpoint yet, the run is of another version, or its weights cannot be used.
    """
    run = run_folder.find(run)
    config = run_folder.read_config(run)
    check_network(config)
    exact = config.copy_and_resolve_references()
    exact.model.dtype = "float32"  # in which weights are stored, and CPUs are slow in bfloat16
    parts = build_network(exact)
    predict = jax.jit(partial(predict_step, model=parts.model, render=parts.render_device))
    if run_folder.is_released(run):  # this needs neither orbax nor the optimizer
        stored = weights.load(run, jax.eval_shape(partial(registry.init, parts.model, 0, exact.image.size)))
        _check_finite(run, stored.variables)
        variables = Devices().replicate(stored.variables)
        return Network(run, config, parts, predict, variables, stored.step, stored.history, stored.checkpoint)
    from fer_jax.training import checkpoint, restoring, setup, train_step

    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        saved = restoring.restore(manager, which, setup.checkpoint_tree(exact), Devices().replicated)
        history = restoring.history(manager)
    if saved is None:
        raise UserError(f"{run} has no {which} checkpoint yet; it appears after the first epoch")
    _check_best(run, which, saved.step, history)
    variables = train_step.eval_variables(saved.tree["state"])
    _check_finite(run, variables)
    return Network(run, config, parts, predict, variables, saved.step, history, which, saved.progress.code)


def _check_best(run: Path, which: str, step: int, history: Sequence[EpochRecord]) -> None:
    """Raise a UserError if the files of the best epoch are gone, and another would pass for it."""
    if which == "best" and history and (best := best_record(history).step) != step:
        raise UserError(
            f"the best checkpoint of {run}, step {best}, is missing or has lost its metrics: choose --checkpoint latest"
        )


def _check_finite(run: Path, variables: Any) -> None:
    for name, leaf in named_leaves(variables).items():
        if not np.isfinite(np.asarray(leaf)).all():
            remedy = "copy it again" if run_folder.is_released(run) else "train again, in another --workdir"
            raise UserError(f"the network in {run} cannot be used: {name} has values that are not finite; {remedy}")


@memory_errors(MEMORY)
def log_probabilities(network: Network, images: np.ndarray, flip: bool = False) -> np.ndarray:
    """Return the natural logarithm of the class probabilities of images: u8[N, 48, 48] -> f64[N, 8].

    With `flip` the probabilities are averaged over the image and its mirror image.
    """
    if flip:
        return average([_predict(network, view) for view in (images, images[:, :, ::-1])])
    return _predict(network, images)


def _predict(network: Network, images: np.ndarray) -> np.ndarray:
    devices = Devices()
    batch_size = devices.round_up(_batch_size(len(images), network.config.train.eval_batch_size))
    examples = Examples(images, np.zeros((len(images), len(EMOTIONS)), np.float32))
    logits = []
    batches = batching.eval_batches(examples, network.parts.render, batch_size=batch_size)
    bar = tqdm(
        total=len(images), desc=f"predicting with {network.run.name}", unit="img", leave=False, disable=None, delay=1
    )
    with bar, closing(batching.prefetch(batches, devices.shard)) as ready:
        for batch in ready:
            logits.append(np.asarray(network.predict(network.variables, batch)))
            bar.update(min(batch_size, len(images) - bar.n))
    return log_softmax(np.concatenate(logits)[: len(images)].astype(np.float64), axis=1)


def _batch_size(images: int, largest: int) -> int:
    """The next power of two, at most `largest`: the program is compiled for a few sizes, not for every number."""
    return min(1 << (images - 1).bit_length(), largest)


def average(log_probs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logarithm of the mean probability, f64[N, 8].

    Args:
        log_probs: log probabilities of the same images, float[N, 8] each: one per network or view.

    Raises:
        ValueError: the list is empty, or shapes differ.
    """
    return logsumexp(np.stack(log_probs).astype(np.float64), axis=0) - np.log(len(log_probs))
