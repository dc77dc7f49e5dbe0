"""ONNX's operators for the primitives that the networks of `fer_jax.models` use to predict."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn
from onnx import TensorProto, helper

from fer_jax.core.errors import UserError
from fer_jax.deploy import onnx_fusion
from fer_jax.deploy.onnx_graph import MANY, Graph, Tensor, Value, Windows

Rule = Callable[..., Tensor]  # (graph, equation, *values) -> result
IMAGES = (0, 3, 1, 2)  # the order of axes in which ONNX's operators take images [N, H, W, C]


def no_rule(operation: str) -> UserError:
    """Return the error for an operation that ONNX has no operator for, or none is entered."""
    place = "fer_jax/deploy/onnx_rules.py"
    return UserError(f"the network cannot be exported: there is no rule for {operation} in {place}")


def _plain(name: str, dims: Sequence[int]) -> Tensor:
    return Tensor(name, tuple(map(int, dims)), tuple(range(len(dims))))


def _result_shape(equation: JaxprEqn) -> tuple[int, ...]:
    aval: Any = equation.outvars[0].aval
    return aval.shape


def _integers(values: Sequence[int]) -> np.ndarray:
    return np.array([*map(int, values)], np.int64)


def _in_jax_order(graph: Graph, x: Value) -> Tensor:
    return graph.arranged(x, range(len(x.shape)))


def _check_not_batch(dims: Sequence[int], axes: Sequence[int]) -> None:
    """Raise UserError where one of the axes is the batch's: the graph must hold for any number of images."""
    if any(dims[axis] % MANY == 0 for axis in axes):
        raise no_rule("an operation across the images of a batch")


def _elementwise(operator: str) -> Rule:
    def rule(graph: Graph, equation: JaxprEqn, *values: Value) -> Tensor:
        largest = max((value for value in values if isinstance(value, Tensor)), key=lambda value: np.prod(value.dims))
        tensors = [graph.arranged(value, largest.order) for value in values]
        dims = np.broadcast_shapes(*(tensor.dims for tensor in tensors))
        name = _fused(graph, operator, values, tensors) or graph.node(operator, *(tensor.name for tensor in tensors))
        return Tensor(name, tuple(map(int, dims)), largest.order)

    return rule


def _fused(graph: Graph, operator: str, values: Sequence[Value], tensors: Sequence[Tensor]) -> str | None:
    """The result of an operation that is fused with an earlier one; None if it is not."""
    if operator == "Max":
        for value, tensor in zip(values, tensors[::-1], strict=True):
            if not isinstance(value, Tensor) and value.ndim == 0 and value == 0:
                return graph.node("Relu", tensor.name)
        return onnx_fusion.maximum(graph, tensors[0], tensors[1])
    if operator == "Div" and not isinstance(values[1], Tensor):
        return onnx_fusion.divide(graph, tensors[0], values[1])
    if operator in ("Add", "Mul"):
        fuse = onnx_fusion.add if operator == "Add" else onnx_fusion.multiply
        return fuse(graph, tensors[0], tensors[1]) or fuse(graph, tensors[1], tensors[0])
    return onnx_fusion.add(graph, tensors[0], tensors[1], "Sub") if operator == "Sub" else None


