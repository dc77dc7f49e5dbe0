"""The safetensors file of a released network: its format, its errors, its float16 form."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fer_jax import inference
from fer_jax.core import run_folder, shipped
from fer_jax.core.errors import UserError
from fer_jax.core.run_folder import WEIGHTS
from fer_jax.inference import weights
from fer_jax.inference.network import Network
from fer_jax.inference.weights import Weights
from fer_jax.models import registry
from fer_jax.models.ops import Conv3x3
from fer_jax.training.history import EpochRecord, as_json
from fer_jax.training.network import build_network
from tests.small_runs import TINY, tiny_config

HISTORY = [
    EpochRecord(1, 4, {"accuracy": 0.25}, {"accuracy": 0.5}, 0.1),
    EpochRecord(2, 8, {"accuracy": 0.75}, {"accuracy": 0.25}, 0.1),
]
TREE = {"params": {"Dense_0": {"bias": np.zeros(3), "kernel": np.zeros((2, 3))}}, "batch_stats": {}}


class Plain(nn.Module):
    """Convolution, mean, classifier: no BatchNorm, as in VGG13."""

    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(8)(nn.relu(Conv3x3(4, dtype=self.dtype)(x)).mean(axis=(1, 2)))


@pytest.fixture(autouse=True)
def plain_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "plain", Plain)


def fresh(**model: Any) -> tuple[ConfigDict, Any]:
    """A config, and variables with different values everywhere."""
    config = tiny_config()
    config.model.update(model)
    rng = np.random.default_rng(0)
    variables = registry.init(build_network(config).model, 0, 48)
    return config, jax.tree.map(lambda leaf: leaf + rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32), variables)


def like(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32), tree)


def fails(folder: Path, tree: Any) -> str:
    with pytest.raises(UserError) as error:
        weights.load(folder, like(tree))
    assert "\n" not in str(error.value)
    assert str(folder / WEIGHTS) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("model", [TINY, {"name": "plain", "width": 1.0, "depth": 1}], ids=["resnet", "plain"])
def test_a_network_comes_back_with_the_same_logits(tmp_path: Path, model: dict[str, Any]) -> None:
    config, variables = fresh(**model)
    run_folder.claim(tmp_path, config)
    weights.save(tmp_path, Weights(variables, "latest", 4, 7, HISTORY))
    network = inference.restore(tmp_path, "best")  # a released network has one set of weights
    assert (network.checkpoint, network.step, network.history) == ("latest", 4, HISTORY)
    assert network.config.to_json() == config.to_json()
    jax.tree.map(np.testing.assert_array_equal, network.variables, variables)
    images = np.random.default_rng(1).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    parts = build_network(config)
    predict = jax.jit(partial(parts.model.apply, train=False))
    original = Network(tmp_path, config, parts, predict, variables, 4, [])
    log_probs = inference.log_probabilities(network, images)
    np.testing.assert_array_equal(log_probs, inference.log_probabilities(original, images))
    assert np.ptp(log_probs) > 0


def test_the_file_is_plain_safetensors_with_flat_names(tmp_path: Path) -> None:
    _, variables = fresh()
    weights.save(tmp_path, Weights(variables, "best", 4, 7, HISTORY))
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
    # The format: the header's length, a JSON header, the numbers.
    content = (tmp_path / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    training = json.loads(header.pop("__metadata__")["training"])
    assert len(training.pop("digest")) == 64
    assert training == {"checkpoint": "best", "step": 4, "seed": 7, "history": as_json(HISTORY)}
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert len(content) == 8 + length + 4 * numbers
    assert {entry["dtype"] for entry in header.values()} == {"F32"}

    arrays = load_file(tmp_path / WEIGHTS)
    assert arrays.keys() == header.keys()
    kernel = variables["params"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(arrays["params/Dense_0/kernel"], kernel)
    assert {name.split("/")[0] for name in arrays} == {"params", "batch_stats"}


def test_the_same_weights_give_the_same_bytes_however_they_lie_in_memory(tmp_path: Path) -> None:
    kernel = np.arange(6, dtype=np.float64).reshape(3, 2).T  # columns first
    for folder, layout in (("a", kernel), ("b", np.ascontiguousarray(kernel))):
        (tmp_path / folder).mkdir()
        tree = {"params": {"kernel": layout}, "batch_stats": {}}
        weights.save(tmp_path / folder, Weights(tree, "best", 1, 0, HISTORY))
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
    np.testing.assert_array_equal(weights.load(tmp_path / "a", like(tree)).variables["params"]["kernel"], kernel)


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ({"bias": np.zeros(3), "kernel": np.zeros((3, 3))}, "params/Dense_0/kernel is F32[2, 3], not F32[3, 3]"),
        ({"kernel": np.zeros((2, 3))}, "params/Dense_0/bias is not part of the network"),
        (
            {"bias": np.zeros(3), "kernel": np.zeros((2, 3)), "scale": np.zeros(3)},
            "params/Dense_0/scale is missing",
        ),
    ],
)
def test_weights_of_another_network_get_one_line(tmp_path: Path, dense: dict, message: str) -> None:
    weights.save(tmp_path, Weights(TREE, "best", 1, 0, HISTORY))
    assert message in fails(tmp_path, {"params": {"Dense_0": dense}, "batch_stats": {}})


def test_weights_of_another_type_get_one_line(tmp_path: Path) -> None:
    arrays = {"params/Dense_0/bias": np.zeros(3, np.float16), "params/Dense_0/kernel": np.zeros((2, 3), np.float32)}
    save_file(arrays, tmp_path / WEIGHTS)
    assert "params/Dense_0/bias is F16[3], not F32[3]" in fails(tmp_path, TREE)


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_gets_one_line(tmp_path: Path, size: int) -> None:
    weights.save(tmp_path, Weights(TREE, "best", 1, 0, HISTORY))
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    assert "damaged" in fails(tmp_path, TREE)


def test_a_missing_or_foreign_file_gets_one_line(tmp_path: Path) -> None:
    assert "missing" in fails(tmp_path, TREE)
    (tmp_path / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "damaged" in fails(tmp_path, TREE)
    weights.save(tmp_path, Weights(TREE, "best", 1, 0, HISTORY))
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS)  # without its metadata
    assert "not from fer_jax.release" in fails(tmp_path, TREE)


@pytest.mark.parametrize("part", ["values", "history"])
def test_a_changed_bit_gets_one_line(tmp_path: Path, part: str) -> None:
    weights.save(tmp_path, Weights(TREE, "best", 1, 0, HISTORY))
    path = tmp_path / WEIGHTS
    content = bytearray(path.read_bytes())
    place = len(content) - 6 if part == "values" else content.index(b"0.75") + 2
    content[place] ^= 1
    path.write_bytes(content)
    assert "its content has changed since it was written" in fails(tmp_path, TREE)


@pytest.mark.parametrize("name", ["base", "best"])
def test_a_changed_bit_of_a_shipped_network_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(shipped.networks()[name], folder)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-6] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match="its content has changed since it was written"):
        inference.restore(folder)


def test_a_file_without_a_digest_is_read(tmp_path: Path) -> None:
    weights.save(tmp_path, Weights(TREE, "best", 1, 0, HISTORY))
    with safe_open(tmp_path / WEIGHTS, "numpy") as file:
        training = json.loads(file.metadata()["training"])
    del training["digest"]  # as older versions wrote it
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS, {"training": json.dumps(training)})
    assert weights.load(tmp_path, like(TREE)).history == HISTORY


def test_a_network_of_nan_is_refused_when_it_is_read(tmp_path: Path) -> None:
    config, variables = fresh()
    variables = jax.tree.map(lambda leaf: leaf * np.nan if leaf.ndim == 2 else leaf, variables)
    run_folder.claim(tmp_path, config)
    weights.save(tmp_path, Weights(variables, "best", 1, 0, HISTORY))
    with pytest.raises(UserError, match=r"params/Dense_0/kernel has values that are not finite; copy it again$"):
        inference.restore(tmp_path)


def test_a_released_network_is_not_trained_on(tmp_path: Path) -> None:
    config, variables = fresh()
    run_folder.claim(tmp_path, config)
    weights.save(tmp_path, Weights(variables, "best", 1, 0, HISTORY))
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="holds a released network, which cannot be trained on"):
        run_folder.claim(tmp_path, config)  # the same config too
    config.seed = 5
    with pytest.raises(UserError, match="choose another --workdir"):
        run_folder.claim(tmp_path, config)
    assert (tmp_path / "config.json").read_bytes() == before


def test_half_stores_kernels_in_float16_and_vectors_in_float32(tmp_path: Path) -> None:
    config, variables = fresh()
    variables = jax.tree.map(lambda leaf: leaf * 1e5 if leaf.ndim == 1 else leaf, variables)
    run_folder.claim(tmp_path, config)
    assert not weights.is_half(tmp_path)
    weights.save(tmp_path, Weights(variables, "best", 4, 7, HISTORY))
    size = (tmp_path / WEIGHTS).stat().st_size
    assert not weights.is_half(tmp_path)
    weights.save(tmp_path, Weights(variables, "best", 4, 7, HISTORY), half=True)
    assert weights.is_half(tmp_path)
    kernels = sum(leaf.size for leaf in jax.tree.leaves(variables) if leaf.ndim > 1)
    assert size - (tmp_path / WEIGHTS).stat().st_size == pytest.approx(2 * kernels, abs=100)
    restored = inference.restore(tmp_path, "best").variables
    for original, leaf in zip(jax.tree.leaves(variables), jax.tree.leaves(restored), strict=True):
        assert leaf.dtype == np.float32
        expected = original.astype(np.float16).astype(np.float32) if original.ndim > 1 else original
        np.testing.assert_array_equal(leaf, expected)


def test_a_kernel_beyond_the_range_of_float16_gets_one_line(tmp_path: Path) -> None:
    tree = {"params": {"Dense_0": {"kernel": np.full((2, 3), 7e4, np.float32)}}}
    with pytest.raises(UserError, match=r"params/Dense_0/kernel .* without --half"):
        weights.save(tmp_path, Weights(tree, "best", 4, 7, HISTORY), half=True)
    assert not list(tmp_path.iterdir())
