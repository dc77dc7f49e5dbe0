"""Networks as ONNX files, evaluated by onnx's reference implementation in numpy, which is independent of JAX."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax
from onnx.reference import ReferenceEvaluator
from scipy import special

from fer_jax import export, inference
from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.data import augment
from fer_jax.data.labels import EMOTIONS
from fer_jax.data.normalize import NORMALIZATIONS
from fer_jax.deploy import onnx_convert, onnx_export, onnx_input, onnx_model
from fer_jax.faces.reader import Reader
from fer_jax.inference import onnx_network, weights
from fer_jax.inference.network import Network
from fer_jax.inference.weights import Weights
from fer_jax.models import pooling, registry
from fer_jax.training.history import EpochRecord
from fer_jax.training.network import build_network
from tests.small_runs import tiny_config


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks that have all parts of the shipped ones between them."""
    monkeypatch.setitem(registry.MODELS, "small", partial(registry.ResNet, widths=(4, 8), blocks=(1, 1)))
    monkeypatch.setitem(
        registry.MODELS, "full", partial(registry.ResNet, widths=(4, 8, 64), blocks=(0, 1, 0), space_to_depth=False)
    )
    # The last layer is wide enough for Winograd's method.
    monkeypatch.setitem(registry.MODELS, "wide", partial(registry.ResNet, widths=(64, 64), blocks=(0, 0)))
    monkeypatch.setenv("XLA_FLAGS", "")  # restored afterwards: the command changes it


def network(run: Path, **fields: Any) -> Network:
    """A released network of random kernels, biases, scales and statistics."""
    config = tiny_config()
    config.model.update(width=1.0, depth=1)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if leaf.ndim > 1:
            return np.float32(rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape))
        return np.float32(rng.uniform(0, 0.5, leaf.shape) + (path[-1].key in ("scale", "var")))

    shapes = jax.eval_shape(partial(registry.init, build_network(config).model, 1, config.image.size))
    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    with run_folder.claim(run, config):
        weights.save(run, Weights(variables, "best", 4, 1, [EpochRecord(1, 4, {}, {}, 0.1)]))
    return inference.restore(run, "best")


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 48, 48), dtype=np.uint8)


def evaluate(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    (output,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: images})
    return output


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"model__name": "small"},
        {"model__name": "full", "model__antialias": True, "model__squeeze_excite": True},
        {"model__name": "small", "model__symmetric": True},
        {"model__name": "emotion_cnn"},  # wide enough for Winograd's method, a variant for CPUs; LayerNorm
        {"model__name": "vgg13", "image__size": 64, "image__normalize": "ferplus"},
    ],
)
def test_an_exported_network_predicts_as_the_network_does(fields: dict[str, Any], tmp_path: Path) -> None:
    restored = network(tmp_path, **fields)
    model = onnx_model.to_onnx(restored)
    images = noise(3)
    size, normalize = restored.config.image.size, restored.config.image.normalize
    inputs = augment.render(images, augment.identity(3, size), size=size, normalize=normalize)
    expected = special.softmax(restored.predict(restored.variables, inputs), axis=1)
    for count in (1, 3):  # any number of images
        probabilities = evaluate(model, images[:count])
        np.testing.assert_allclose(probabilities, expected[:count], atol=2e-5)
        assert probabilities.dtype == np.float32
        assert np.ptp(probabilities) > 0.02
    kinds = operators(model)
    assert "Conv" in kinds
    assert kinds["Slice"] == (2 if restored.config.model.symmetric else 0)  # the halves of the last channels
    assert kinds["Transpose"] <= (5 if restored.config.image.size > 48 else 2)  # of the image alone
    assert "Reciprocal" not in kinds or fields["model__name"] == "emotion_cnn"  # BatchNorm's is a constant


def test_a_reader_shows_a_symmetric_network_one_view_and_others_two(tmp_path: Path) -> None:
    names = {"symmetric": True, "other": False}
    networks = [network(tmp_path / name, model__name="small", model__symmetric=on) for name, on in names.items()]
    (tmp_path / "exported.onnx").write_bytes(onnx_model.to_onnx(networks[0]).SerializeToString())
    exported = onnx_network.load(tmp_path / "exported.onnx")
    assert exported.symmetric
    images = noise(3)
    views = np.concatenate([images, images[:, :, ::-1]])
    single, both = (np.exp(inference.log_probabilities(one, views)) for one in networks)
    np.testing.assert_allclose(single[:3], single[3:], atol=1e-6)
    expected = (single[:3] + (both[:3] + both[3:]) / 2) / 2
    for first in (networks[0], exported):
        np.testing.assert_allclose(Reader([first, networks[1]], flip=True).predict(images), expected, atol=1e-5)
    numbers = []
    session = exported._replace(session=Counting(exported.session, numbers))
    Reader([session], flip=True).predict(images)
    assert numbers == [3]


