"""Robustness: metrics by hand, the order of the predictions, report, JSON and card."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fer_jax import inference
from fer_jax.core import run_folder, shipped
from fer_jax.curation import suspects
from fer_jax.data import folders, labels
from fer_jax.deploy import model_card
from fer_jax.evaluation import evaluator, robustness
from fer_jax.evaluation.corruptions import CORRUPTIONS, corrupt
from fer_jax.evaluation.metrics import Predictions
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import weights
from fer_jax.inference.weights import Weights
from fer_jax.models import registry
from fer_jax.reporting import document, plots, report, robustness_report, tables
from fer_jax.reporting.evaluate_runs import evaluate_runs
from fer_jax.training.history import EpochRecord
from fer_jax.training.network import build_network
from tests.small_runs import tiny_config

LABEL = np.array([0, 0, 0, 1])
VOTES = 10 * np.eye(10, dtype=int)[LABEL]
CLEAN = Predictions(np.log(0.9 * np.eye(8) + 0.0125)[LABEL], LABEL, VOTES)


def predicting(wrong: dict[int, int]) -> np.ndarray:
    """The log probabilities of labels, except for `wrong`: row and class."""
    prediction = LABEL.copy()
    prediction[list(wrong)] = list(wrong.values())
    return np.log(0.9 * np.eye(8) + 0.0125)[prediction]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a released network, which nobody has trained."""
    folder, config = tmp_path_factory.mktemp("runs") / "untrained", tiny_config()
    variables = registry.init(build_network(config).model, 0, config.image.size)
    metrics = {"loss": 2.0, "accuracy": 0.2, "macro_f1": 0.1}
    with run_folder.claim(folder, config):
        weights.save(folder, Weights(variables, "best", 4, 1, [EpochRecord(1, 4, metrics, metrics, 0.1)]))
    return folder


def test_means_and_strengths_by_hand() -> None:
    """The last image is wrong at strengths 4 and 5 of all corruptions, the first one at each strength of the blur."""
    values = np.tile(predicting({}), (len(CORRUPTIONS), 5, 1, 1))
    values[:, 3:] = predicting({3: 0})
    blur = list(CORRUPTIONS).index("blur")
    values[blur, :3], values[blur, 3:] = predicting({0: 2}), predicting({0: 2, 3: 0})
    subsets = {"all": np.ones(4, bool), "without_duplicates": LABEL == 0, "without_exact_duplicates": LABEL > 1}
    result = robustness.measure(values, CLEAN, subsets)

    np.testing.assert_allclose(result.by_strength["shift"]["accuracy"], [1, 1, 1, 0.75, 0.75])
    np.testing.assert_allclose(result.by_strength["shift"]["balanced_accuracy"], [1, 1, 1, 0.5, 0.5])
    np.testing.assert_allclose(result.by_strength["blur"]["accuracy"], [0.75, 0.75, 0.75, 0.5, 0.5])
    np.testing.assert_allclose(result.by_strength["blur"]["balanced_accuracy"], [5 / 6] * 3 + [1 / 3] * 2)
    others = len(CORRUPTIONS) - 1
    means = result.mean["all"]
    assert means["accuracy"].value == pytest.approx((others * 0.9 + 0.65) / (others + 1))
    assert means["balanced_accuracy"].value == pytest.approx((others * 0.8 + (3 * 5 / 6 + 2 / 3) / 5) / (others + 1))
    assert result.mean["without_duplicates"]["accuracy"].value == pytest.approx((others + 2 / 3) / (others + 1))
    assert result.mean.keys() == {"all", "without_duplicates"}  # the other one has no image
    # A replica of four draws may hold the last image up to four times, or never.
    assert means["accuracy"].low < 0.8 < means["accuracy"].value < means["accuracy"].high <= 1


def test_every_condition_is_predicted_in_its_place(run: Path, sample_dir: Path) -> None:
    network = inference.restore(run)
    images = folders.load(str(sample_dir), "valid").images[:8]
    lines: list[str] = []
    log_probs = robustness.predict(network, images, flip=True, report=lines.append)
    assert log_probs.shape == (len(CORRUPTIONS), 5, 8, 8)
    for name, strength in (("shift", 1), ("noise", 5), ("occlusion", 2)):
        expected = inference.log_probabilities(network, corrupt(images, name, strength), flip=True)
        np.testing.assert_allclose(log_probs[list(CORRUPTIONS).index(name), strength - 1], expected, atol=1e-5)
    assert [line.split(": ")[1] for line in lines] == list(CORRUPTIONS)


