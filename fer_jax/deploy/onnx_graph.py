"""The translation of a JAX function to an ONNX graph: its jaxpr, equation by equation.

`RULES` has a row for each primitive that the networks of `fer_jax.models` use to predict. Operations on constants alone
are computed here, for example BatchNorm's factors. Where a function has a variant for each platform, the default
variant is exported (XLA's convolution, not Winograd's).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from onnx import TensorProto, helper, numpy_helper

from fer_jax.core.errors import UserError, one_line

OPSET, IR_VERSION = 18, 8  # of 2022, so that older runtimes read the file too
BATCH = "batch"
# The batch size of the trace: a prime that no other axis has, so that a size divisible by it is the batch's.
# (jax.export has symbolic sizes, but with them jax.numpy indexes by gather instead of slice.)
MANY = 7919

Value = np.ndarray | str  # a constant, or the name of a tensor


def convert(function: Callable[..., jax.Array], image: jax.ShapeDtypeStruct, names: tuple[str, str]) -> onnx.ModelProto:
    """Return the ONNX model of a function of a batch of images.

    Args:
        function: from one array [N, ...] to one array [N, ...].
        image: the shape, without N, and the dtype of an image.
        names: the names of input and output.

    Raises:
        UserError: the function has a primitive without a rule.
    """
    traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((MANY, *image.shape), image.dtype))
    graph = _Graph()
    (result,) = graph.inline(traced, [names[0]])
    if not isinstance(result, str):
        raise _no_rule("a result that does not depend on the image")
    graph.nodes.append(helper.make_node("Identity", [graph.name(result)], [names[1]]))
    inputs, outputs = (
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype)), [BATCH, *aval.shape[1:]]
            )
        ]
        for name, (aval,) in zip(names, (traced.in_avals, traced.out_avals), strict=True)
    )
    onnx_nodes = helper.make_graph(graph.nodes, "fer_jax", inputs, outputs, [*graph.constants.values()])
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(onnx_nodes, producer_name="fer_jax", opset_imports=[opset], ir_version=IR_VERSION)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"the network cannot be exported: {one_line(error)}") from None
    return model


class _Graph:
    """The nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[Any, ...], TensorProto] = {}

    def inline(self, function: ClosedJaxpr | Jaxpr, arguments: Sequence[Value]) -> list[Value]:
        """Add the equations of a jaxpr and return its results."""
        jaxpr, constants = function, []
        if isinstance(function, ClosedJaxpr):
            jaxpr, constants = function.jaxpr, function.consts
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Value:
            return np.asarray(variable.val) if isinstance(variable, Literal) else values[variable]

        for equation in jaxpr.eqns:
            results = self._apply(equation, [read(variable) for variable in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _apply(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        primitive, params = equation.primitive.name, equation.params
        if primitive in INNER:
            return self.inline(params[INNER[primitive]], inputs)
        if primitive == "platform_index":
            return [np.array(params["platforms"].index(None))]
        if primitive == "cond" and not isinstance(inputs[0], str):
            return self.inline(params["branches"][int(inputs[0])], inputs[1:])
        constant = not any(isinstance(value, str) for value in inputs)
        if constant and primitive != "broadcast_in_dim":  # its shape may contain the batch size
            try:
                computed = equation.primitive.bind(*inputs, **params)
            except (TypeError, ValueError):  # the batch size is part of it
                raise _no_rule(primitive) from None
            return [*map(np.asarray, computed if equation.primitive.multiple_results else [computed])]
        if primitive not in RULES:
            raise _no_rule(primitive)
        return [RULES[primitive](self, equation, *inputs)]

    def name(self, value: Value) -> str:
        """The name of a tensor; a constant is added to the graph first."""
        if isinstance(value, str):
            return value
        if value.size == 1 and value.item() in (MANY, 1 / MANY, np.float32(1 / MANY)):
            raise _no_rule("the batch size as a value")
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(value, f"constant{len(self.constants)}")
        return self.constants[key].name

    def node(self, operator: str, *inputs: Value, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        output = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [*map(self.name, inputs)], [output], **attributes))
        return output


def _no_rule(operation: str) -> UserError:
    place = "fer_jax/deploy/onnx_graph.py"
    return UserError(f"the network cannot be exported: there is no rule for {operation} in {place}")


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _check_not_batch(shape: Sequence[int], axes: Sequence[int]) -> None:
    """Raise UserError where one of the axes is the batch's: the graph must hold for any number of images."""
    if any(shape[axis] % MANY == 0 for axis in axes):
        raise _no_rule("an operation across the images of a batch")


def _integers(values: Sequence[int]) -> np.ndarray:
    return np.array([*map(int, values)], np.int64)


def _reshaped(graph: _Graph, x: Value, shape: Sequence[int]) -> Value:
    """The reshaped value; one of the sizes may be the batch's."""
    sizes = _integers([size if size % MANY else -1 for size in shape])
    return graph.node("Reshape", x, sizes) if isinstance(x, str) else x.reshape(sizes)


def _reshape(graph: _Graph, equation: JaxprEqn, x: Value) -> Value:
    return _reshaped(graph, x, _shape(equation.outvars[0]))


def _broadcast(graph: _Graph, equation: JaxprEqn, x: Value) -> Value:
    """The broadcast value; along the batch axis its size stays one, and later operations broadcast it as numpy does."""
    shape, axes = _shape(equation.invars[0]), equation.params["broadcast_dimensions"]
    sizes = [1] * len(equation.params["shape"])
    for axis, size in zip(axes, shape, strict=True):
        sizes[axis] = size
    x, target = _reshaped(graph, x, sizes), [size if size % MANY else 1 for size in equation.params["shape"]]
    if not isinstance(x, str):
        if any(size % MANY == 0 for size in x.shape):
            raise _no_rule("a constant for each image of a batch")
        return np.broadcast_to(x, target)
    expanded = any(size not in (1, old) for size, old in zip(target, sizes, strict=True))
    return graph.node("Expand", x, _integers(target)) if expanded else x


def _convolution(graph: _Graph, equation: JaxprEqn, x: Value, kernel: Value) -> Value:
    params = equation.params
    if any(step != 1 for step in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise _no_rule("transposed convolutions")
    order = params["dimension_numbers"]
    (low, high) = zip(*params["padding"], strict=True)
    if min(*low, *high) < 0:
        raise _no_rule("convolutions with negative padding")
    x = graph.node("Transpose", x, perm=order.lhs_spec)
    kernel = (
        graph.node("Transpose", kernel, perm=order.rhs_spec)
        if isinstance(kernel, str)
        else kernel.transpose(order.rhs_spec)
    )
    output = graph.node(
        "Conv",
        x,
        kernel,
        strides=params["window_strides"],
        pads=[*low, *high],
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    return graph.node("Transpose", output, perm=[*map(int, np.argsort(order.out_spec))])


def _product(graph: _Graph, equation: JaxprEqn, a: Value, b: Value) -> Value:
    (a_axes, b_axes), batch = equation.params["dimension_numbers"]
    ranks = [len(_shape(variable)) for variable in equation.invars]
    if batch != ((), ()) or a_axes != (ranks[0] - 1,) or b_axes != (0,) or ranks[1] != 2:
        raise _no_rule("a product other than of rows and a matrix")
    return graph.node("MatMul", a, b)


def _slice(graph: _Graph, equation: JaxprEqn, x: Value) -> Value:
    params, shape = equation.params, _shape(equation.invars[0])
    starts, ends = params["start_indices"], params["limit_indices"]
    steps = params["strides"] or (1,) * len(shape)
    axes = [i for i in range(len(shape)) if (starts[i], ends[i], steps[i]) != (0, shape[i], 1)]
    _check_not_batch(shape, axes)
    bounds = [_integers([values[i] for i in axes]) for values in (starts, ends)]
    return graph.node("Slice", x, *bounds, _integers(axes), _integers([steps[i] for i in axes])) if axes else x


def _reversed(graph: _Graph, equation: JaxprEqn, x: Value) -> Value:
    axes = equation.params["dimensions"]
    _check_not_batch(_shape(equation.invars[0]), axes)
    ends = _integers([-_shape(equation.invars[0])[axis] - 1 for axis in axes])
    return graph.node("Slice", x, _integers([-1] * len(axes)), ends, _integers(axes), _integers([-1] * len(axes)))


def _pad(graph: _Graph, equation: JaxprEqn, x: Value, value: Value) -> Value:
    low, high, inner = zip(*equation.params["padding_config"], strict=True)
    if any(inner) or min(*low, *high) < 0:
        raise _no_rule("negative or inner padding")
    _check_not_batch(_shape(equation.invars[0]), [i for i in range(len(low)) if low[i] or high[i]])
    return graph.node("Pad", x, _integers([*low, *high]), value)


def _reduction(operator: str) -> Callable[..., Value]:
    def reduce(graph: _Graph, equation: JaxprEqn, x: Value) -> Value:
        _check_not_batch(_shape(equation.invars[0]), equation.params["axes"])
        return graph.node(operator, x, _integers(equation.params["axes"]), keepdims=0)

    return reduce


def _concatenate(graph: _Graph, equation: JaxprEqn, *parts: Value) -> Value:
    axis = equation.params["dimension"]
    _check_not_batch(_shape(equation.outvars[0]), [axis])
    if not all(isinstance(part, str) for part in parts):
        raise _no_rule("a concatenation with constants")
    return graph.node("Concat", *parts, axis=axis)


def _same_inputs(operator: str) -> Callable[..., Value]:
    return lambda graph, equation, *inputs: graph.node(operator, *inputs)


def _cast(graph: _Graph, equation: JaxprEqn, x: Value) -> Value:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
    return graph.node("Cast", x, to=to)


RULES: Mapping[str, Callable[..., Value]] = {
    **{name: _same_inputs(name.capitalize()) for name in ("add", "sub", "mul", "div", "max", "min")},
    **{name: _same_inputs(name.capitalize()) for name in ("neg", "exp", "log", "sqrt", "tanh")},
    "logistic": _same_inputs("Sigmoid"),
    "square": lambda graph, _, x: graph.node("Mul", x, x),
    "rsqrt": lambda graph, _, x: graph.node("Reciprocal", graph.node("Sqrt", x)),
    "stop_gradient": lambda graph, _, x: x,
    "convert_element_type": _cast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "broadcast_in_dim": _broadcast,
    "transpose": lambda graph, equation, x: graph.node("Transpose", x, perm=equation.params["permutation"]),
    "concatenate": _concatenate,
    "slice": _slice,
    "rev": _reversed,
    "pad": _pad,
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "dot_general": _product,
    "conv_general_dilated": _convolution,
}
# Primitives that call another function, with the parameter that holds it.
INNER = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
