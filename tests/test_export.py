"""Networks as ONNX files, evaluated by onnx's reference implementation in numpy, which is independent of JAX."""

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

from fer_jax import export, inference
from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.data import augment
from fer_jax.data.labels import EMOTIONS
from fer_jax.deploy import onnx_export, onnx_graph
from fer_jax.inference import weights
from fer_jax.inference.network import Network
from fer_jax.inference.weights import Weights
from fer_jax.models import registry
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
    monkeypatch.setenv("XLA_FLAGS", "")  # restored afterwards: the command changes it


def network(run: Path, **fields: Any) -> Network:
    """A released network of random kernels, biases, scales and statistics."""
    config = tiny_config()
    config.model.update(width=1.0, depth=1)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    rng = np.random.default_rng(0)
    variables = registry.init(build_network(config).model, 1, config.image.size)
    variables = jax.tree.map(lambda leaf: leaf + (leaf.ndim == 1) * rng.uniform(0, 0.5, leaf.shape), variables)
    variables = jax.tree.map(np.float32, variables)
    with run_folder.claim(run, config):
        weights.save(run, Weights(variables, "best", 4, 1, [EpochRecord(1, 4, {}, {}, 0.1)]))
    return inference.restore(run, "best")


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 48, 48), dtype=np.uint8)


def evaluate(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    (output,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: images})
    return output


@pytest.mark.parametrize(
    "fields",
    [
        {"model__name": "small"},
        {"model__name": "full", "model__antialias": True, "model__squeeze_excite": True},
        {"model__name": "emotion_cnn"},  # wide enough for Winograd's method, a variant for CPUs; LayerNorm
    ],
)
def test_an_exported_network_predicts_as_the_network_does(fields: dict[str, Any], tmp_path: Path) -> None:
    restored = network(tmp_path, **fields)
    model = onnx_export.to_onnx(restored)
    for count in (1, 3):  # any number of images
        images = noise(count)
        inputs = augment.render(images, augment.identity(count, 48), size=48, normalize="scale")
        logits = jax.jit(partial(restored.parts.model.apply, train=False))(restored.variables, inputs)
        np.testing.assert_allclose(evaluate(model, images), jax.nn.softmax(logits), atol=2e-5)
        probabilities = evaluate(model, images)
        assert probabilities.dtype == np.float32
        assert np.ptp(probabilities) > 0.02
    kinds = {node.op_type for node in model.graph.node}
    assert "Conv" in kinds
    assert "Reciprocal" not in kinds or fields["model__name"] == "emotion_cnn"  # BatchNorm's is a constant


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


@pytest.mark.parametrize("name", CASES)
def test_every_rule_computes_what_the_primitive_computes(name: str) -> None:
    model = onnx_graph.convert(CASES[name], jax.ShapeDtypeStruct((6, 4), np.float32), ("x", "y"))
    for count in (1, 3):
        x = np.random.default_rng(count).normal(size=(count, 6, 4)).astype(np.float32)
        np.testing.assert_allclose(evaluate(model, x), CASES[name](x), rtol=1e-5, atol=1e-5)
    if name == "by platform":
        assert {node.op_type for node in model.graph.node} == {"Mul", "Identity"}  # not the variant for CPUs


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
        onnx_graph.convert(function, jax.ShapeDtypeStruct((6, 4), np.float32), ("x", "y"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"image__size": 64}, "its input has 64x64 pixels, not 48x48"), ({"image__normalize": "ferplus"}, "no rule for")],
)
def test_input_of_another_size_or_normalisation_gets_one_line(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        onnx_export.to_onnx(network(tmp_path, model__name="small", **fields))


def test_a_file_that_predicts_something_else_is_refused(tmp_path: Path) -> None:
    restored = network(tmp_path, model__name="small")
    model = onnx_export.to_onnx(restored)
    onnx_export.check(restored, model)
    for constant in model.graph.initializer:
        if len(constant.dims) == 2:  # the last layer's kernel
            constant.raw_data = bytes(len(constant.raw_data))
    with pytest.raises(UserError, match="the exported network's probabilities differ by"):
        onnx_export.check(restored, model)


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