class Counting:
    """A session that notes the numbers of images."""

    def __init__(self, session: Any, numbers: list[int]) -> None:
        self._session, self._numbers = session, numbers

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self._numbers.append(len(inputs["image"]))
        return self._session.run(outputs, inputs)


CASES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "arithmetic": lambda x: -jnp.square(x - 1) / (jnp.minimum(x * x, 3.0) + 2) + jax.nn.sigmoid(x),
    "logarithms": lambda x: jnp.log(jnp.exp(x) + 1) + jnp.tanh(x) + jnp.sqrt(x * x) + lax.rsqrt(x * x + 1),
    "strides": lambda x: lax.conv_general_dilated(
        x[..., None], jnp.arange(12.0).reshape(2, 3, 1, 2), (2, 1), [(1, 0), (0, 2)], (1, 1), (2, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "depthwise": lambda x: lax.conv_general_dilated(
        x, jnp.arange(3.0 * 4).reshape(3, 1, 4), (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=4,
    ),
    "mirrored border": lambda x: jnp.pad(x, ((0, 0), (2, 1), (1, 1)), mode="reflect")[:, ::2, 1:-1],
    "border of ones": lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 3)), constant_values=1.0),
    "reduction": lambda x: x.max(axis=2) + x.sum(axis=(1, 2))[:, None] * x.mean(axis=1, keepdims=True)[:, 0, :1],
    "order": lambda x: jnp.concatenate([x.transpose(0, 2, 1), x[:, :4].reshape(len(x), 4, 4)[:, :, ::-1]], axis=2),
    "a constant for each image": lambda x: x + jnp.broadcast_to(jnp.arange(4.0), x.shape),
    "constants alone": lambda x: x * jnp.linalg.norm(jnp.arange(4.0)).astype(jnp.float32),
    "by platform": lambda x: lax.platform_dependent(x, cpu=lambda x: x + x, default=lambda x: x * 2),
}  # fmt: skip


def converted(function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...] = (6, 4)) -> onnx.ModelProto:
    image = jax.ShapeDtypeStruct(shape, np.float32)
    return onnx_convert.convert(lambda weights, x: function(x), {}, image, ("x", "y"))


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("name", CASES)
def test_every_rule_computes_what_the_primitive_computes(name: str) -> None:
    model = converted(CASES[name])
    for count in (1, 3):
        x = np.random.default_rng(count).normal(size=(count, 6, 4)).astype(np.float32)
        np.testing.assert_allclose(evaluate(model, x), CASES[name](x), rtol=1e-5, atol=1e-5)
    if name == "by platform":
        assert operators(model) == {"Mul": 1, "Identity": 1}  # not the variant for CPUs


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.sort(x),
        lambda x: jnp.einsum("bij,bkj->bik", x, x),
        lambda x: lax.fori_loop(0, 3, lambda _, y: y + x, x),
        # operations across the images of a batch, or with their number
        lambda x: x - x.mean(axis=0),
        lambda x: x.max(axis=(0, 1)),
        lambda x: x * len(x),
        lambda x: x[:-1],
        lambda x: x[::-1],
        lambda x: jnp.pad(x, ((1, 0), (0, 0), (0, 0))),
        lambda x: x + jnp.arange(len(x), dtype=jnp.float32)[:, None, None],
        lambda x: jnp.concatenate([x, jnp.zeros((len(x), 1, 4))], axis=1),
        lambda x: jnp.zeros((len(x), 4)),
        lambda x: lax.conv_general_dilated(
            x, jnp.ones((3, 4, 4)), (1,), [(-1, 0)], dimension_numbers=("NWC", "WIO", "NWC")
        ),
    ],
)
def test_an_operation_without_a_rule_gets_one_line(function: Callable[[jax.Array], jax.Array]) -> None:
    with pytest.raises(UserError, match="cannot be exported: there is no rule for") as error:
        converted(function)
    assert "\n" not in str(error.value)


def convolution(x: jax.Array) -> jax.Array:
    kernel = jnp.sin(jnp.arange(3 * 3 * 4 * 4.0)).reshape(3, 3, 4, 4)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


