"""The conversion of an ONNX graph to the file that the page's interpreter reads (source/network.js).

The file has a header's length (u32), the header (JSON: operations in order, weights, outputs), and the weights. Large
weights have half precision. Maps have the axes batch, row, column, channel, as in TensorFlow.js; ONNX has the channel
second.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

HALF = 4096  # weights from which a tensor has half precision

Attributes = Mapping[str, Any]


class _Page:
    """The operations and weights of a network for the page."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.sources: dict[str, str] = {}  # of tensors that the page does not compute: they equal another one
        self.sizes: dict[str, list[int]] = {}  # of reshaped tensors
        self.operations: list[dict[str, Any]] = []
        self.weights: list[dict[str, Any]] = []
        self.data = b""

    def add(self, name: str, node: onnx.NodeProto, inputs: Sequence[str], **values: Any) -> None:
        sources = [self.sources.get(tensor, tensor) for tensor in inputs]
        self.operations.append({"name": name, "inputs": sources, "output": node.output[0], **values})

    def skip(self, node: onnx.NodeProto) -> None:
        self.sources[node.output[0]] = self.sources.get(node.input[0], node.input[0])

    def store(self, array: np.ndarray) -> int:
        """Return the number of some weights in the file."""
        half = array.size >= HALF
        self.weights.append({"start": len(self.data), "count": array.size, "half": half})
        self.data += array.astype("<f2" if half else "<f4").tobytes()
        self.data += bytes(-len(self.data) % 4)
        return len(self.weights) - 1


def convert(model: onnx.ModelProto, facts: Mapping[str, Any]) -> bytes:
    """Return a network as a file for the page.

    Args:
        model: a graph with one input of shape [batch, channel, row, column].
        facts: what the page shows about the network.

    Raises:
        ValueError: the graph has an operation without a rule in `RULES`, or one with unknown attributes.
    """
    page = _Page(model)
    for node in model.graph.node:
        if node.op_type not in RULES:
            raise ValueError(f"the operation {node.op_type} has no rule")
        RULES[node.op_type](page, node, {item.name: helper.get_attribute_value(item) for item in node.attribute})
    outputs = [output.name for output in model.graph.output]
    header = {
        "operations": _with_relu_in_convolutions(page.operations, outputs),
        "weights": page.weights,
        "outputs": outputs,
        "facts": facts,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + page.data


def _with_relu_in_convolutions(operations: Sequence[dict[str, Any]], outputs: Sequence[str]) -> list[dict[str, Any]]:
    """The operations, where a convolution that is read by a relu alone does it itself."""
    result: list[dict[str, Any]] = []
    for operation in operations:
        if operation["name"] == "relu":
            (source,) = operation["inputs"]
            readers = sum(source in other["inputs"] for other in operations) + (source in outputs)
            writer = next((other for other in result if other["output"] == source), {"name": "input"})
            if writer["name"] == "conv" and readers == 1:
                writer |= {"output": operation["output"], "relu": True}
                continue
            raise ValueError("a relu that does not follow a convolution has no rule")
        result.append(operation)
    return result


def _spatial(attributes: Attributes) -> dict[str, Any]:
    """Kernel, stride and padding (top, right, bottom, left) of a convolution or a pooling."""
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or {*attributes.get("dilations", (1,))} != {1}:
        raise ValueError("automatic padding and dilation have no rule")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    stride = attributes.get("strides", (1, 1))
    return {"kernel": list(attributes["kernel_shape"]), "stride": list(stride), "pad": [top, right, bottom, left]}


def _convolution(page: _Page, node: onnx.NodeProto, attributes: Attributes) -> None:
    kernel = page.constants[node.input[1]]
    bias = page.constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(kernel), np.float32)
    groups = attributes.get("group", 1)
    depthwise = groups > 1
    if (depthwise and not groups == len(kernel)) or (depthwise and kernel.shape[1] != 1):
        raise ValueError("a convolution of groups of several channels has no rule")
    page.add(
        "conv",
        node,
        [node.input[0]],
        filter=page.store(kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)),
        bias=page.store(bias),
        channels=[groups if depthwise else kernel.shape[1], len(kernel)],
        depthwise=depthwise,
        **_spatial({"kernel_shape": kernel.shape[2:], **attributes}),
    )


def _enlargement(page: _Page, node: onnx.NodeProto, attributes: Attributes) -> None:
    factors = page.constants[node.input[2]].tolist()
    modes = [attributes.get(key) for key in ("mode", "coordinate_transformation_mode", "nearest_mode")]
    if factors != [1, 1, factors[3], factors[3]] or modes != [b"nearest", b"asymmetric", b"floor"]:
        raise ValueError("a resizing other than the repetition of pixels has no rule")
    page.add("enlarge", node, [node.input[0]], factor=int(factors[3]))


