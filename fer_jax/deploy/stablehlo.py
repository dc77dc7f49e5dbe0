"""A network as StableHLO, the portable form of JAX programs, for those who stay with JAX but not with fer_jax."""

from pathlib import Path

import jax
import numpy as np
from jax import export as jax_export

from fer_jax import inference
from fer_jax.core import atomic
from fer_jax.core.errors import UserError
from fer_jax.data.folders import SIDE
from fer_jax.deploy import onnx_input
from fer_jax.inference.network import Network

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-4  # of a probability


def serialized(network: Network) -> bytearray:
    """Return the network as `jax.export` stores it: u8[batch, 48, 48] -> f32[batch, 8], weights included."""
    image = network.config.image
    variables = jax.tree.map(np.asarray, network.variables)

    def probability(images: jax.Array) -> jax.Array:
        inputs = onnx_input.rendered(images, image.size, image.normalize)
        return jax.nn.softmax(network.parts.model.apply(variables, inputs, train=False))  # type: ignore[arg-type]

    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, SIDE, SIDE), np.uint8)
    return jax_export.export(jax.jit(probability), platforms=PLATFORMS)(images).serialize()


def export(run: Path, checkpoint: str, out: Path) -> None:
    """Write the network of a run to the file `out`, if it predicts what the network does.

    Raises:
        UserError: the run cannot be read.
    """
    network = inference.restore(run, checkpoint)
    content = serialized(network)
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE), dtype=np.uint8)
    expected = np.exp(inference.log_probabilities(network, images))
    difference = np.abs(np.asarray(jax_export.deserialize(content).call(images)) - expected).max()
    if not difference <= TOLERANCE:
        problem = f"the exported network's probabilities differ by {difference:.2g} from those of {run}"
        raise UserError(f"{problem}: this is a bug in fer_jax, please report it")
    with atomic.replacing(out) as partial:
        partial.write_bytes(content)
    print(f"exported: {out} ({len(content) / 1e6:.1f} MB), checked on {len(images)} images")
