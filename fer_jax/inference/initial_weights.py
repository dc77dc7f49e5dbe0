"""The weights that a run starts from, `train.init_from`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fer_jax import inference
from fer_jax.data import labels
from fer_jax.models import registry


def restore(config: ConfigDict) -> Any:
    """Return the variables of the network that `train.init_from` names, which `sources.check` has found fit.

    Raises:
        UserError: they cannot be read.
    """
    return inference.restore(config.train.init_from).variables


def without_absent_classes(variables: Any, target: np.ndarray, say: Callable[[str], None]) -> Any:
    """Return the variables without the classes that no training target has: they would only be predicted by error.

    Args:
        variables: of the initial network.
        target: f32[N, 8], of all training images.
        say: gets a line that names these classes.
    """
    absent = target.sum(axis=0) == 0
    if not absent.any():
        return variables
    names = ", ".join(emotion for emotion, missing in zip(labels.EMOTIONS, absent, strict=True) if missing)
    say(f"no training image of {names}: the network does not predict them")
    return registry.without_classes(variables, absent)
