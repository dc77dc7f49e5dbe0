"""Smaller ONNX files: kernels stored in float16, or convolutions computed with 8-bit whole numbers."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fer_jax.core.errors import UserError
from fer_jax.data.folders import Split
from fer_jax.deploy.onnx_model import INPUT
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.inference import onnx_network

PRECISIONS = ("float32", "float16", "int8")
CALIBRATION_IMAGES = 512  # of the training set, from which int8 takes the range of activations
LOSS = 0.005  # of accuracy, above which the command warns


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with kernels stored in float16 and computed with in float32.

    CPUs have few kernels for float16: runtimes would convert every tensor back and forth.

    Raises:
        UserError: a kernel has values beyond the range of float16.
    """
    largest = np.finfo(np.float16).max
    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts, constants = [], []
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            values, name = numpy_helper.to_array(tensor), f"{tensor.name}_float16"
            if not np.abs(values).max() <= largest:
                raise UserError(f"{tensor.name} has values beyond the range of float16: choose --precision float32")
            casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
            tensor = numpy_helper.from_array(values.astype(np.float16), name)
        constants.append(tensor)
    nodes = [*casts, *half.graph.node]
    del half.graph.initializer[:], half.graph.node[:]
    half.graph.initializer.extend(constants)
    half.graph.node.extend(nodes)
    return half


def quantized(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """Return the model with weights and activations of 8 bits, and a factor for each channel of a kernel.

    Weights have 7 bits: on CPUs without VNNI sums of products of 8 bits would overflow.

    Args:
        model: in float32.
        images: u8[N, 48, 48], of the training set; the activations of a sample give their ranges.
    """
    from onnxruntime import quantization  # heavy

    chosen = np.random.default_rng(0).permutation(len(images))[:CALIBRATION_IMAGES]
    batches = iter([{INPUT: images[part]} for part in np.array_split(chosen, max(1, len(chosen) // 16))])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    named = onnx.ModelProto()
    named.CopyFrom(model)  # the function below changes it
    for node in named.graph.node:
        node.name = node.output[0]
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it recommends a preparation that this graph does not need
    try:
        with tempfile.TemporaryDirectory() as folder:
            quantization.quantize_static(
                named,
                Path(folder, "int8.onnx"),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
            )
            small = onnx.load(Path(folder, "int8.onnx"))
    finally:
        logging.root.setLevel(level)
    helper.set_model_props(small, {entry.key: entry.value for entry in model.metadata_props})
    return small


def accuracies(model: onnx.ModelProto, valid: Split, log_probs: np.ndarray) -> tuple[float, float]:
    """Return the accuracy on validation of a network in float32 and of the model, by protocol majority.

    Args:
        model: computed by onnxruntime.
        valid: the validation split.
        log_probs: float[N, 8], of the network in float32.
    """
    exact, rounded = (
        metrics_lib.select(values, valid.votes, "majority")[0]
        for values in (log_probs, onnx_network.of_bytes(model.SerializeToString()).log_probabilities(valid.images))
    )
    first, second = (float((p.log_probabilities.argmax(axis=1) == p.label).mean()) for p in (exact, rounded))
    return first, second


def comparison(float32: float, int8: float) -> str:
    """Return the accuracies as a line, with a warning if int8 loses more than half a point."""
    text = f"accuracy on validation {int8:.1%}, in float32 {float32:.1%}"
    return f"{text}: MORE THAN HALF A POINT LOST" if float32 - int8 > LOSS else text