# Functions of images [N, 9, 8, 4], with the operators between the transpositions of input and output.
numbers = np.linspace(-1, 2, 4, dtype=np.float32)
FUSED: dict[str, tuple[Callable[[jax.Array], jax.Array], dict[str, int]]] = {
    "normalisation": (
        lambda x: jax.nn.relu((convolution(x) - numbers) * (numbers + 1) + numbers),
        {"Conv": 1, "Relu": 1},
    ),
    "two uses of a convolution": (
        lambda x: convolution(x) * numbers + convolution(x),
        {"Conv": 2, "Add": 1},
    ),
    "a number for each pixel": (lambda x: convolution(x) + jnp.arange(8.0)[:, None], {"Conv": 1, "Add": 1}),
    "maximum of four": (lambda x: pooling.max_pool_2x2(convolution(x)), {"Conv": 1, "MaxPool": 1}),
    "maximum and blur": (lambda x: pooling.max_blur_pool(convolution(x)), {"Conv": 2, "MaxPool": 1, "Pad": 1}),
    "maximum of three": (
        lambda x: jnp.maximum(jnp.maximum((y := convolution(x))[:, :-1:2, ::2], y[:, 1::2, ::2]), y[:, :-1:2, 1::2]),
        {"Conv": 1, "Slice": 1, "MaxPool": 1, "Max": 1},
    ),
    "maximum of the end": (
        lambda x: jnp.maximum((y := convolution(x))[:, 1:-1], y[:, 2:]),
        {"Conv": 1, "Slice": 2, "Max": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_operations_are_joined_and_axes_keep_their_order(name: str) -> None:
    function, expected = FUSED[name]
    model = converted(function, (9, 8, 4))
    x = np.random.default_rng(1).normal(size=(3, 9, 8, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(model, x), function(jnp.asarray(x)), rtol=1e-4, atol=1e-4)
    assert operators(model) - Counter(Identity=1) == {"Transpose": 2, **expected}


def test_a_dense_layer_is_one_operator_and_a_mean_too() -> None:
    kernel = np.sin(np.arange(12, dtype=np.float32)).reshape(4, 3)
    model = converted(lambda x: (x.mean(axis=1) @ kernel + numbers[:3]) * 2)
    x = np.random.default_rng(1).normal(size=(3, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(model, x), 2 * (x.mean(axis=1) @ kernel + numbers[:3]), atol=1e-5)
    assert operators(model) == {"ReduceMean": 1, "Gemm": 1, "Identity": 1}


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("size", [48, 64, 41])
def test_the_input_equals_the_rendering_of_an_image_as_it_is(normalize: str, size: int) -> None:
    images = np.concatenate([noise(3), np.sort(noise(2), axis=1), np.full((1, 48, 48), 7, np.uint8)])
    expected = augment.render(images, augment.identity(6, size), size=size, normalize=normalize)
    np.testing.assert_allclose(onnx_input.rendered(jnp.asarray(images), size, normalize), expected, atol=2e-5)


def test_a_file_that_predicts_something_else_is_refused(tmp_path: Path) -> None:
    restored = network(tmp_path, model__name="small")
    model = onnx_model.to_onnx(restored)
    onnx_export.check(restored, model)
    for constant in model.graph.initializer:
        if len(constant.dims) == 2:  # the last layer's kernel
            constant.raw_data = bytes(len(constant.raw_data))
    with pytest.raises(UserError, match="the exported network's probabilities differ by"):
        onnx_export.check(restored, model)


@pytest.mark.slow
def test_the_command_writes_a_file_with_metadata(
    sample_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "small.onnx"
    network(run, model__name="small")
    assert export.main(["--run", str(run), "--out", str(out), "--data", str(sample_dir)]) == 0
    assert f"exported: {out} (0.0 MB)" in capsys.readouterr().out
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["emotions"].split() == list(EMOTIONS)
    assert (facts["run"], facts["step"]) == (str(run), "4")
    assert 0.05 <= float(facts["temperature"]) <= 20
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["small.onnx"]

    command = ["--run", str(run), "--out", str(out), "--data", str(sample_dir), "--precision", "int8"]
    assert export.main(command) == 0
    (accuracy,) = re.findall(r"accuracy on validation ([\d.]+)%, in float32 [\d.]+%", capsys.readouterr().out)
    small = onnx.load(out)
    facts = {entry.key: entry.value for entry in small.metadata_props}
    assert facts["precision"] == "int8"
    assert 100 * float(facts["valid_accuracy"]) == pytest.approx(float(accuracy), abs=0.051)
    assert "QuantizeLinear" in operators(small)


@pytest.mark.slow
def test_stablehlo_predicts_as_the_network_does(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers")
    run, out = tmp_path / "run", tmp_path / "wide.stablehlo"
    restored = network(run, model__name="wide")
    assert export.main(["--run", str(run), "--out", str(out), "--format", "stablehlo"]) == 0
    images = noise(4)
    program = jax.export.deserialize(bytearray(out.read_bytes()))
    for count in (3, 4):  # any number of images
        expected = np.exp(inference.log_probabilities(restored, images[:count]))
        np.testing.assert_allclose(program.call(images[:count]), expected, atol=1e-4)
    assert np.ptp(expected) > 0.02
