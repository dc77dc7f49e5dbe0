import shlex
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import quick
from fer_jax.experiment import build
from ml_collections import ConfigDict

from configs import base, emotion_cnn, vgg13
from fer_jax import evaluate, inference, release
from fer_jax.core import config as config_lib
from fer_jax.core.cli import UserError
from fer_jax.core.config import WEIGHTS
from fer_jax.data.labels import EMOTIONS
from fer_jax.deploy import model_card
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import weights
from fer_jax.models import registry
from fer_jax.reporting import document, report, tables
from fer_jax.training import checkpoint
from fer_jax.training import metrics as metrics_lib


def saved_run(run: Path, data_dir: Path) -> None:
    """A run folder of an untrained network that the last of two epochs is the best of."""
    config = quick.get_config()
    config.data.dir = str(data_dir)
    config.train.epochs = 2
    config_lib.claim(run, config)
    tree = {"state": build(config).init(), "totals": metrics_lib.zeros()}
    history = [{"epoch": 1, "step": 4}, {"epoch": 2, "step": 8}]
    with closing(checkpoint.open_manager(run)) as manager:
        checkpoint.save(manager, 4, tree, {"history": history[:1], "steps_per_epoch": 4}, 0.4)
        checkpoint.save(manager, 8, tree, {"history": history, "steps_per_epoch": 4}, 0.5)


@pytest.fixture(scope="module")
def tiny(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Evaluation]:
    """A run folder, what was released of it, and the figures that its card has."""
    base_dir = tmp_path_factory.mktemp("release")
    run, out = base_dir / "experiments" / "tiny", base_dir / "pretrained" / "tiny"
    saved_run(run, sample_dir)
    return run, out, release.release(run, out, "best")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_folder_holds_config_weights_and_card_alone(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, out, _ = tiny
    files = contents(out)
    assert files.keys() == {"config.json", WEIGHTS, "README.md"}
    assert files["config.json"] == (run / "config.json").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]
    parameters = registry.count_parameters(inference.restore(run, "best").variables)
    assert 4 * parameters < len(files[WEIGHTS]) < 4 * parameters + 20_000


def test_the_card_has_the_figures_that_evaluating_the_run_gives(
    tiny: tuple[Path, Path, Evaluation], sample_dir: Path
) -> None:
    run, out, _ = tiny
    card = (out / "README.md").read_text()
    data = evaluate.load(str(sample_dir), "valid")
    of_run, of_release = (
        evaluate.judge(evaluate.predict("tiny", inference.restore(folder, "best"), data, flip=False), data, "majority")
        for folder in (run, out)
    )
    assert tables.as_json(of_run) == tables.as_json(of_release)
    for block in (tables.main_table(of_run), tables.duplicates_table(of_run), tables.class_table(of_run)):
        assert document.to_markdown("", [block]).split("\n", 2)[2] in card
    assert f"A temperature of {of_run.temperature:.3f}, fitted on validation" in card
    assert document.to_markdown("", report.calibrated(of_run)[1:2]).split("\n", 2)[2] in card


def test_the_card_says_what_the_network_is_and_is_not_for(tiny: tuple[Path, Path, Evaluation]) -> None:
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
    assert f"python -m fer_jax.evaluate --run {out} --split valid" in card
    assert "Validation chose the checkpoint" in card
    latest = document.to_markdown("", model_card.page(network._replace(checkpoint="latest"), result, 1, ""))
    assert "validation did not choose it" in latest


def test_the_weakest_classes_are_those_of_the_lowest_recall(tiny: tuple[Path, Path, Evaluation]) -> None:
    _, out, result = tiny
    judged = result.predictions["majority"]
    predicted = judged.log_probabilities.argmax(axis=1)
    recall = {c: (predicted[judged.label == c] == c).mean() for c in np.unique(judged.label)}
    said = model_card.weaknesses(result)
    assert said in (out / "README.md").read_text()
    named = sorted((said.index(f"**{EMOTIONS[c]}**"), c) for c in recall if f"**{EMOTIONS[c]}**" in said)
    assert [recall[c] for _, c in named] == sorted(recall.values())[: model_card.WEAKEST]
    first = named[0][1]
    wrong = predicted[(judged.label == first) & (predicted != first)]
    taken_for, count = max(zip(*np.unique(wrong, return_counts=True), strict=True), key=lambda pair: pair[1])
    assert (
        f"of {(judged.label == first).sum():,} pictures (taken most often for {EMOTIONS[taken_for]}: {count})" in said
    )


