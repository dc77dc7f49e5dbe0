"""The weights of a released network in one safetensors file, which any library of that format reads; no pickle.

The file is in the network's folder, in place of checkpoints. Its arrays have names such as `params/Dense_0/kernel`; its
metadata has the seed and the history of the training as JSON, and a digest of everything.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from fer_jax.core import atomic
from fer_jax.core.errors import UserError, one_line
from fer_jax.core.run_folder import WEIGHTS
from fer_jax.training.history import EpochRecord, as_json, from_json
from fer_jax.training.shapes import mismatch, named_leaves

_METADATA = "training"  # a single entry: safetensors writes several in random order, and files should be reproducible


class Weights(NamedTuple):
    """The content of the file."""

    variables: Any  # {"params", "batch_stats"}, numpy arrays
    checkpoint: str  # "best" or "latest", of the run
    step: int
    seed: int
    history: list[EpochRecord]  # all epochs of the run


def save(folder: Path, weights: Weights, half: bool = False) -> None:
    """Write `<folder>/weights.safetensors` in float32, or kernels in float16 for `half`; a failure leaves no file.

    Raises:
        UserError: a kernel has values beyond the range of float16.
    """
    arrays = {}
    for name, leaf in named_leaves(weights.variables).items():
        # Vectors are few, and variances exceed the range of float16.
        with np.errstate(over="ignore"):  # the error below is clearer
            arrays[name] = np.array(leaf, np.float16 if half and np.ndim(leaf) > 1 else np.float32, order="C")
        if half and np.isinf(arrays[name]).any():
            raise UserError(f"{name} has values beyond the range of float16: release it without --half")
    training = {**weights._asdict(), "history": as_json(weights.history)}
    del training["variables"]
    training["digest"] = _digest(arrays, training)
    with atomic.replacing(folder / WEIGHTS) as partial:
        partial.write_bytes(safetensors_numpy.save(arrays, {_METADATA: json.dumps(training)}))


def is_half(folder: Path) -> bool:
    """True where `<folder>/weights.safetensors` exists and has kernels in float16."""
    if not (folder / WEIGHTS).exists():
        return False
    with safetensors.safe_open(folder / WEIGHTS, "numpy") as file:
        return any(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118


def load(folder: Path, like: Any) -> Weights:
    """Return the weights that `save` wrote, in float32.

    Args:
        folder: the folder of the network.
        like: variables of the expected names and shapes, for example from jax.eval_shape.

    Raises:
        UserError: the file is missing or damaged, or its arrays differ from `like`.
    """
    path, expected = folder / WEIGHTS, named_leaves(like)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            problem = mismatch(
                {name: f"{_stored_dtype(array)}{list(array.get_shape())}" for name, array in stored.items()},
                {name: f"F32{list(leaf.shape)}" for name, leaf in expected.items()},
            )
            if problem:
                raise UserError(f"{path} does not fit the network in config.json: {problem}")
            arrays = {name: file.get_tensor(name) for name in expected}
            training = json.loads((file.metadata() or {})[_METADATA])
        digest = training.pop("digest", None)  # older files have none
        if digest is not None and digest != _digest(arrays, training):
            raise ValueError("its content has changed since it was written")
        leaves = [array.astype(np.float32) for array in arrays.values()]
        variables = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return Weights(variables, **{**training, "history": from_json(training["history"])})
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        reason = one_line(error)
        raise UserError(f"{path} is missing, damaged or not from fer_jax.release ({reason}); copy it again") from None


def _digest(arrays: Mapping[str, np.ndarray], training: Mapping[str, Any]) -> str:
    """The SHA-256 of names, types, shapes and values of the arrays, and of the rest of the metadata."""
    digest = hashlib.sha256(json.dumps(training, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _stored_dtype(array: Any) -> str:
    """The dtype of an array in the file; float16 kernels count as float32, to which they are converted."""
    dtype = array.get_dtype()
    return "F32" if dtype == "F16" and len(array.get_shape()) > 1 else dtype