@pytest.fixture(scope="module")
def result(sample_dir: Path) -> Evaluation:
    """A model that predicts labels, and on corrupted images always neutral."""
    data = evaluator.load_data(str(sample_dir), "valid")
    label = data.split.votes[:, :8].argmax(axis=1)
    log_probs = np.log(0.9 * np.eye(8) + 0.0125)[label]
    model = evaluator.Model("oracle", log_probs, log_probs)
    evaluation = evaluator.evaluate(model, data, "majority")
    neutral = np.log(0.9 * np.eye(8) + 0.0125)[np.zeros(len(evaluation.rows), int)]
    return robustness.add(evaluation, np.tile(neutral, (len(CORRUPTIONS), 5, 1, 1)), data.subsets)


@pytest.mark.slow
def test_the_report_shows_means_strengths_and_parameters(result: Evaluation, sample_dir: Path) -> None:
    page = report.page(result, folders.load(str(sample_dir), "valid"), [], None, "An oracle.")
    text = document.to_markdown("Oracle", page)
    neutral = (result.main_predictions.label == 0).mean()
    assert "## Robustness" in text
    assert f"| mean accuracy | {neutral:.2%} (" in text
    assert f"| shift | {' | '.join([f'{neutral:.1%}'] * 6)} |" in text
    assert "rotation: 5, 10, 15, 20, 30 (degrees)" in text
    assert "robustness" in [block.name for block in page if isinstance(block, document.ImageBlock)]
    json = tables.as_json(result)["robustness"]
    assert json["mean"]["all"]["accuracy"][0] == pytest.approx(neutral)
    assert json["by_strength"].keys() == CORRUPTIONS.keys()
    without = tables.as_json(result._replace(robustness=None))
    assert "robustness" not in without


def test_the_plot_has_a_panel_for_each_corruption_from_strength_0_on(result: Evaluation) -> None:
    assert result.robustness
    figure = robustness_report.plot(result, result.robustness, "oracle, validation, majority")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in panels] == list(CORRUPTIONS)
    neutral = (result.main_predictions.label == 0).mean()
    np.testing.assert_allclose(panels[0].lines[0].get_ydata(), [1, *[neutral] * 5])
    assert plots.png(figure).startswith(b"\x89PNG")


def test_a_comparison_shows_it_where_all_models_have_it(result: Evaluation) -> None:
    assert "corrupted" in tables.models_table([result, result]).header
    assert "corrupted" not in tables.models_table([result, result._replace(robustness=None)]).header


@pytest.mark.slow
def test_runs_ensemble_and_card(
    run: Path, sample_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    names = folders.load(str(sample_dir), "train").names
    suspects.write_fold(sample_dir, tmp_path / "data", np.arange(len(names)) % 150 == 0)  # 8 images for validation
    first, second, both = evaluate_runs(
        [run, copy],
        data_dir=str(tmp_path / "data"),
        split="valid",
        checkpoint="best",
        protocol="clean",
        flip=False,
        ensemble=True,
        out=tmp_path / "comparison",
        with_robustness=True,
    )
    assert first.robustness
    assert second.robustness
    assert both.robustness
    for name in CORRUPTIONS:  # the mean of two equal models is the model
        for metric in robustness.METRICS:
            np.testing.assert_allclose(
                both.robustness.by_strength[name][metric], first.robustness.by_strength[name][metric], atol=0.02
            )
    assert f"11 of {len(CORRUPTIONS)} corruptions: occlusion" in capsys.readouterr().out
    card = document.to_markdown("", model_card.page(inference.restore(run), first, 1, ""))
    assert f"mean accuracy | {first.robustness.mean['all']['accuracy'].value:.2%}" in card


@pytest.mark.slow
def test_the_card_of_base_has_its_accuracy_on_corrupted_real_images(real_dir: Path) -> None:
    split = folders.load(str(real_dir), "valid")
    target, keep = labels.targets(split.votes, "majority")
    log_probs = inference.log_probabilities(inference.restore("base"), corrupt(split.images[keep], "blur", 5))
    accuracy = (log_probs.argmax(axis=1) == target[keep].argmax(axis=1)).mean()
    card = (shipped.networks()["base"] / "README.md").read_text()
    (row,) = (line.split(" | ") for line in card.splitlines() if line.startswith("| blur |"))
    assert float(row[5].rstrip("%")) == pytest.approx(100 * accuracy, abs=0.15)
