"""Options of a reader that change its probabilities: calibration, and less of the training prior."""

from typing import TYPE_CHECKING

import numpy as np

from fer_jax.core import run_folder, shipped
from fer_jax.core.errors import UserError
from fer_jax.inference.log_probs import log_softmax
from fer_jax.inference.onnx_network import OnnxNetwork

if TYPE_CHECKING:
    from fer_jax.inference import Network

# The mean target of FER+'s training images under each label mode, in the order of EMOTIONS.
_VOTES = (0.33781, 0.26907, 0.12430, 0.13644, 0.08682, 0.00846, 0.02823, 0.00886)
PRIORS = {
    "majority": (0.34876, 0.29082, 0.12567, 0.12025, 0.08377, 0.00475, 0.02123, 0.00475),
    "probability": _VOTES,
    "crossentropy": _VOTES,
    "multi_target": (0.34004, 0.23461, 0.12376, 0.15844, 0.08704, 0.01029, 0.03526, 0.01055),
    "mixture": (0.34154, 0.26900, 0.12477, 0.13370, 0.08752, 0.00807, 0.02723, 0.00815),
    "clean": (0.30621, 0.35174, 0.13385, 0.10444, 0.07446, 0.00411, 0.02087, 0.00432),
    "argmax": (0.36379, 0.26399, 0.12564, 0.12424, 0.08674, 0.00679, 0.02297, 0.00585),
}
# Of the released networks, by evaluation.calibration.fit_temperature on FER+'s validation images, protocol majority.
TEMPERATURES = {"best": 0.716, "base": 0.777}


def adjust(log_probs: np.ndarray, network: "Network | OnnxNetwork", calibrated: bool, prior: float) -> np.ndarray:
    """Return the log probabilities of a network, f64[N, 8], changed as a reader's options demand.

    Args:
        log_probs: float[N, 8].
        network: the network that they come from.
        calibrated: scale by the temperature of the released network or the exported file.
        prior: subtract this part of the logarithm of the training prior, 0 to 1.

    Raises:
        UserError: no temperature of the network is stored.
    """
    if calibrated:
        log_probs = log_probs / _temperature(network)
    if prior:
        log_probs = log_probs - prior * np.log(PRIORS[network.label_mode])
    return log_softmax(log_probs) if calibrated or prior else log_probs


def _temperature(network: "Network | OnnxNetwork") -> float:
    if isinstance(network, OnnxNetwork) and network.temperature is not None:
        return network.temperature
    for name, folder in shipped.networks().items():
        if name in TEMPERATURES and run_folder.is_released(network.run) and folder.samefile(network.run):
            return TEMPERATURES[name]
    raise UserError(
        f"no temperature of {network.run} is stored: calibrated=True works with shipped networks and files of "
        "`fer-jax export --data`"
    )
