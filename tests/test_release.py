"""Releases: the files of the folder, the card's text and metrics, what is refused."""

import shlex
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from ml_collections import ConfigDict

import fer_jax
from fer_jax import inference
from fer_jax.core import config as config_lib
from fer_jax.core import run_folder, shipped
from fer_jax.core.errors import UserError
from fer_jax.core.run_folder import GRAPH, PREDICTIONS, WEIGHTS
from fer_jax.data import soft_targets
from fer_jax.data.labels import EMOTIONS
from fer_jax.data.soft_targets import SoftTargets
from fer_jax.deploy import model_card
from fer_jax.deploy.release import commands, release
from fer_jax.evaluation import evaluator
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import weights
from fer_jax.models import registry
from fer_jax.reporting import document, report, tables
from fer_jax.training import checkpoint, setup
from fer_jax.training import metrics as metrics_lib
from fer_jax.training.checkpoint import Progress
from fer_jax.training.history import EpochRecord
from tests import quick

HISTORY = [EpochRecord(epoch, 4 * epoch, {}, {"accuracy": 0.3 + epoch / 10}, 0.1) for epoch in (1, 2)]


def saved_run(run: Path, data_dir: Path, history: list[EpochRecord] = HISTORY) -> None:
    """A run folder of an untrained network that the last of its epochs is the best of; without epochs, of its start."""
    config = quick.get_config()
    config.data.dir = str(data_dir)
    config.train.epochs = 2
    run_folder.claim(run, config)
    tree = {"state": setup.create_train_state(config), "totals": metrics_lib.zeros()}
    with closing(checkpoint.open_manager(run)) as manager:
        if not history:
            checkpoint.save(manager, 2, tree, Progress([], 4), None)
        for record in history:
            checkpoint.save(manager, record.step, tree, Progress(history[: record.epoch], 4), record.valid["accuracy"])


@pytest.fixture(scope="module")
def tiny(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Evaluation]:
    """A run folder, its released folder, and the evaluation in its card."""
    base_dir = tmp_path_factory.mktemp("release")
    run, out = base_dir / "experiments" / "tiny", base_dir / "pretrained" / "tiny"
    saved_run(run, sample_dir)
    soft_targets.save(run / PREDICTIONS, SoftTargets(np.zeros(1, "S16"), np.full((1, 8), 1 / 8)))
    return run, out, release(run, out, "best")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_the_folder_holds_config_weights_predictions_and_card_only(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, out, _ = tiny
    files = contents(out)
    assert files.keys() == {"config.json", WEIGHTS, "network.onnx", PREDICTIONS, "README.md"}
    for name in ("config.json", PREDICTIONS):
        assert files[name] == (run / name).read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]
    parameters = registry.count_parameters(inference.restore(run, "best").variables)
    assert 4 * parameters < len(files[WEIGHTS]) < 4 * parameters + 20_000


@pytest.mark.slow
def test_the_card_has_the_metrics_of_an_evaluation_of_the_run(
    tiny: tuple[Path, Path, Evaluation], sample_dir: Path
) -> None:
    run, out, _ = tiny
    card = (out / "README.md").read_text()
    data = evaluator.load_data(str(sample_dir), "valid")
    original, released = (
        evaluator.evaluate(
            evaluator.predict_splits("tiny", inference.restore(folder, "best"), data, flip=False), data, "majority"
        )
        for folder in (run, out)
    )
    assert tables.as_json(original) == tables.as_json(released)
    for block in (tables.main_table(original), tables.duplicates_table(original), tables.class_table(original)):
        assert document.to_markdown("", [block]).split("\n", 2)[2] in card
    assert f"**{tables.verdict(original)}**" in card
    assert f"A temperature of {original.temperature:.3f}, fitted on validation" in card
    assert document.to_markdown("", report.calibrated(original)[1:2]).split("\n", 2)[2] in card


