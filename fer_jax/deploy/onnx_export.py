"""The export of a trained network to one ONNX file, which is compared with the network first."""

from pathlib import Path

import jax
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from fer_jax import inference
from fer_jax.core import atomic
from fer_jax.core.errors import UserError
from fer_jax.data import folders
from fer_jax.data.folders import SIDE
from fer_jax.deploy import onnx_model, onnx_precision
from fer_jax.evaluation import evaluator
from fer_jax.inference.network import Network

TRIED = 4  # images on which file and network are compared
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}  # of a probability


def check(network: Network, model: onnx.ModelProto, tolerance: float = TOLERANCE["float32"]) -> None:
    """Raise UserError if model and network predict differently for images of noise and of ramps."""
    images = np.random.default_rng(0).integers(0, 256, (TRIED, SIDE, SIDE), dtype=np.uint8)
    images[TRIED // 2 :] = np.sort(images[TRIED // 2 :], axis=1)
    with jax.default_matmul_precision("float32"):  # GPUs would round the products
        expected = np.exp(inference.log_probabilities(network, images))
    for count in (1, TRIED):
        (output,) = ReferenceEvaluator(model).run(None, {onnx_model.INPUT: images[:count]})
        exported = np.asarray(output)
        same_shape = exported.shape == expected[:count].shape
        difference = np.abs(exported - expected[:count]).max() if same_shape else np.inf
        if not difference <= tolerance:
            problem = f"the exported network's probabilities differ by {difference:.2g} from those of {network.run}"
            raise UserError(f"{problem}: this is a bug in fer_jax, please report it")


def export(run: Path, checkpoint: str, out: Path, data_dir: str | None, precision: str = "float32") -> None:
    """Write the network of a run to the file `out`, and print its size and its test.

    Args:
        run: the run folder, or the name of a shipped network.
        checkpoint: "best" or "latest".
        out: the file.
        data_dir: the data folder: the calibration temperature and the accuracy on validation go into the metadata, and
            int8 takes the ranges of activations from training images. None: neither; int8 needs it.
        precision: a key of `onnx_precision.PRECISIONS`.

    Raises:
        UserError: the run or the data cannot be read, or the network cannot be exported.
    """
    network = inference.restore(run, checkpoint)
    model = onnx_model.to_onnx(network)
    check(network, model)
    lines = [f"checked on {TRIED} images"]
    if data_dir is not None:
        valid = folders.load(data_dir, "valid")
        log_probs = inference.log_probabilities(network, valid.images)
        temperature = evaluator.fit_temperature(log_probs, valid, "majority")
        onnx_model.add_facts(model, {"temperature": f"{temperature:.4f}"})
    if precision == "float16":
        model = onnx_precision.halved(model)
        check(network, model, TOLERANCE["float16"])
    elif precision == "int8":
        assert data_dir is not None
        images = folders.load(data_dir, "train").images
        model = onnx_precision.quantized(model, images)
        accuracies = onnx_precision.accuracies(model, valid, log_probs)
        onnx_model.add_facts(model, {"valid_accuracy": f"{accuracies[1]:.4f}"})
        lines = [onnx_precision.comparison(*accuracies)]
    onnx_model.add_facts(model, {"precision": precision})
    with atomic.replacing(out) as partial:
        partial.write_bytes(model.SerializeToString())
    print(f"exported: {out} ({out.stat().st_size / 1e6:.1f} MB), {'; '.join(lines)}")
