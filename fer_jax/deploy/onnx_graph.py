"""An ONNX graph under construction: its nodes, its constants, and the order of axes in which tensors are stored.

JAX's arrays are [N, H, W, C]; ONNX's operators take [N, C, H, W]. A transposition only changes the order that is noted
with a tensor. A Transpose node is added where an operator needs another order than the tensor has.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OPSET, IR_VERSION = 18, 8  # of 2022, so that older runtimes read the file too
BATCH = "batch"
# The batch size of the trace: a prime that no other axis has, so that a size divisible by it is the batch's.
# (jax.export has symbolic sizes, but with them jax.numpy indexes by gather instead of slice.)
MANY = 7919


class Tensor(NamedTuple):
    """A tensor of the graph."""

    name: str
    dims: tuple[int, ...]  # as stored; the batch's is a multiple of MANY, or 1 where ONNX broadcasts
    order: tuple[int, ...]  # axis k of the stored tensor is axis order[k] of JAX's array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of JAX's array."""
        return tuple(self.dims[axis] for axis in np.argsort(self.order))


Value = np.ndarray | Tensor  # a constant of the program, or a tensor of the graph


class Windows(NamedTuple):
    """Slices of a tensor with the same steps, or their maximum: a slice for each start."""

    source: Tensor
    starts: frozenset[tuple[int, ...]]
    steps: tuple[int, ...]
    dims: tuple[int, ...]


class Graph:
    """The nodes and constants of a graph; equal ones are kept once."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeProto] = {}  # by output, in the order of computation
        self.arrays: dict[str, np.ndarray] = {}  # constants and weights by name
        self.fixed: set[str] = set()  # tensors that do not depend on the image
        self.windows: dict[str, Windows] = {}  # of slices and their maxima
        self.terms: dict[str, int] = {}  # of sums: the number of terms
        self._names: dict[Any, str] = {}

    def weight(self, name: str, array: np.ndarray) -> Tensor:
        """Add an array of the network in float32 or float16, and return it as a tensor in float32."""
        self.arrays[name] = array
        self.fixed.add(name)
        if array.dtype == np.float16:
            name = self.node("Cast", name, to=onnx.TensorProto.FLOAT)
        return Tensor(name, array.shape, tuple(range(array.ndim)))

    def constant(self, array: np.ndarray) -> str:
        """Return the name of a constant."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = f"constant{len(self._names)}"
            self.arrays[self._names[key]] = array
            self.fixed.add(self._names[key])
        return self._names[key]

    def node(self, operator: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        key = (operator, *names, str(sorted(attributes.items())))
        if key not in self._names:
            output = self._names[key] = f"{operator.lower()}{len(self._names)}"
            self.nodes[output] = helper.make_node(operator, names, [output], **attributes)
            if self.fixed.issuperset(names):
                self.fixed.add(output)
        return self._names[key]

    def producer(self, tensor: Tensor, *operators: str) -> NodeProto | None:
        """Return the node that computes a tensor, if it is one of these operators."""
        node = self.nodes.get(tensor.name)
        return node if node is not None and node.op_type in operators else None

    def arranged(self, value: Value, order: Sequence[int]) -> Tensor:
        """Return the value as a tensor that is stored in an order of axes; a scalar has none."""
        if not isinstance(value, Tensor):
            array = value.transpose(order) if value.ndim else value
            return Tensor(self.constant(np.ascontiguousarray(array)), array.shape, tuple(order) if value.ndim else ())
        order = tuple(order)
        if not value.dims or value.order == order:
            return value
        moves = [value.order.index(axis) for axis in order]
        dims = tuple(value.dims[axis] for axis in moves)
        if (long := [axis for axis in moves if value.dims[axis] != 1]) == sorted(long):
            return Tensor(self.reshaped(value.name, dims), dims, order)
        return Tensor(self.node("Transpose", value.name, perm=moves), dims, order)

    def reshaped(self, name: str, dims: Sequence[int]) -> str:
        """Reshape a stored tensor; one of the sizes may be the batch's."""
        if name in self.nodes and self.nodes[name].op_type == "Reshape":
            name = self.nodes[name].input[0]
        sizes = [size if size % MANY else -1 for size in dims]
        return self.node("Reshape", name, np.array(sizes, np.int64))

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto], fold: bool = True
    ) -> onnx.ModelProto:
        """Return the model of the nodes that the outputs need.

        Args:
            inputs: the inputs.
            outputs: the outputs.
            fold: compute what does not depend on the inputs; otherwise runtimes do, when they read the file.
        """
        nodes = self._needed([value.name for value in outputs])
        arrays = self.arrays
        if fold:
            arrays = self._folded(nodes)
            nodes = [node for node in nodes if node.output[0] not in self.fixed]
        used = {name for node in nodes for name in node.input}
        constants = [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used]
        graph = helper.make_graph(nodes, "fer_jax", inputs, outputs, constants)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, producer_name="fer_jax", opset_imports=[opset], ir_version=IR_VERSION)

    def _needed(self, outputs: Sequence[str]) -> list[NodeProto]:
        needed = set(outputs)
        for name, node in reversed(self.nodes.items()):
            if name in needed:
                needed.update(node.input)
        return [node for name, node in self.nodes.items() if name in needed]

    def _folded(self, nodes: Sequence[NodeProto]) -> dict[str, np.ndarray]:
        """The constants of these nodes, those included that other constants give."""
        fixed = [node for node in nodes if node.output[0] in self.fixed]
        used = {name for node in nodes if node.output[0] not in self.fixed for name in node.input}
        results = [node.output[0] for node in fixed if node.output[0] in used]
        if not results:
            return self.arrays
        outputs = [helper.make_empty_tensor_value_info(name) for name in results]
        constants = [numpy_helper.from_array(array, name) for name, array in self.arrays.items()]
        graph = helper.make_graph(fixed, "constants", [], outputs, constants)
        opset = helper.make_opsetid("", OPSET)
        values = ReferenceEvaluator(helper.make_model(graph, opset_imports=[opset])).run(None, {})
        return {**self.arrays, **dict(zip(results, map(np.asarray, values), strict=True))}