def test_the_card_describes_the_network_and_its_use(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, out, result = tiny
    card = (out / "README.md").read_text()
    sections = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    for name in ("Model details", "Intended use", "Out-of-scope use", "Training data", "Evaluation", "Calibration"):
        assert name in sections
    for name in ("Limitations", "Licence of the data", "How to use it", "How to reproduce it"):
        assert name in sections
    network = inference.restore(run, "best")
    assert f"{registry.count_parameters(network.variables['params']):,} parameters" in card
    assert "best checkpoint, moving average of the weights with decay 0.998, of step 8, after 2 of 2 epochs" in card
    assert "Article\n  5(1)(f)" in card
    assert f"python -m fer_jax.evaluate --run {out} --split valid --data {network.config.data.dir}\n" in card
    assert f'fer_jax.load("{out}")' in card
    assert "checkpoint is that of the epoch with the highest validation accuracy" in card
    latest = document.to_markdown("", model_card.page(network._replace(checkpoint="latest"), result, 1, ""))
    assert "not selected on validation" in latest
    named = network._replace(run=shipped.networks()["base"].parent / "next")
    assert 'fer_jax.load("next")' in document.to_markdown("", model_card.page(named, result, 1, ""))


def test_the_card_names_images_that_are_not_those_of_fer2013(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, out, result = tiny
    network = inference.restore(run, "best")
    drawn, folder = (out / "README.md").read_text(), network.config.data.dir
    assert (
        f"The training images of the data folder `{folder}`, which are not those of FER2013, with their votes" in drawn
    )
    assert f"On the validation images of the data folder `{folder}`, each predicted once" in drawn
    assert f"The terms of the images in `{folder}`" in drawn
    of_fer2013 = document.to_markdown("", model_card.page(network, result, 1, ""))
    for text in ("FER+", "Kaggle", "the web of 2013", "cut out as in FER2013. It", "about ten annotators"):
        assert text not in drawn
        assert text in of_fer2013
    assert "--split valid --data data\n" in of_fer2013
    elsewhere = document.to_markdown("", model_card.page(network, result, 1, "", evaluated_on="my data"))
    assert "the training images of FER2013" in elsewhere
    assert "On the validation images of the data folder `my data`" in elsewhere
    assert "--data 'my data'\n" in elsewhere


def test_the_card_says_when_its_commands_train_longer(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, _, result = tiny
    network = inference.restore(run, "best")
    assert "The commands train" not in document.to_markdown("", model_card.page(network, result, 1, ""))
    network.config.train.epochs = 4
    text = "The commands train for 4 epochs; this network was released after 2."
    assert text in document.to_markdown("", model_card.page(network, result, 1, ""))


def test_the_weakest_classes_are_those_of_the_lowest_recall(tiny: tuple[Path, Path, Evaluation]) -> None:
    _, out, result = tiny
    predictions = result.predictions["majority"]
    predicted = predictions.log_probabilities.argmax(axis=1)
    recall = {c: (predicted[predictions.label == c] == c).mean() for c in np.unique(predictions.label)}
    text = model_card.weaknesses(result)
    assert text in (out / "README.md").read_text()
    named = sorted((text.index(f"**{EMOTIONS[c]}**"), c) for c in recall if f"**{EMOTIONS[c]}**" in text)
    assert [recall[c] for _, c in named] == sorted(recall.values())[: model_card.WEAKEST]
    first = named[0][1]
    wrong = predicted[(predictions.label == first) & (predicted != first)]
    confused, count = max(zip(*np.unique(wrong, return_counts=True), strict=True), key=lambda pair: pair[1])
    images = (predictions.label == first).sum()
    assert f"of {images:,} images (most often predicted as {EMOTIONS[confused]}: {count})" in text


def test_a_released_folder_is_released_again_to_the_same_bytes(
    tiny: tuple[Path, Path, Evaluation], sample_dir: Path
) -> None:
    _, out, _ = tiny
    before = contents(out)
    (out / "report").mkdir()  # of an evaluation of the replaced network
    release(out, out, "latest", str(sample_dir))
    assert contents(out) == before
    assert not (out / "report").exists()


def test_a_failure_leaves_the_earlier_release(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, out, _ = tiny
    before = contents(out)
    with pytest.raises(UserError, match="no valid data"):
        release(run, out, "best", "nowhere")
    with pytest.raises(UserError, match="no run in"):
        release(run / "none", out, "best")
    assert contents(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_only_a_released_folder_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_folder.check_replaceable(out)
    out.mkdir()
    run_folder.check_replaceable(out)
    (out / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no released network; choose another --out"):
        run_folder.check_replaceable(out)
    for name in (WEIGHTS, "README.md"):
        (out / name).touch()
    run_folder.check_replaceable(out)
    (out / "notes.txt").touch()
    with pytest.raises(UserError, match=r"also holds notes.txt; move it away"):
        run_folder.check_replaceable(out)
    with pytest.raises(UserError, match="is not a folder"):
        run_folder.check_replaceable(out / "notes.txt")
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(UserError, match="is not a folder"):
        run_folder.check_replaceable(tmp_path / "link")


def changed(config: ConfigDict) -> ConfigDict:
    config.seed = 11
    config.data.dir = "my data"
    config.schedule.name, config.schedule.boundaries, config.schedule.scales = "step", (3, 6), (0.5,)
    config.optim.learning_rate = 1e-5
    config.data.drop_repeats = True
    return config


@pytest.mark.parametrize(
    ("config", "run", "file"),
    [
        (fer_jax.load_config("base"), "base", "base.py"),
        (fer_jax.load_config("vgg13"), "seed1", "vgg13.py"),
        (changed(fer_jax.load_config("emotion_cnn")), "emotion_cnn", "emotion_cnn.py"),
        (changed(fer_jax.load_config("base")), "base", "base.py"),
    ],
)
def test_the_training_command_of_the_card_gives_the_config_again(config: ConfigDict, run: str, file: str) -> None:
    train, released = commands(Path("runs") / run, Path("pretrained/it"), config, "latest").splitlines()
    *start, option, folder = shlex.split(train)[:7]
    assert start == ["python", "-m", "fer_jax.main", "--config", f"configs/{file}"]
    assert (option, folder) == ("--workdir", f"experiments/{run}")
    assert f"--config.seed={config.seed}" in train
    assert config_lib.load(f"configs/{file}", shlex.split(train)[7:]).to_json() == config.to_json()
    assert (
        released == f"python -m fer_jax.release --run experiments/{run} --out pretrained/it-again --checkpoint latest"
    )


def test_the_training_commands_begin_with_the_runs_that_the_weights_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def trained(name: str, config: ConfigDict) -> ConfigDict:
        folder = Path("experiments", name)
        folder.mkdir(parents=True)
        run_folder.write_config(folder, config)
        return config

    first = changed(fer_jax.load_config("small"))
    trained("first", first)
    second = fer_jax.load_config("base")
    second.train.init_from, second.seed = "experiments/first", 2
    trained("second", second)
    config = fer_jax.load_config("base")
    config.train.init_from = "experiments/second"
    lines = commands(Path("runs/third"), Path("pretrained/it"), config, "latest").splitlines()
    assert len(lines) == 4
    for line, expected, folder, file in zip(
        lines[:3],
        (first, second, config),
        ("first", "second", "third"),
        ("small.py", "base.py", "base.py"),
        strict=True,
    ):
        words = shlex.split(line)
        assert words[3:7] == ["--config", f"configs/{file}", "--workdir", f"experiments/{folder}"]
        assert config_lib.load(str(ROOT / "configs" / file), words[7:]).to_json() == expected.to_json()
    assert lines[3].startswith("python -m fer_jax.release --run experiments/third ")

    Path("experiments/broken").mkdir()
    Path("experiments/broken/config.json").write_text("{")
    for other in ("experiments/gone", "experiments/broken", "base"):  # the last is a released network
        config.train.init_from = other
        assert len(commands(Path("runs/third"), Path("pretrained/it"), config, "latest").splitlines()) == 2

    config.train.init_from = "experiments/second"  # its name is taken
    *_, train, released = commands(Path("runs/second"), Path("pretrained/it"), config, "latest").splitlines()
    assert "--workdir experiments/second-again " in train
    assert "--run experiments/second-again " in released

    second.train.init_from = "experiments/second"  # trained again in the place of its source, which is gone
    run_folder.write_config(Path("experiments/second"), second)
    assert len(commands(Path("runs/third"), Path("pretrained/it"), config, "latest").splitlines()) == 2


@pytest.mark.slow
def test_half_is_in_the_card_and_stays(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, out, _ = tiny
    half = out.parent / "half"
    release(run, half, "best", half=True)
    release(half, half, "best")  # again: rounded kernels stay rounded
    card = (half / "README.md").read_text()
    assert "float32, kernels in float16, no pickle" in card
    assert "--checkpoint best --half" in card
    assert weights.is_half(half)
    assert not weights.is_half(out)
    assert {path.name for path in half.iterdir()} == {"README.md", "config.json", WEIGHTS, GRAPH, PREDICTIONS}
    shutil.rmtree(half)


def test_the_card_names_the_origin_of_the_weights(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, _, result = tiny
    network = inference.restore(run, "best")
    network.config.model.update(width=1.0, depth=1)
    card = document.to_markdown("", model_card.page(network, result, 1, ""))
    assert "(JAX, Flax), " in card
    assert "parameters, trained from scratch." in card
    assert "images an epoch. No other images.\n" in card
    network.config.model.update(depth=2, squeeze_excite=True)
    card = document.to_markdown("", model_card.page(network, result, 1, ""))
    assert "(JAX, Flax) with `model.depth=2`, `model.squeeze_excite=True`, " in card
    network.config.data.update(teachers=("a", "b.npz"), teacher_share=0.25)
    network.config.train.init_from = "pretrained/base"
    network.config.augment.update(recipe="camera", final_recipe="flip", final_epochs=3)
    network.config.optim.update(ema_decay=0.0, swa_epochs=3)
    network.config.train.epochs = 20
    card = document.to_markdown("", model_card.page(network, result, 1, ""))
    targets = "25% of each target from the predictions of `a`, in `b.npz`"
    assert f"trained from the weights of `pretrained/base`, {targets}." in card
    earlier = "apart from the training images of `pretrained/base` and of its teachers"
    assert f"images an epoch. No other images, {earlier}.\n" in card
    assert "augmentation `camera`, optimizer" in card  # before the last epochs begin
    assert "best checkpoint, of step 8" in card  # before the mean begins
    network.config.train.epochs = 4
    card = document.to_markdown("", model_card.page(network, result, 1, ""))
    assert "best checkpoint, mean of the weights of the last 3 epochs, of step 8" in card
    assert "augmentation `camera`, then `flip` in the last 3 epochs, optimizer" in card


def test_a_run_inside_its_first_epoch_is_not_released(sample_dir: Path, tmp_path: Path) -> None:
    saved_run(tmp_path / "run", sample_dir, [])
    with pytest.raises(UserError, match="has not finished an epoch"):
        release(tmp_path / "run", tmp_path / "out", "latest")
    assert not (tmp_path / "out").exists()
