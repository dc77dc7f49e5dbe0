"""The networks: f32[B, S, S, 1] pictures in, f32[B, 8] logits out.

`MODELS` lists them by name, `PARAMETERS` says how many weights each has. All of them compute in `dtype`
(float32 or bfloat16) and keep weights, batch statistics and logits in float32. To add one, write its module,
enter it in both tables, and give it a config; `init` must know the names of its parameters.
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
    "resnet9": partial(ResNet, widths=(64, 128, 256, 512), blocks=(0, 1, 0, 1), space_to_depth=False),
}

# Weights that the optimizer trains, with 64x64 pictures for vgg13 (whose first dense layer depends on it).
PARAMETERS = {
    "emotion_cnn": 4_879_656,
    "vgg13": 8_757_704,
    "resnet_tiny": 191_400,
    "resnet_small": 1_941_320,
    "resnet9": 6_570_952,
}


CONSTANTS = {"bias": 0.0, "mean": 0.0, "scale": 1.0, "var": 1.0}  # what variables begin as, but kernels


def create_model(
    name: str,
    dropout: float,
    dtype: str,
    *,
    width: float = 1.0,
    depth: int = 1,
    squeeze_excite: bool = False,
    antialias: bool = False,
    stochastic_depth: float = 0.0,
) -> nn.Module:
    """The module of that name, computing in `dtype` ("float32" or "bfloat16"); the rest is as in `ResNet`.

    Raises:
        KeyError: `name` is not in `MODELS`.
        ValueError: the model lacks one of the other fields.
    """
    try:
        model = MODELS[name](dropout=dropout, dtype=jnp.dtype(dtype))
    except TypeError as error:
        raise ValueError(f"the model {name} must take dropout and dtype, as EmotionCNN does ({error})") from None
    if "train" not in inspect.signature(model.__call__).parameters:
        raise ValueError(f"the model {name} must be called with (x, train), as EmotionCNN is")
    switches: dict[str, Any] = {
        "width": width,
        "depth": depth,
        "squeeze_excite": squeeze_excite,
        "antialias": antialias,
        "stochastic_depth": stochastic_depth,
    }
    for switch, value in switches.items():
        if hasattr(model, switch):
            model = model.clone(**{switch: value})
        elif value != (off := getattr(ResNet, switch)):
            raise ValueError(f"model.{switch}={value}: {name} has no such part; leave it at {off} or choose a resnet")
    return model


def init(model: nn.Module, seed: int, size: int) -> dict[str, Any]:
    """Fresh variables: {"params": ...} and, where the model has BatchNorm, {"batch_stats": ...}, else {}.

    Kernels are normal with variance 2 / fan-in (He et al. 2015, https://arxiv.org/abs/1502.01852); scales and
    variances are one, biases and means zero. numpy draws them: a seed gives the same weights on every platform,
    and there is nothing to compile, which for flax's own initialisers takes longer than the training step.

    Raises:
        ValueError: a variable has a name that there is no rule for.
    """
    pictures = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), pictures)
    rng = np.random.default_rng((seed, 0, 0, 3))  # a stream of its own: see loader.ORDER

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            return rng.standard_normal(leaf.shape, np.float32) * np.float32(math.sqrt(2 / fan_in))
        if name not in CONSTANTS:
            raise ValueError(
                f"{'/'.join(part.key for part in path)}: fer_jax.models.init knows kernel, {', '.join(CONSTANTS)}; "
                "give the variable such a name, or the function a rule for it"
            )
        return np.full(leaf.shape, CONSTANTS[name], leaf.dtype)

    variables = jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def count_parameters(params: Any) -> int:
    """The number of trained weights in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