def test_a_released_folder_is_released_again_to_the_same_bytes(
    tiny: tuple[Path, Path, Evaluation], sample_dir: Path
) -> None:
    _, out, _ = tiny
    before = contents(out)
    (out / "report").mkdir()  # an evaluation's, of what is replaced
    release.release(out, out, "latest", str(sample_dir))
    assert contents(out) == before
    assert not (out / "report").exists()


def test_what_fails_leaves_the_earlier_release(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, out, _ = tiny
    before = contents(out)
    with pytest.raises(UserError, match="no valid data"):
        release.release(run, out, "best", "nowhere")
    with pytest.raises(UserError, match="no run in"):
        release.release(run / "none", out, "best")
    assert contents(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_only_a_released_folder_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    release.check_replaceable(out)
    out.mkdir()
    release.check_replaceable(out)
    (out / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no released network; choose another --out"):
        release.check_replaceable(out)
    for name in (WEIGHTS, "README.md"):
        (out / name).touch()
    release.check_replaceable(out)
    (out / "notes.txt").touch()
    with pytest.raises(UserError, match=r"also holds notes.txt; move it away"):
        release.check_replaceable(out)
    with pytest.raises(UserError, match="no folder"):
        release.check_replaceable(out / "notes.txt")
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(UserError, match="no folder"):
        release.check_replaceable(tmp_path / "link")


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
        (base.get_config(), "base", "base.py"),
        (vgg13.get_config(), "seed1", "vgg13.py"),
        (changed(emotion_cnn.get_config()), "emotion_cnn", "emotion_cnn.py"),
        (changed(base.get_config()), "base", "base.py"),
    ],
)
def test_the_training_command_of_the_card_gives_the_config_again(config: ConfigDict, run: str, file: str) -> None:
    train, again = release.commands(Path("runs") / run, Path("pretrained/it"), config, "latest").splitlines()
    *start, option, folder = shlex.split(train)[:7]
    assert start == ["python", "-m", "fer_jax.main", "--config", f"configs/{file}"]
    assert (option, folder) == ("--workdir", f"experiments/{run}")
    assert f"--config.seed={config.seed}" in train
    assert config_lib.load(f"configs/{file}", shlex.split(train)[7:]).to_json() == config.to_json()
    assert again == f"python -m fer_jax.release --run experiments/{run} --out pretrained/it-again --checkpoint latest"


def test_half_is_said_in_the_card_and_kept(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, out, _ = tiny
    half = out.parent / "half"
    release.release(run, half, "best", half=True)
    release.release(half, half, "best")  # again: what was rounded stays so
    card = (half / "README.md").read_text()
    assert "float32, kernels in float16, no pickle" in card
    assert "--checkpoint best --half" in card
    assert weights.is_half(half)
    assert not weights.is_half(out)
    for folder in (half / "README.md", half / "config.json", half / WEIGHTS):
        folder.unlink()
    half.rmdir()


def test_the_card_says_where_a_network_began(tiny: tuple[Path, Path, Evaluation]) -> None:
    run, _, result = tiny
    network = inference.restore(run, "best")
    card = document.to_markdown("", model_card.page(network, result, 1, ""))
    assert "(JAX, Flax), " in card
    assert "parameters, trained from scratch." in card
    network.config.model.update(depth=2, squeeze_excite=True)
    card = document.to_markdown("", model_card.page(network, result, 1, ""))
    assert "(JAX, Flax) with `model.depth=2`, `model.squeeze_excite=True`, " in card
    network.config.data.update(teachers=("a", "b"), teacher_share=0.25)
    network.config.train.init_from = "pretrained/base"
    network.config.optim.update(ema_decay=0.0, swa_epochs=3)
    network.config.train.epochs = 20
    card = document.to_markdown("", model_card.page(network, result, 1, ""))
    assert "trained from the weights of `pretrained/base`, 25% of each target from `a`, `b`." in card
    assert "best checkpoint, of step 8" in card  # before the mean begins, the weights are those of the step
    network.config.train.epochs = 4
    card = document.to_markdown("", model_card.page(network, result, 1, ""))
    assert "best checkpoint, mean of the weights of the last 3 epochs, of step 8" in card


def test_a_run_inside_its_first_epoch_is_not_released(sample_dir: Path, tmp_path: Path) -> None:
    config = quick.get_config()
    config.data.dir = str(sample_dir)
    config_lib.claim(tmp_path / "run", config)
    tree = {"state": build(config).init(), "totals": metrics_lib.zeros()}
    with closing(checkpoint.open_manager(tmp_path / "run")) as manager:
        checkpoint.save(manager, 2, tree, {"history": [], "steps_per_epoch": 4}, None)
    with pytest.raises(UserError, match="has not finished an epoch"):
        release.release(tmp_path / "run", tmp_path / "out", "latest")
    assert not (tmp_path / "out").exists()
