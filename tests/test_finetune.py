"""Fine-tuning on imported images: frozen layers, fewer classes than eight, configs/finetune.py."""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from test_own_data import faces

import fer_jax
from fer_jax import inference
from fer_jax.core.errors import UserError
from fer_jax.curation import own_data
from fer_jax.data.labels import EMOTIONS
from fer_jax.inference import sources
from fer_jax.reporting.evaluate_runs import evaluate_runs
from fer_jax.train import train
from fer_jax.training import checks
from fer_jax.training.shapes import named_leaves
from tests.small_runs import quiet


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The data folder of drawn faces of two emotions."""
    for name in ("happy", "surprised"):
        (tmp_path / "images" / name).mkdir(parents=True)
        emotion = {"happy": 1, "surprised": 2}[name]
        for i, image in enumerate(faces(emotion, 40)):
            Image.fromarray(image).save(tmp_path / "images" / name / f"{i}.png")
    own_data.import_data(tmp_path / "images", tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.slow
def test_frozen_layers_stay_and_absent_classes_are_shown_as_none(
    config: ConfigDict, finished_run: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.data.dir = str(own)
    config.train.update(init_from=str(finished_run), batch_size=16, epochs=1)
    source = named_leaves(inference.restore(finished_run).variables["params"])
    layers = sorted({name.split("/")[0] for name in source})
    config.optim.freeze = tuple(layer for layer in layers if layer != "Dense_0")
    run = tmp_path / "run"
    lines: list[str] = []
    assert train(config, run, lines.append).finished
    assert lines[0] == (
        "no training image of neutral, sadness, anger, disgust, fear, contempt: the network does not predict them"
    )
    tuned = named_leaves(inference.restore(run, "latest").variables["params"])
    for name in source.keys() - {"Dense_0/kernel", "Dense_0/bias"}:
        np.testing.assert_allclose(tuned[name], source[name], rtol=1e-6)  # an average of equal weights rounds
    assert not np.allclose(tuned["Dense_0/kernel"], source["Dense_0/kernel"])
    (result,) = evaluate_runs(
        [run],
        data_dir=None,
        split="valid",
        checkpoint="latest",
        protocol="majority",
        flip=False,
        ensemble=False,
        out=None,
    )
    assert {*result.main_predictions.prediction} <= {1, 2}
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for emotion in {*EMOTIONS} - {"happiness", "surprise"}:
        assert [emotion, "0", "none", "none", "none", "none"] in lines


@pytest.mark.slow
def test_a_layer_that_is_not_there_is_named_before_the_run_folder_is_made(
    config: ConfigDict, own: Path, tmp_path: Path
) -> None:
    config.data.dir = str(own)
    config.train.batch_size = 16
    config.optim.freeze = ("Conv_9",)
    with pytest.raises(UserError, match=r"optim\.freeze: the network has no layer 'Conv_9'; it has ConvBlock_0, "):
        train(config, tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_the_config_has_the_network_of_base_and_freezes_layers_of_it() -> None:
    config, base = fer_jax.load_config("finetune"), fer_jax.load_config("base")
    checks.check(config)
    sources.check(config)
    assert config.model == base.model
    assert config.image == base.image
    layers = inference.restore("base").variables["params"]
    assert {"Dense_0"} < layers.keys() - {*config.optim.freeze} < layers.keys()
