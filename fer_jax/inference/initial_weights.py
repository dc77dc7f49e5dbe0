"""The weights that a run starts from, `train.init_from`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fer_jax import inference
from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError
from fer_jax.data import labels
from fer_jax.models import registry


def restore(config: ConfigDict) -> Any:
    """Return the variables of the network that `train.init_from` names.

    Raises:
        UserError: it cannot be read, is of a run that has not finished, or is another network than the config's.
    """
    network = inference.restore_trained(config.train.init_from, "train.init_from")
    independent = ("dropout", "dtype", "stochastic_depth")  # the weights do not depend on these fields
    theirs, ours = (
        {
            "model": {name: value for name, value in fields["model"].items() if name not in independent},
            "image": fields["image"],
        }
        for fields in map(config_lib.as_json, (network.config, config))
    )
    if theirs != ours:
        differences = config_lib.differences(theirs, ours)
        raise UserError(f"train.init_from={config.train.init_from} holds another network ({differences})")
    return network.variables


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