def _cast(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
    return x._replace(name=graph.node("Cast", x.name, to=dtype))


def _select(graph: Graph, equation: JaxprEqn, condition: Tensor, if_false: Value, if_true: Value) -> Tensor:
    tensors = [graph.arranged(value, condition.order) for value in (condition, if_true, if_false)]
    dims = np.broadcast_shapes(*(tensor.dims for tensor in tensors))
    return Tensor(graph.node("Where", *(tensor.name for tensor in tensors)), dims, condition.order)


def _transpose(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    moves = equation.params["permutation"]
    return x._replace(order=tuple(moves.index(axis) for axis in x.order))


def _reshape(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    dims = _result_shape(equation)
    return _plain(graph.reshaped(_in_jax_order(graph, x).name, dims), dims)


def _broadcast(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    """The broadcast value; along the batch axis its size stays one, and later operations broadcast it as numpy does."""
    axes, shape = equation.params["broadcast_dimensions"], equation.params["shape"]
    if any(size % MANY == 0 for size in x.shape) and not isinstance(x, Tensor):
        raise no_rule("a constant for each image of a batch")
    sizes = [1] * len(shape)
    for axis, size in zip(axes, x.shape, strict=True):
        sizes[axis] = size
    target = [size if size % MANY else 1 for size in shape]
    if not isinstance(x, Tensor):
        return np.broadcast_to(x.reshape(sizes), target)
    name = graph.reshaped(_in_jax_order(graph, x).name, sizes)
    if any(size not in (1, old) for size, old in zip(target, sizes, strict=True)):
        name, sizes = graph.node("Expand", name, _integers(target)), [*np.broadcast_shapes(sizes, target)]
    return _plain(name, sizes)


def _convolution(graph: Graph, equation: JaxprEqn, x: Value, kernel: Value) -> Tensor:
    params = equation.params
    if any(step != 1 for step in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise no_rule("transposed convolutions")
    low, high = zip(*params["padding"], strict=True)
    if min(*low, *high) < 0:
        raise no_rule("convolutions with negative padding")
    axes = params["dimension_numbers"]
    inputs = [graph.arranged(x, axes.lhs_spec), graph.arranged(kernel, axes.rhs_spec)]
    options = {"strides": params["window_strides"], "dilations": params["rhs_dilation"], "pads": (*low, *high)}
    group = params["feature_group_count"]
    name = graph.node("Conv", *(tensor.name for tensor in inputs), **options, group=group)
    shape = _result_shape(equation)
    return Tensor(name, tuple(shape[axis] for axis in axes.out_spec), tuple(axes.out_spec))


def _product(graph: Graph, equation: JaxprEqn, a: Value, b: Value) -> Tensor:
    (a_axes, b_axes), batch = equation.params["dimension_numbers"]
    if batch != ((), ()) or a_axes != (len(a.shape) - 1,) or b_axes != (0,) or len(b.shape) != 2:
        raise no_rule("a product other than of rows and a matrix")
    name = graph.node("MatMul", _in_jax_order(graph, a).name, _in_jax_order(graph, b).name)
    return _plain(name, _result_shape(equation))


def _slice(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    params, shape = equation.params, x.shape
    strides = params["strides"] or (1,) * len(shape)
    starts, ends, steps = (
        [values[axis] for axis in x.order] for values in (params["start_indices"], params["limit_indices"], strides)
    )
    axes = [k for k, size in enumerate(x.dims) if (starts[k], ends[k], steps[k]) != (0, size, 1)]
    if not axes:
        return x
    _check_not_batch(x.dims, axes)
    first, last, stride = (_integers([values[k] for k in axes]) for values in (starts, ends, steps))
    dims = tuple(-(-(end - start) // step) for start, end, step in zip(starts, ends, steps, strict=True))
    name = graph.node("Slice", x.name, first, last, _integers(axes), stride)
    graph.windows[name] = Windows(x, frozenset({tuple(starts)}), tuple(steps), dims)
    return Tensor(name, dims, x.order)


def _reversed(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    axes = [x.order.index(axis) for axis in equation.params["dimensions"]]
    _check_not_batch(x.dims, axes)
    ends, backwards = _integers([-x.dims[axis] - 1 for axis in axes]), _integers([-1] * len(axes))
    return x._replace(name=graph.node("Slice", x.name, backwards, ends, _integers(axes), backwards))


def _pad(graph: Graph, equation: JaxprEqn, x: Tensor, value: np.ndarray) -> Tensor:
    low, high, inner = zip(*(equation.params["padding_config"][axis] for axis in x.order), strict=True)
    if any(inner) or min(*low, *high) < 0:
        raise no_rule("negative or inner padding")
    _check_not_batch(x.dims, [axis for axis in range(len(low)) if low[axis] or high[axis]])
    name = graph.node("Pad", x.name, _integers([*low, *high]), value)
    return Tensor(name, tuple(int(sum(sizes)) for sizes in zip(low, x.dims, high, strict=True)), x.order)


def _reduction(operator: str) -> Rule:
    def rule(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
        reduced = equation.params["axes"]
        axes = sorted(x.order.index(axis) for axis in reduced)
        _check_not_batch(x.dims, axes)
        name = graph.node(operator, x.name, _integers(axes), keepdims=0)
        graph.terms[name] = int(np.prod([x.dims[axis] for axis in axes]))
        left = sorted(set(x.order) - set(reduced))
        kept = [k for k in range(len(x.dims)) if k not in axes]
        return Tensor(name, tuple(x.dims[k] for k in kept), tuple(left.index(x.order[k]) for k in kept))

    return rule


def _concatenate(graph: Graph, equation: JaxprEqn, *parts: Value) -> Tensor:
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) < len(parts):
        raise no_rule("a concatenation with constants")
    order = tensors[0].order
    axis = order.index(equation.params["dimension"])
    shape = _result_shape(equation)
    dims = tuple(shape[logical] for logical in order)
    _check_not_batch(dims, [axis])
    return Tensor(graph.node("Concat", *(graph.arranged(x, order).name for x in tensors), axis=axis), dims, order)


def _gather(graph: Graph, equation: JaxprEqn, x: Tensor, index: Tensor) -> Tensor:
    """The values at an index along the last axis, for each image: `jnp.take_along_axis` of [N, K]."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    found = (numbers.collapsed_slice_dims, numbers.start_index_map, numbers.operand_batching_dims, sizes)
    if found != ((1,), (1,), (0,), (1, 1)) or len(index.shape) != 3:
        raise no_rule("gather, except from the last of two axes")
    rows = graph.node("Cast", _in_jax_order(graph, index).name, to=TensorProto.INT64)
    # Not GatherElements: onnx's reference implementation is wrong for more than 64 values.
    return _plain(graph.node("GatherND", _in_jax_order(graph, x).name, rows, batch_dims=1), index.shape[:2])


def blur(graph: Graph, x: Tensor) -> Tensor:
    """Return `pooling._blur` of images [N, H, W, C] as one depthwise convolution."""
    x = graph.arranged(x, IMAGES)
    channels = x.dims[1]
    padded = graph.node("Pad", x.name, _integers([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")
    line = np.array([1, 2, 1], np.float32) / 4
    kernel = np.tile(np.outer(line, line), (channels, 1, 1, 1))
    name = graph.node("Conv", padded, kernel, strides=[2, 2], group=channels)
    return Tensor(name, (*x.dims[:2], (x.dims[2] + 1) // 2, (x.dims[3] + 1) // 2), IMAGES)


RULES: Mapping[str, Callable[..., Value]] = {
    **{name: _elementwise(name.capitalize()) for name in ("add", "sub", "mul", "div", "max", "min")},
    **{name: _elementwise(name.capitalize()) for name in ("neg", "exp", "log", "sqrt", "tanh")},
    "gt": _elementwise("Greater"),
    "le": _elementwise("LessOrEqual"),
    "logistic": _elementwise("Sigmoid"),
    "square": lambda graph, _, x: x._replace(name=graph.node("Mul", x.name, x.name)),
    "rsqrt": lambda graph, _, x: x._replace(name=graph.node("Reciprocal", graph.node("Sqrt", x.name))),
    "stop_gradient": lambda graph, _, x: x,
    "optimization_barrier": lambda graph, _, x: x,
    "convert_element_type": _cast,
    "select_n": _select,
    "reshape": _reshape,
    "squeeze": _reshape,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "slice": _slice,
    "rev": _reversed,
    "pad": _pad,
    "gather": _gather,
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "dot_general": _product,
    "conv_general_dilated": _convolution,
}
