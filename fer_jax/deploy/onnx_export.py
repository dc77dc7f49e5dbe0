"""The export of a trained network to one ONNX file, which is compared with the network first."""

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
from fer_jax.data import folders
from fer_jax.data.folders import SIDE
from fer_jax.data.labels import EMOTIONS
from fer_jax.deploy import onnx_convert, onnx_input
from fer_jax.evaluation import evaluator
from fer_jax.inference.network import Network
from fer_jax.training.shapes import named_leaves

TRIED = 4  # images on which file and network are compared
TOLERANCE = 1e-4  # of a probability


def to_onnx(network: Network, temperature: float | None = None) -> onnx.ModelProto:
    """Return a network as an ONNX model.

    Args:
        network: the network.
        temperature: of its calibration; goes into the metadata and leaves the probabilities as they are.

    Raises:
        UserError: it has an operation without a rule in `onnx_rules`.
    """
    image, model = network.config.image, network.parts.model
    leaves, tree = named_leaves(network.variables), jax.tree.structure(network.variables)

    def logits(weights: dict[str, jax.Array], images: jax.Array) -> Any:
        variables = jax.tree.unflatten(tree, [weights[name] for name in leaves])
        return model.apply(variables, onnx_input.rendered(images, image.size, image.normalize), train=False)

    weights = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    image_type = jax.ShapeDtypeStruct((SIDE, SIDE), np.uint8)
    model_file = onnx_convert.convert(logits, weights, image_type, ("image", "probability"), softmax=True)
    facts = {"run": str(network.run), "step": str(network.step), "emotions": " ".join(EMOTIONS)}
    if temperature is not None:
        facts["temperature"] = f"{temperature:.4f}"
    helper.set_model_props(model_file, facts)
    return model_file


def check(network: Network, model: onnx.ModelProto) -> None:
    """Raise UserError if model and network predict differently for images of noise and of ramps."""
    images = np.random.default_rng(0).integers(0, 256, (TRIED, SIDE, SIDE), dtype=np.uint8)
    images[TRIED // 2 :] = np.sort(images[TRIED // 2 :], axis=1)
    with jax.default_matmul_precision("float32"):  # GPUs would round the products
        expected = np.exp(inference.log_probabilities(network, images))
    for count in (1, TRIED):
        (output,) = ReferenceEvaluator(model).run(None, {"image": images[:count]})
        exported = np.asarray(output)
        same_shape = exported.shape == expected[:count].shape
        difference = np.abs(exported - expected[:count]).max() if same_shape else np.inf
        if not difference <= TOLERANCE:
            problem = f"the exported network's probabilities differ by {difference:.2g} from those of {network.run}"
            raise UserError(f"{problem}: this is a bug in fer_jax, please report it")


def export(run: Path, checkpoint: str, out: Path, data_dir: str | None) -> None:
    """Write the network of a run to the file `out`.

    Args:
        run: the run folder, or the name of a shipped network.
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
