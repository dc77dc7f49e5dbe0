"""The networks by name: f32[B, S, S, 1] images to f32[B, 8] logits.

All networks compute in `dtype` (float32 or bfloat16). Weights, batch statistics and logits are always float32.

To add a network:

1. Write its module in this package. It takes `dropout` and `dtype` and is called with `(x, train)`; see
   `fer_jax.models.emotion_cnn`. If it has a field `width`, `depth`, `squeeze_excite`, `antialias`, `symmetric` or
   `stochastic_depth`, the config sets it; `symmetric` needs a `symmetric_multiple`, as in `ResNet`.
2. Enter it in `MODELS` and its number of weights in `PARAMETERS`.
3. Give it a test in tests/test_models.py and a config in configs/.

`init` draws variables by their names; a new kind of variable needs a rule there.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fer_jax.models.emotion_cnn import EmotionCNN
from fer_jax.models.resnet import ResNet
from fer_jax.models.vgg import VGG13

MODELS: dict[str, Callable[..., nn.Module]] = {
    "emotion_cnn": EmotionCNN,
    "vgg13": VGG13,
    "resnet_tiny": partial(ResNet, widths=(16, 32, 64, 128), blocks=(0, 1, 1, 0)),
    "resnet_small": partial(ResNet, widths=(32, 64, 128, 256), blocks=(0, 1, 1, 1)),
    "resnet14": partial(ResNet, widths=(16, 32, 64, 128, 256), blocks=(0, 1, 1, 1, 1), space_to_depth=False),
    "resnet9": partial(ResNet, widths=(64, 128, 256, 512), blocks=(0, 1, 0, 1), space_to_depth=False),
}

# The number of trained weights. For vgg13, whose first dense layer depends on the image size, at 64x64 pixels.
PARAMETERS = {
    "emotion_cnn": 4_879_656,
    "vgg13": 8_757_704,
    "resnet_tiny": 191_400,
    "resnet_small": 1_941_320,
    "resnet14": 1_963_512,
    "resnet9": 6_570_952,
}

CONSTANTS = {"bias": 0.0, "mean": 0.0, "scale": 1.0, "var": 1.0}  # the initial values of all variables except kernels
ABSENT = -50.0  # the bias of a class without training images; e^-50 is 2e-22


def create_model(
    name: str,
    dropout: float,
    dtype: str,
    *,
    width: float = 1.0,
    depth: int = 1,
    squeeze_excite: bool = False,
    antialias: bool = False,
    symmetric: bool = False,
    stochastic_depth: float = 0.0,
) -> nn.Module:
    """Return the module of a name; the arguments are the fields of `config.model`.

    Args:
        name: a key of `MODELS`.
        dropout: the dropout probability; the module decides where it applies.
        dtype: "float32" or "bfloat16", the type that layers compute in.
        width: as in `ResNet`, like the arguments after it.
        depth: see `width`.
        squeeze_excite: see `width`.
        antialias: see `width`.
        symmetric: see `width`.
        stochastic_depth: see `width`.

    Raises:
        KeyError: `name` is not in `MODELS`; `fer_jax.training.checks` rules that out.
        ValueError: the module does not take `dropout` and `dtype`, is not called with `(x, train)`, or lacks another
            field that differs from its default.
    """
    try:
        model = MODELS[name](dropout=dropout, dtype=jnp.dtype(dtype))
    except TypeError as error:
        raise ValueError(
            f"model.name={name}: the module must take dropout and dtype, as EmotionCNN does ({error})"
        ) from None
    if "train" not in inspect.signature(model.__call__).parameters:
        raise ValueError(f"model.name={name}: the module must be called with (x, train), as EmotionCNN is")
    switches: dict[str, Any] = {
        "width": width,
        "depth": depth,
        "squeeze_excite": squeeze_excite,
        "antialias": antialias,
        "symmetric": symmetric,
        "stochastic_depth": stochastic_depth,
    }
    for switch, value in switches.items():
        if hasattr(model, switch):
            model = model.clone(**{switch: value})
        elif value != (default := getattr(ResNet, switch)):
            raise ValueError(f"model.{switch}={value}: {name} has no such part; set it to {default} or choose a resnet")
    return model


def init(model: nn.Module, seed: int, size: int) -> dict[str, Any]:
    """Return fresh variables, {"params": ..., "batch_stats": ...}; `batch_stats` is {} without BatchNorm.

    Kernels are normal with variance 2 / fan-in (He et al. 2015, https://arxiv.org/abs/1502.01852). Scales and variances
    are one, biases and means are zero. numpy draws them, so that a seed gives the same weights on every platform.
    It also saves the compilation of flax's own initialisers, which takes longer than that of the training step.

    Args:
        model: a module of this package.
        seed: of the run.
        size: the side of the images in pixels.

    Raises:
        ValueError: a variable has a name without a rule.
    """
    images = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    rng = np.random.default_rng((seed, 0, 0, 3))  # a separate stream: see ORDER in fer_jax.data.batching

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            return rng.standard_normal(leaf.shape, np.float32) * np.float32(math.sqrt(2 / fan_in))
        if name not in CONSTANTS:
            variable = "/".join(part.key for part in path)
            raise ValueError(
                f"{variable}: fer_jax.models.registry.init has rules for kernel, {', '.join(CONSTANTS)} alone; "
                "rename the variable or add a rule"
            )
        return np.full(leaf.shape, CONSTANTS[name], leaf.dtype)

    variables = jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def without_classes(variables: dict[str, Any], absent: np.ndarray) -> dict[str, Any]:
    """Return the variables of a network that gives the absent classes a probability of about 0: bool[8].

    Their biases in the last dense layer become `ABSENT`. The other probabilities keep their ratios.
    """
    params = variables["params"]
    last = max((name for name in params if name.startswith("Dense_")), key=lambda name: int(name.split("_")[1]))
    bias = jnp.where(absent, ABSENT, params[last]["bias"])
    return {**variables, "params": {**params, last: {**params[last], "bias": bias}}}


def count_parameters(params: Any) -> int:
    """Return the number of trained weights in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
