"""Networks in ONNX files, computed by onnxruntime, against the same networks computed by JAX."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python
from PIL import Image

import fer_jax
from fer_jax import inference
from fer_jax.core import shipped
from fer_jax.core.errors import UserError
from fer_jax.data.folders import load
from fer_jax.data.labels import targets
from fer_jax.deploy import onnx_model, onnx_precision
from fer_jax.inference import onnx_network

onnxruntime = pytest.importorskip("onnxruntime")


def faces(count: int) -> np.ndarray:
    """Smooth images: their probabilities differ more than those of noise."""
    noise = np.random.default_rng(count).integers(0, 256, (count, 6, 6), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((48, 48))) for image in noise])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "base.onnx"
    out.write_bytes(onnx_model.to_onnx(inference.restore("base")).SerializeToString())
    return out


@pytest.mark.parametrize("name", ["base", pytest.param("best", marks=pytest.mark.slow)])
def test_a_shipped_network_predicts_the_same_with_both_runtimes(name: str) -> None:
    images = faces(32)
    readers = [fer_jax.load(name, runtime=runtime) for runtime in onnx_network.RUNTIMES]
    jax_probabilities, onnx_probabilities = (reader.predict(images, prior=0.3, calibrated=True) for reader in readers)
    np.testing.assert_allclose(onnx_probabilities, jax_probabilities, atol=1e-4)
    assert np.ptp(jax_probabilities, axis=0).max() > 0.2
    assert [type(reader.networks[0]).__name__ for reader in readers] == ["Network", "OnnxNetwork"]


def test_onnxruntime_is_the_choice_where_it_can_read_the_network(exported: Path, tmp_path: Path) -> None:
    assert onnx_network.choose(shipped.networks()["base"], None) == "onnx"
    assert onnx_network.choose(exported, None) == "onnx"
    assert onnx_network.choose(tmp_path, None) == "jax"
    with pytest.raises(UserError, match=r"has no network\.onnx: release or export the network first"):
        onnx_network.choose(tmp_path, "onnx")
    with pytest.raises(UserError, match="is an ONNX file, which jax cannot read"):
        onnx_network.choose(exported, "jax")
    with pytest.raises(ValueError, match="runtime='tflite' must be 'jax' or 'onnx'"):
        fer_jax.load("base", runtime="tflite")


def test_a_file_that_was_exported_to_a_run_folder_is_not_the_graph_of_the_run(exported: Path, tmp_path: Path) -> None:
    shutil.copyfile(exported, tmp_path / "network.onnx")
    assert onnx_network.choose(tmp_path, None) == "jax"
    assert onnx_network.choose(tmp_path / "network.onnx", None) == "onnx"


def test_an_exported_file_is_read_as_a_network(exported: Path) -> None:
    images = faces(5)
    np.testing.assert_allclose(fer_jax.load(exported).predict(images), fer_jax.load("base").predict(images), atol=1e-6)


def test_an_exported_file_has_its_own_temperature_and_one_set_of_weights(exported: Path, tmp_path: Path) -> None:
    import onnx

    model, out = onnx.load(exported), tmp_path / "calibrated.onnx"
    onnx_model.add_facts(model, {"temperature": "0.5"})  # as `fer-jax export --data` does
    onnx.save(model, out)
    plain = fer_jax.load(exported).predict(faces(3))
    squares = plain**2
    expected = squares / squares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fer_jax.load(out).predict(faces(3), calibrated=True), expected, atol=1e-6)
    with pytest.raises(UserError, match=r"no temperature of .*base\.onnx is stored"):
        fer_jax.load(exported).predict(faces(1), calibrated=True)
    with pytest.raises(UserError, match=r"base\.onnx holds the weights of one checkpoint: leave the checkpoint out"):
        fer_jax.load(exported, checkpoint="latest")


def test_batches_of_any_size(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    images = faces(257)
    (expected,) = session.run(None, {"image": images})
    for count in (0, 1, 3):
        (probabilities,) = session.run(None, {"image": images[:count]})
        assert probabilities.shape == (count, 8)
        np.testing.assert_allclose(probabilities, expected[:count], atol=1e-6)
    assert np.abs(expected.sum(axis=1) - 1).max() < 1e-5


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 48, 48), np.float32), "Unexpected input data type"),
        (np.zeros((48, 48), np.uint8), "Invalid rank for input: image"),
        (np.zeros((1, 64, 64), np.uint8), "Got invalid dimensions for input: image"),
    ],
)
def test_a_wrong_input_is_onnxruntimes_error(exported: Path, images: np.ndarray, message: str) -> None:
    with pytest.raises(Exception, match=message):
        onnxruntime.InferenceSession(exported).run(None, {"image": images})


def test_opencv_reads_the_file(exported: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    images = faces(3)
    net = cv2.dnn.readNetFromONNX(str(exported))
    net.setInput(images)
    (expected,) = onnxruntime.InferenceSession(exported).run(None, {"image": images})
    np.testing.assert_allclose(net.forward(), expected, atol=1e-4)


def test_the_metadata_describe_the_network(exported: Path) -> None:
    facts = onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map
    assert facts["emotions"].split() == [*fer_jax.EMOTIONS]
    assert facts["fer_jax"] == fer_jax.__version__
    assert float(facts["valid_accuracy"]) == pytest.approx(0.8853, abs=1e-4)  # of the model card
    assert "48x48" in facts["crop"]


def test_a_graph_of_other_weights_or_a_damaged_one_gets_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shipped.networks()["base"], folder)
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"network\.onnx was made for other weights"):
        onnx_network.load(folder)
    (folder / "weights.safetensors").write_bytes(weights[:1000])  # a copy that was cut off
    with pytest.raises(UserError, match="or its weights cannot be read"):
        onnx_network.load(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="or its weights cannot be read") as error:
        onnx_network.load(folder)
    assert len(str(error.value)) < 300
    assert capfd.readouterr() == ("", "")  # onnxruntime prints nothing of its own
    (folder / "network.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="cannot be read"):
        onnx_network.load(folder)
    with pytest.raises(UserError, match="does not exist"):
        onnx_network.load(tmp_path / "none.onnx")


SCRIPT = """
import json, sys
import fer_jax
reader = fer_jax.load("base")
print(json.dumps([reader.predict(sys.argv[1]).tolist(), "jax" in sys.modules]))
"""


@pytest.mark.slow
def test_jax_is_not_imported(tmp_path: Path) -> None:
    file = tmp_path / "face.png"
    Image.fromarray(faces(1)[0]).save(file)
    process = run_python("-c", SCRIPT, str(file))
    assert process.returncode == 0, process.stderr
    probabilities, has_jax = json.loads(process.stdout)
    assert not has_jax
    np.testing.assert_allclose(probabilities, fer_jax.load("base", runtime="jax").predict(str(file)), atol=1e-4)


def test_float16_halves_the_file(exported: Path) -> None:
    import onnx

    model = onnx.load(exported)
    half = onnx_precision.halved(model).SerializeToString()
    assert len(half) < 0.51 * exported.stat().st_size
    images = faces(20)
    expected = fer_jax.load(exported).networks[0].log_probabilities(images)
    np.testing.assert_allclose(
        np.exp(onnx_network.of_bytes(half).log_probabilities(images)), np.exp(expected), atol=2e-3
    )


@pytest.mark.slow
def test_int8_is_a_quarter_and_predicts_nearly_the_same(exported: Path, sample_dir: Path) -> None:
    import onnx

    small = onnx_precision.quantized(onnx.load(exported), load(sample_dir, "train").images[:64])
    assert len(small.SerializeToString()) < 0.3 * 4 * 1_941_320
    valid = load(sample_dir, "valid")
    expected = fer_jax.load(exported).networks[0].log_probabilities(valid.images)
    actual = onnx_network.of_bytes(small.SerializeToString()).log_probabilities(valid.images)
    assert 0 < np.abs(np.exp(actual) - np.exp(expected)).mean() < 0.02
    target, keep = targets(valid.votes, "majority")
    correct = [(values.argmax(axis=1) == target.argmax(axis=1))[keep].mean() for values in (expected, actual)]
    assert onnx_precision.accuracies(small, valid, expected) == pytest.approx(correct)


@pytest.mark.parametrize(("loss", "warns"), [(0.004, False), (0.006, True)])
def test_a_loss_of_more_than_half_a_point_is_said(loss: float, warns: bool) -> None:
    assert ("MORE THAN HALF A POINT" in onnx_precision.comparison(0.9, 0.9 - loss)) == warns
