"""A trained network from its run folder, and its predictions."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fer_jax.core import run_folder
from fer_jax.core.devices import Devices, memory_errors
from fer_jax.core.errors import UserError
from fer_jax.data import augment
from fer_jax.data.labels import EMOTIONS
from fer_jax.data.selection import Images
from fer_jax.inference import weights
from fer_jax.inference.log_probs import average, log_softmax
from fer_jax.models import registry
from fer_jax.training.checks import check_network
from fer_jax.training.history import EpochRecord, best_record
from fer_jax.training.network import NetworkParts, build_network
from fer_jax.training.shapes import named_leaves


class Network(NamedTuple):
    """A trained network, ready to predict."""

    run: Path
    config: ConfigDict
    parts: NetworkParts
    predict: Callable[[Any, Any], jax.Array]  # compiled (variables, f32[B, S, S, 1]) -> logits f32[B, 8]
    variables: Any  # {"params", "batch_stats"}: the moving average where the run kept one
    step: int
    history: list[EpochRecord]  # all epochs of the run so far, also those after this step
    checkpoint: str = "best"  # or "latest"
    code: Sequence[Mapping[str, Any]] = ()  # versions of fer_jax that trained it; see checkpoint.Progress

    @property
    def label_mode(self) -> str:
        """The label mode of the training."""
        return self.config.data.label_mode

    @property
    def symmetric(self) -> bool:
        """A face and its mirror image have the same probabilities."""
        return self.config.model.symmetric

    def log_probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return `log_probabilities` of this network."""
        return log_probabilities(self, images)


BATCH_SIZES = (1, 2, 8, 32, 128)  # of few images; of more it is the config's
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
    predict = jax.jit(partial(parts.model.apply, train=False))
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
def log_probabilities(network: Network, images: Images, flip: bool = False) -> np.ndarray:
    """Return the natural logarithm of the class probabilities of images: u8[N, 48, 48] -> f64[N, 8].

    With `flip` the probabilities are averaged over the image and its mirror image, unless the network is symmetric.
    """
    if flip and not network.symmetric:
        return average([_predict(network, images, mirrored) for mirrored in (False, True)])
    return _predict(network, images)


def _predict(network: Network, images: Images, mirrored: bool = False) -> np.ndarray:
    devices = Devices()
    batch_size = devices.round_up(_batch_size(len(images), network.config.train.eval_batch_size))
    render, params = network.parts.render, augment.identity(batch_size, network.parts.render.size)
    logits = np.empty((len(images), len(EMOTIONS)))
    running: deque[tuple[int, jax.Array]] = deque()  # batches whose results are not read yet
    bar = tqdm(
        total=len(images), desc=f"predicting with {network.run.name}", unit="img", leave=False, disable=None, delay=1
    )

    def finish(count: int) -> None:
        """Read results until `count` batches are running."""
        while len(running) > count:
            start, result = running.popleft()
            rows = logits[start : start + batch_size]
            rows[:] = np.asarray(result)[: len(rows)]
            bar.update(len(rows))

    with bar:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            if mirrored:
                batch = batch[:, :, ::-1]
            batch = np.pad(batch, ((0, batch_size - len(batch)), (0, 0), (0, 0)))
            inputs = augment.render(batch, params, size=render.size, normalize=render.normalize)
            running.append((start, network.predict(network.variables, devices.shard(inputs))))
            finish(1)
        finish(0)
    return log_softmax(logits)


def _batch_size(images: int, largest: int) -> int:
    """The first of 1, 2, 8, 32, 128, ... that holds the images, at most `largest`.

    The program is compiled for these few sizes, not for every number.
    """
    return min(next((size for size in BATCH_SIZES if size >= images), largest), largest)
