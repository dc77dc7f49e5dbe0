"""The examples of docs/using.md for exported files, run as they stand there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from skimage import data

from fer_jax import inference
from fer_jax.deploy import onnx_model
from fer_jax.inference import onnx_network

PATH = "experiments/base.onnx"  # in the examples


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "base.onnx"
    path.write_bytes(onnx_model.to_onnx(inference.restore("base")).SerializeToString())
    return path


def example(language: str, exported: Path) -> str:
    """The block of a language that names the exported file, with the path of this one."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / "using.md").read_text(), re.M | re.S)
    (block,) = (text for text in blocks if PATH in text)
    return block.replace(PATH, exported.as_posix())


@pytest.mark.slow
def test_the_javascript_example(exported: Path, tmp_path: Path) -> None:
    """Where node finds onnxruntime-node, for example by NODE_PATH."""
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('onnxruntime-node')"], capture_output=True).returncode:
        pytest.skip("node does not find the package onnxruntime-node")
    script = tmp_path / "example.js"
    script.write_text(example("js", exported))
    printed = subprocess.run([node, str(script)], capture_output=True, text=True, check=True, timeout=60).stdout
    black = np.zeros((1, 48, 48), np.uint8)
    expected = np.exp(onnx_network.load(exported).log_probabilities(black))[0]
    np.testing.assert_allclose(
        [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", printed)], expected, atol=1e-5
    )


@pytest.mark.slow
def test_the_python_example(exported: Path, tmp_path: Path) -> None:
    face = tmp_path / "face.png"
    Image.fromarray(data.astronaut()[65:190, 160:285]).save(face)
    code = example("python", exported).replace("face.png", face.as_posix())
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path
    ).stdout
    assert "happiness" in printed