def _concatenation(page: _Page, node: onnx.NodeProto, attributes: Attributes) -> None:
    if attributes["axis"] != 1:
        raise ValueError("a concatenation along another axis than the channels has no rule")
    page.add("concatenate", node, node.input)


def _scaling(sign: Callable[[float], tuple[float, float]]) -> Callable[[_Page, onnx.NodeProto, Attributes], None]:
    """The rule for an operation with one number; `sign` gives factor and summand."""

    def scale(page: _Page, node: onnx.NodeProto, _: Attributes) -> None:
        factor, summand = sign(page.constants[node.input[1]].item())
        page.add("scale", node, [node.input[0]], factor=factor, summand=summand)

    return scale


def _sum(page: _Page, node: onnx.NodeProto, attributes: Attributes) -> None:
    if node.input[1] in page.constants:
        _scaling(lambda number: (1, number))(page, node, attributes)
    else:
        page.add("add", node, node.input)


def _border(page: _Page, node: onnx.NodeProto, attributes: Attributes) -> None:
    if attributes["mode"] != b"reflect" or page.constants[node.input[1]].tolist() != [0, 0, 1, 1] * 2:
        raise ValueError("a border other than of one mirrored pixel has no rule")
    page.add("mirror", node, [node.input[0]])


def _channels(page: _Page, node: onnx.NodeProto, _: Attributes) -> None:
    first, last, axes, steps = (page.constants[name].tolist() for name in node.input[1:])
    if axes != [1] or steps != [1] or first[0] < 0:
        raise ValueError("a slice other than of channels in a row has no rule")
    page.add("channels", node, [node.input[0]], first=first[0], last=last[0])


def _mean(page: _Page, node: onnx.NodeProto, attributes: Attributes) -> None:
    if page.constants[node.input[1]].tolist() != [2, 3]:
        raise ValueError("a mean other than over rows and columns has no rule")
    page.add("mean", node, [node.input[0]])


def _product(page: _Page, node: onnx.NodeProto, attributes: Attributes) -> None:
    """A dense layer is a convolution of one pixel."""
    matrix = page.constants[node.input[1]]
    if attributes.get("transB", 0):
        matrix = matrix.T
    bias = page.constants[node.input[2]] if len(node.input) > 2 else np.zeros(matrix.shape[1], np.float32)
    numbers = {"filter": page.store(matrix), "bias": page.store(bias), "channels": list(matrix.shape)}
    one_pixel = {"kernel": [1, 1], "stride": [1, 1], "pad": [0, 0, 0, 0], "depthwise": False}
    page.add("conv", node, [node.input[0]], **numbers, **one_pixel)


def _view(page: _Page, node: onnx.NodeProto, _: Attributes) -> None:
    """Pixels, their blocks, or the channels of a block: the numbers stay in their order."""
    page.sizes[node.output[0]] = page.constants[node.input[1]].tolist()
    page.skip(node)


def _transposition(page: _Page, node: onnx.NodeProto, attributes: Attributes) -> None:
    if attributes["perm"] == [0, 3, 1, 2]:  # the channels become the second axis, which they are not on the page
        page.skip(node)
        return
    _, _, block, _, across, _ = page.sizes.get(node.input[0], [0] * 6)
    if attributes["perm"] != [0, 1, 3, 2, 4, 5] or not block == across > 0:
        raise ValueError("a transposition other than of blocks of pixels has no rule")
    page.add("fold", node, [node.input[0]], block=block)


RULES: Mapping[str, Callable[[_Page, onnx.NodeProto, Attributes], None]] = {
    "Conv": _convolution,
    "Relu": lambda page, node, _: page.add("relu", node, node.input),
    "MaxPool": lambda page, node, attributes: page.add("maximum", node, node.input, **_spatial(attributes)),
    "Add": _sum,
    "Sub": _scaling(lambda number: (1, -number)),
    "Mul": _scaling(lambda number: (number, 0)),
    "Div": _scaling(lambda number: (1 / number, 0)),
    "Resize": _enlargement,
    "Concat": _concatenation,
    "Pad": _border,
    "Slice": _channels,
    "ReduceMean": _mean,
    "Gemm": _product,
    "MatMul": _product,
    "Softmax": lambda page, node, _: page.add("softmax", node, node.input),
    "Cast": lambda page, node, _: page.skip(node),  # the page computes with floats
    "Reshape": _view,
    "Transpose": _transposition,
}
