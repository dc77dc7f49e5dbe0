"""A network as an ONNX model: grey faces in, probabilities out, and its facts in the metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors import numpy as safetensors_numpy

from fer_jax import inference
from fer_jax.core import atomic, provenance
from fer_jax.core.run_folder import GRAPH, WEIGHTS
from fer_jax.data.folders import SIDE
from fer_jax.data.labels import EMOTIONS
from fer_jax.deploy import onnx_convert, onnx_input
from fer_jax.inference import onnx_network
from fer_jax.inference.network import Network
from fer_jax.training.shapes import named_leaves

INPUT, OUTPUT = "image", "probability"
CROP = "one face, square, from the top of the forehead to below the chin, little around it; 48x48 grey pixels, 0 to 255"


def to_onnx(network: Network, stored: Mapping[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """Return a network as an ONNX model, from `image` u8[batch, 48, 48] to `probability` f32[batch, 8].

    Args:
        network: the network.
        stored: its weights by name, float32 or float16, if the graph shall keep them as they are. Runtimes then compute
            the kernels when they read the file. None: the kernels are computed here.

    Raises:
        UserError: the network has an operation without a rule in `onnx_rules`.
    """
    leaves, tree = named_leaves(network.variables), jax.tree.structure(network.variables)
    weights = stored or {name: np.asarray(leaf) for name, leaf in leaves.items()}
    image = network.config.image

    def logits(weights: Mapping[str, jax.Array], images: jax.Array) -> Any:
        variables = jax.tree.unflatten(tree, [weights[name] for name in leaves])
        inputs = onnx_input.rendered(images, image.size, image.normalize)
        return network.parts.model.apply(variables, inputs, train=False)

    pixels, names = jax.ShapeDtypeStruct((SIDE, SIDE), np.uint8), (INPUT, OUTPUT)
    model = onnx_convert.convert(logits, weights, pixels, names, softmax=True, fold=stored is None)
    add_facts(model, facts(network))
    return model


def facts(network: Network) -> dict[str, str]:
    """Return what a user of the file needs to know, as text by name."""
    accuracy = {record.step: record.valid["accuracy"] for record in network.history if "accuracy" in record.valid}
    return {
        "emotions": " ".join(EMOTIONS),
        "crop": CROP,
        "run": str(network.run),
        "step": str(network.step),
        "label_mode": network.label_mode,
        "fer_jax": provenance.__version__,
        **({"symmetric": "a face and its mirror image have the same probabilities"} if network.symmetric else {}),
        **({"valid_accuracy": f"{accuracy[network.step]:.4f}"} if network.step in accuracy else {}),
    }


def add_facts(model: onnx.ModelProto, facts: Mapping[str, str]) -> None:
    """Add entries to the metadata."""
    helper.set_model_props(model, {**{entry.key: entry.value for entry in model.metadata_props}, **facts})


def write_graph(folder: Path, name: str) -> None:
    """Write `network.onnx` of a released network: the graph alone, with references into `weights.safetensors`.

    Args:
        folder: the folder of the network.
        name: the name of the network, for the metadata.
    """
    content = (folder / WEIGHTS).read_bytes()
    stored = safetensors_numpy.load(content)
    model = to_onnx(inference.restore(folder), stored)
    places = safetensors_places(content)
    for tensor in model.graph.initializer:
        if tensor.name in places:
            _refer(tensor, places[tensor.name])
    add_facts(model, {"run": name, "weights": onnx_network.digest(folder)})
    with atomic.replacing(folder / GRAPH) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))


def safetensors_places(content: bytes) -> dict[str, tuple[int, int]]:
    """Return the first byte and the length of each array in a safetensors file.

    https://huggingface.co/docs/safetensors: eight bytes with the length of the header, the header as JSON, the arrays.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    offsets = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: (start + first, last - first) for name, (first, last) in offsets.items()}


def _refer(tensor: TensorProto, place: tuple[int, int]) -> None:
    """Replace the numbers of a tensor by a reference to the file of weights next to the graph."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", str(place[0])), ("length", str(place[1]))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
