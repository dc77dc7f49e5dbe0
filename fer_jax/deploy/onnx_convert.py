"""The translation of a JAX function to an ONNX graph: its jaxpr, equation by equation.

`onnx_rules.RULES` has a row for each primitive. Where a function has a variant for each platform, the default variant
is exported (XLA's convolution, not Winograd's).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from onnx import helper

from fer_jax.core.errors import UserError, one_line
from fer_jax.deploy import onnx_rules
from fer_jax.deploy.onnx_graph import BATCH, MANY, Graph, Tensor, Value
from fer_jax.deploy.onnx_rules import RULES, no_rule

# Primitives that call another function, with the parameter that holds it.
INNER = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
# Functions of `models.pooling` with a rule of their own, by name: their primitives would be many slices.
FUNCTIONS: Mapping[str, Callable[..., Value]] = {"_blur": onnx_rules.blur}


def convert(
    function: Callable[..., jax.Array],
    weights: Mapping[str, np.ndarray],
    image: jax.ShapeDtypeStruct,
    names: tuple[str, str],
    softmax: bool = False,
    fold: bool = True,
) -> onnx.ModelProto:
    """Return the ONNX model of a function of a batch of images.

    Args:
        function: (weights, images [N, ...]) -> [N, ...].
        weights: arrays by name, float32 or float16; the function gets them in float32.
        image: the shape, without N, and the dtype of an image.
        names: the names of input and output.
        softmax: the output is the softmax of the function.
        fold: see `Graph.model`.

    Raises:
        UserError: the function has a primitive without a rule.
    """
    shapes = {name: jax.ShapeDtypeStruct(array.shape, np.float32) for name, array in weights.items()}
    traced = jax.make_jaxpr(function)(shapes, jax.ShapeDtypeStruct((MANY, *image.shape), image.dtype))
    graph = Graph()
    tensors = [graph.weight(name, weights[name]) for name in jax.tree.leaves({name: name for name in weights})]
    pixels = Tensor(names[0], (MANY, *image.shape), tuple(range(len(image.shape) + 1)))
    (result,) = _inline(graph, traced, [*tensors, pixels])
    if not isinstance(result, Tensor) or result.name in graph.fixed:
        raise no_rule("a result that does not depend on the image")
    name = graph.arranged(result, range(len(result.dims))).name
    name = graph.node("Softmax", name, axis=-1) if softmax else graph.node("Identity", name)
    graph.nodes[name].output[0] = names[1]
    graph.nodes[names[1]] = graph.nodes.pop(name)
    inputs, outputs = (
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [BATCH, *shape[1:]])]
        for name, dtype, shape in (
            (names[0], image.dtype, pixels.dims),
            (names[1], traced.out_avals[0].dtype, result.shape),
        )
    )
    model = graph.model(inputs, outputs, fold)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"the network cannot be exported: {one_line(error)}") from None
    return model


def _inline(graph: Graph, function: ClosedJaxpr | Jaxpr, arguments: Sequence[Value]) -> list[Value]:
    """Add the equations of a jaxpr and return its results."""
    jaxpr, constants = function, []
    if isinstance(function, ClosedJaxpr):
        jaxpr, constants = function.jaxpr, function.consts
    values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Value:
        return np.asarray(variable.val) if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        results = _apply(graph, equation, [read(variable) for variable in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _apply(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    primitive, params = equation.primitive.name, equation.params
    if primitive in INNER:
        inner = params[INNER[primitive]]
        name = inner.jaxpr.debug_info.func_name if primitive == "custom_vjp_call" else ""
        return [FUNCTIONS[name](graph, *inputs)] if name in FUNCTIONS else _inline(graph, inner, inputs)
    if primitive == "platform_index":
        return [np.array(params["platforms"].index(None))]
    if primitive == "cond" and not isinstance(inputs[0], Tensor):
        return _inline(graph, params["branches"][int(inputs[0])], inputs[1:])
    constant = not any(isinstance(value, Tensor) for value in inputs)
    if constant and primitive != "broadcast_in_dim":  # its shape may contain the batch size
        try:
            computed = equation.primitive.bind(*inputs, **params)
        except (TypeError, ValueError):  # the batch size is part of it
            raise no_rule(primitive) from None
        return [*map(np.asarray, computed if equation.primitive.multiple_results else [computed])]
    if primitive not in RULES:
        raise no_rule(primitive)
    for value in inputs:
        if not isinstance(value, Tensor) and value.size == 1 and value.item() in (MANY, 1 / MANY, np.float32(1 / MANY)):
            raise no_rule("the batch size as a value")
    return [RULES[primitive](graph, equation, *inputs)]
