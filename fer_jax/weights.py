"""The weights of a released network in one safetensors file, which any library of that format reads; no pickle.

The file stands in the network's folder in place of checkpoints. It holds what predictions are made with, under names
such as `params/Dense_0/kernel`, and what is known of the training as JSON.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from fer_jax import atomic
from fer_jax.cli import UserError
from fer_jax.config import WEIGHTS

_METADATA = "training"  # one entry alone: safetensors writes several in any order, and the same file should come out


class Weights(NamedTuple):
    """What the file holds."""

    variables: Any  # {"params", "batch_stats"}, numpy arrays
    checkpoint: str  # "best" or "latest" of the run that they are from
    step: int
    seed: int
    history: list[dict[str, Any]]  # of all the run's epochs; see fer_jax.history


def save(folder: Path, weights: Weights, half: bool = False) -> None:
    """Write `<folder>/weights.safetensors`, in float32 or `half` of it (kernels in float16), whole or not at all.

    Raises:
        UserError: a kernel has values that float16 does not hold.
    """
    arrays = {}
    for name, leaf in _by_name(weights.variables).items():
        # Vectors are few and may lie beyond what float16 holds: variances do.
        with np.errstate(over="ignore"):  # the next line says it
            arrays[name] = np.array(leaf, np.float16 if half and np.ndim(leaf) > 1 else np.float32, order="C")
        if half and np.isinf(arrays[name]).any():
            raise UserError(f"{name} has values beyond what float16 holds; release it without --half")
    training = {name: value for name, value in weights._asdict().items() if name != "variables"}
    with atomic.replacing(folder / WEIGHTS) as partial:
        partial.write_bytes(safetensors_numpy.save(arrays, {_METADATA: json.dumps(training)}))


def is_half(folder: Path) -> bool:
    """Whether `<folder>/weights.safetensors` is there and holds kernels in float16."""
    if not (folder / WEIGHTS).exists():
        return False
    with safetensors.safe_open(folder / WEIGHTS, "numpy") as file:
        return any(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118


def load(folder: Path, like: Any) -> Weights:
    """What `save` wrote, in float32.

    Args:
        folder: of the network.
        like: variables of the same names and shapes (jax.eval_shape gives them).

    Raises:
        UserError: the file is missing or damaged, or its arrays are not those of `like`.
    """
    path, expected = folder / WEIGHTS, _by_name(like)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            there = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            _check(
                path,
                {name: (tuple(array.get_shape()), _stored(array)) for name, array in there.items()},
                {name: (leaf.shape, "F32") for name, leaf in expected.items()},
            )
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in expected}
            training = json.loads((file.metadata() or {})[_METADATA])
        variables = jax.tree.unflatten(jax.tree.structure(like), arrays.values())
        return Weights(variables, **training)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is missing, damaged or not from fer_jax.release ({reason}); get it anew") from None


def _stored(array: Any) -> str:
    """The dtype of an array in the file, where float16 kernels count as what they become."""
    dtype = array.get_dtype()
    return "F32" if dtype == "F16" and len(array.get_shape()) > 1 else dtype


def _by_name(variables: Any) -> dict[str, Any]:
    """The leaves of a tree in its order, by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _check(path: Path, there: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises UserError with the first array that is missing, too many, or of another shape or dtype."""
    for name in sorted({**there, **expected}):
        if there.get(name) != expected.get(name):
            found, wanted = (
                f"{of[name][1]}{list(of[name][0])}" if name in of else "nothing" for of in (there, expected)
            )
            raise UserError(f"{path} is not of the network in config.json: {name} is {found}, not {wanted}")
