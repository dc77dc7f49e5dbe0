"""Operations that join the operator before them: normalisation a convolution, two maxima a pooling, a division a sum.

The operator before stays in the graph only if something else needs it.
"""

from itertools import product
from typing import Any

import numpy as np
from onnx import helper

from fer_jax.deploy.onnx_graph import Graph, Tensor, Windows

LINEAR = {"Conv": (1, 0), "MatMul": (-1, -1), "Gemm": (-1, -1)}  # axis of the channels in output and kernel


def multiply(graph: Graph, x: Tensor, factor: Tensor) -> str | None:
    """Multiply the kernel and bias before `x`; return None if that is not possible."""
    if (linear := _linear(graph, x, factor)) is None:
        return None
    operator, kernel, bias, attributes = linear
    rank = 4 if operator == "Conv" else 2
    sizes = [1] * rank
    sizes[LINEAR[operator][1]] = _channels(factor)
    inputs = [graph.node("Mul", kernel, graph.reshaped(factor.name, sizes))]
    if bias:
        inputs.append(graph.node("Mul", bias, graph.reshaped(factor.name, [_channels(factor)])))
    return graph.node(operator, graph.nodes[x.name].input[0], *inputs, **attributes)


def add(graph: Graph, x: Tensor, summand: Tensor, sign: str = "Add") -> str | None:
    """Add to the bias before `x`, or subtract by `sign` "Sub"; return None if that is not possible."""
    linear = _linear(graph, x, summand)
    if linear is None or _channels(summand) != x.dims[LINEAR[linear[0]][0]]:
        return None
    operator, kernel, bias, attributes = linear
    vector = graph.reshaped(summand.name, [_channels(summand)])
    if bias:
        vector = graph.node(sign, bias, vector)
    elif sign == "Sub":
        vector = graph.node("Neg", vector)
    operator = "Gemm" if operator == "MatMul" else operator
    return graph.node(operator, graph.nodes[x.name].input[0], kernel, vector, **attributes)


def _linear(graph: Graph, x: Tensor, constant: Tensor) -> tuple[str, str, str, dict[str, Any]] | None:
    """Operator, kernel, bias and attributes of the node before `x`, if the constant has one number for each channel."""
    node = graph.producer(x, *LINEAR)
    if node is None or constant.name not in graph.fixed or node.input[1] not in graph.fixed:
        return None
    channel = LINEAR[node.op_type][0]
    others = [*constant.dims]
    if others:
        del others[channel]
    if any(size != 1 for size in others) or (node.op_type == "MatMul" and len(x.dims) != 2):
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return node.op_type, node.input[1], node.input[2] if len(node.input) > 2 else "", attributes


def _channels(constant: Tensor) -> int:
    return int(np.prod(constant.dims))


def maximum(graph: Graph, a: Tensor, b: Tensor) -> str:
    """Return the maximum of two tensors: of slices of one tensor that make up whole windows, a pooling of it."""
    first, second = graph.windows.get(a.name), graph.windows.get(b.name)
    if first is None or second is None or first._replace(starts=second.starts) != second:
        return graph.node("Max", a.name, b.name)
    both = first._replace(starts=first.starts | second.starts)
    name = _pooling(graph, both) or graph.node("Max", a.name, b.name)
    graph.windows[name] = both
    return name


def _pooling(graph: Graph, windows: Windows) -> str | None:
    source, starts, steps, dims = windows
    sizes = [max(start[axis] for start in starts) + 1 for axis in range(len(dims))]
    complete = starts == {*product(*map(range, sizes))} and len(dims) == 4 and sizes[:2] == [1, 1]
    fits = all(
        (length - size) // step + 1 == count
        for length, size, step, count in zip(source.dims, sizes, steps, dims, strict=True)
    )
    if not (complete and fits):
        return None
    kernel, name = sizes[2:], source.name
    pooling = graph.producer(source, "MaxPool")
    if pooling is not None and steps == (1, 1, 1, 1):
        values = {attribute.name: [*attribute.ints] for attribute in pooling.attribute}
        if values["strides"] == [1, 1]:  # one pooling of the larger window
            kernel = [a + b - 1 for a, b in zip(kernel, values["kernel_shape"], strict=True)]
            name = pooling.input[0]
    return graph.node("MaxPool", name, kernel_shape=kernel, strides=[*steps[2:]])


def divide(graph: Graph, x: Tensor, divisor: np.ndarray) -> str | None:
    """Return the mean in place of a sum that is divided by the number of its terms; otherwise None."""
    node = graph.producer(x, "ReduceSum")
    if node is None or divisor.size != 1 or graph.terms[x.name] != divisor.item():
        return None
    return graph.node("ReduceMean", *node.input, keepdims=0)
