"""A trained network as one ONNX file, compared with the network before it is kept."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from fer_jax import inference
from fer_jax.core import atomic
from fer_jax.core.errors import UserError
from fer_jax.data import augment, folders
from fer_jax.data.folders import SIDE
from fer_jax.data.labels import EMOTIONS
from fer_jax.deploy import onnx_graph
from fer_jax.evaluation import evaluator
from fer_jax.inference.network import Network

TRIED = 4  # pictures that file and network are compared on
TOLERANCE = 1e-4  # of a probability


def to_onnx(network: Network, temperature: float | None = None) -> onnx.ModelProto:
    """A network as an ONNX model.

    Args:
        network: what is exported.
        temperature: goes into the metadata; the probabilities are those of the network as it is.

    Raises:
        UserError: its pictures are not of 48x48 pixels, or it has a part that cannot be written so.
    """
    image = network.config.image
    if image.size != SIDE:
        raise UserError(f"the network cannot be exported: it sees {image.size}x{image.size} pixels, not {SIDE}x{SIDE}")

    def probability(images: jax.Array) -> jax.Array:
        pictures = augment.unmoved(images, normalize=image.normalize)
        logits: Any = network.parts.model.apply(network.variables, pictures, train=False)
        return jax.nn.softmax(logits)

    kind = jax.ShapeDtypeStruct((SIDE, SIDE), np.uint8)
    model = onnx_graph.convert(probability, kind, ("image", "probability"))
    facts = {"run": str(network.run), "step": str(network.step), "emotions": " ".join(EMOTIONS)}
    if temperature is not None:
        facts["temperature"] = f"{temperature:.4f}"
    helper.set_model_props(model, facts)
    return model


def check(network: Network, model: onnx.ModelProto) -> None:
    """Raises UserError if model and network say different things of some pictures of noise and of ramps."""
    images = np.random.default_rng(0).integers(0, 256, (TRIED, SIDE, SIDE), dtype=np.uint8)
    images[TRIED // 2 :] = np.sort(images[TRIED // 2 :], axis=1)
    with jax.default_matmul_precision("float32"):  # GPUs would round the products
        expected = np.exp(inference.log_probabilities(network, images))
    for count in (1, TRIED):
        (answer,) = ReferenceEvaluator(model).run(None, {"image": images[:count]})
        said = np.asarray(answer)
        apart = np.abs(said - expected[:count]).max() if said.shape == expected[:count].shape else np.inf
        if not apart <= TOLERANCE:
            raise UserError(f"the exported network differs by {apart:.2g} from {network.run}: a mistake of fer_jax")


def export(run: Path, checkpoint: str, out: Path, data_dir: str | None) -> None:
    """Write the network of a run to the file `out`.

    Args:
        run: the run folder.
        checkpoint: "best" or "latest".
        out: the file.
        data_dir: the data folder, to fit the calibration temperature on validation; None for no temperature.

    Raises:
        UserError: the run or the data cannot be read, or the network cannot be exported.
    """
    network = inference.restore(run, checkpoint)
    temperature = None
    if data_dir is not None:
        valid = folders.load(data_dir, "valid")
        log_probs = inference.log_probabilities(network, valid.images)
        temperature = evaluator.fit_temperature(log_probs, valid, "majority")
    model = to_onnx(network, temperature)
    check(network, model)
    with atomic.replacing(out) as partial:
        partial.write_bytes(model.SerializeToString())
    print(f"exported: {out} ({out.stat().st_size / 1e6:.1f} MB), checked on {TRIED} images")
