import io
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import run_python
from legible import check, segments, shown_texts, words
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from PIL import Image

from fer_jax.data.labels import EMOTIONS
from fer_jax.reporting import plots, style
from fer_jax.training.history import EpochRecord

pytestmark = pytest.mark.filterwarnings("error")
NONE = (np.nan, np.nan, np.nan)
LONG = "a run with a long name, averaged with its mirror images, temperature 0.871, validation, majority"


class Part(NamedTuple):
    low: float
    high: float
    count: int  # type: ignore[assignment]
    accuracy: tuple[float, float, float]


def lines_of(axes: Any) -> np.ndarray:
    return np.concatenate([segments(c) for c in axes.collections if isinstance(c, LineCollection)])


def legend(figure: Any) -> list[str]:
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for each in legends for text in each.get_texts()]


def history(accuracies: list[float]) -> list[EpochRecord]:
    def scalars(accuracy: float) -> dict[str, float]:
        return {"loss": 2 - accuracy, "accuracy": accuracy, "macro_f1": accuracy / 2}

    return [
        EpochRecord(epoch=i + 1, step=i + 1, train=scalars(a / 2), valid=scalars(a), learning_rate=0.1 * a)
        for i, a in enumerate(accuracies)
    ]


def test_confusion_shows_fractions_and_counts_of_each_row() -> None:
    counts = np.zeros((8, 8), int)
    counts[0, :3] = [997, 2, 1]
    counts[7, 6] = 3000
    figure: Any = plots.confusion(counts, "base, valid")
    axes = figure.axes[0]
    fraction = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(fraction[0, :3], [0.997, 0.002, 0.001])
    assert fraction[7, 6] == 1
    assert fraction[1].sum() == 0  # a label without images
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[0, 0] == "100%\n997"
    assert cells[1, 0] == "<1%\n2"  # x is the prediction, y the label
    assert cells[6, 7] == "100%\n3,000"
    assert cells[3, 3] == "0"
    assert [label.get_text() for label in axes.get_xticklabels()] == list(EMOTIONS)
    assert axes.get_yticklabels()[7].get_text() == "contempt\n3,000"
    assert figure.get_suptitle() == "Confusion matrix:\nbase, valid, 4,000 images"
    assert axes.yaxis_inverted()  # the first label is on top
    check(figure)


def test_reliability_draws_accuracy_gap_and_the_curve_after_scaling() -> None:
    confidence, accuracy = np.array([np.nan, 0.4, 0.6, 0.9]), np.array([np.nan, 0.5, 0.6, 0.7])
    after = (np.array([0.2, 0.4, np.nan, 0.8]), np.array([0.1, 0.4, np.nan, 0.8]), np.array([10, 20, 0, 70]), 0.012)
    figure: Any = plots.reliability(confidence, accuracy, np.array([0, 2, 3, 5]), 0.12, "base", after=after)
    upper, lower = figure.axes
    bars, gaps = upper.containers
    centres = [0.125, 0.375, 0.625, 0.875]
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in bars], centres)
    np.testing.assert_allclose([bar.get_height() for bar in bars], accuracy)
    ends = [(gap.get_y(), gap.get_y() + gap.get_height()) for gap in gaps]
    np.testing.assert_allclose(ends, np.stack([accuracy, confidence], axis=1))
    assert all(gap.get_hatch() for gap in gaps)
    curves = {line.get_label(): line.get_xydata() for line in upper.lines}
    np.testing.assert_allclose(curves["accuracy = confidence"], [[0, 0], [1, 1]])
    np.testing.assert_allclose(curves["after temperature scaling (ECE 1.2%)"], [[0.2, 0.1], [0.4, 0.4], [0.8, 0.8]])
    assert "gap to mean confidence (ECE 12.0%)" in legend(figure)
    assert {text.get_text(): text.get_position()[0] for text in upper.texts} == {"2": 0.375, "3": 0.625, "5": 0.875}
    assert [bar.get_height() for bar in lower.containers[0]] == [0, 2, 3, 5]
    np.testing.assert_array_equal(lower.patches[-1].get_data().values, [10, 20, 0, 70])
    assert upper.get_xlim() == upper.get_ylim() == (0, 1)
    assert lower.get_ylim()[0] == 0
    check(figure)
    plain = plots.reliability(confidence, accuracy, np.array([0, 2, 3, 5]), 0.12, "base")
    assert not any("after" in text for text in legend(plain))


def test_points_of_one_or_two_images_are_faint_and_off_the_curve() -> None:
    count, values = np.array([0, 1, 2, 3]), np.array([np.nan, 0.4, 0.6, 0.8])
    figure: Any = plots.reliability(values, values - 0.1, count, 0.1, "base", after=(values, values, count, 0.1))
    upper, _ = figure.axes
    for bars in upper.containers:
        assert [bar.get_alpha() for bar in bars] == [None, style.FAINT, style.FAINT, None]
    _, curve, faint = upper.lines
    assert curve.get_alpha() is None
    np.testing.assert_allclose(curve.get_xdata(), [0.8])
    assert faint.get_alpha() == style.FAINT
    np.testing.assert_allclose(faint.get_xdata(), [0.4, 0.6])

    points = [(0.1 * n, n, (0.5, 0.2, 0.8)) for n in (1, 2, 3, 4)]
    figure = plots.agreement(points, "base")
    _, curve, faint = figure.axes[0].lines
    np.testing.assert_allclose(curve.get_xdata(), [0.3, 0.4])
    np.testing.assert_allclose(faint.get_xdata(), [0.1, 0.2])
    assert faint.get_linestyle() == "None"
    (whiskers,) = (c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    assert whiskers.get_alpha().tolist() == [style.FAINT, style.FAINT, 1, 1]


def test_reliability_of_one_image() -> None:
    count = np.eye(15, dtype=int)[12]
    filled = np.where(count, 1.0, np.nan)
    figure: Any = plots.reliability(filled * 0.83, filled * 0, count, 0.83, LONG)
    check(figure)
    assert figure.get_suptitle().replace("\n", " ").endswith("majority, 1 image")


def test_class_bars_have_the_height_of_f1_and_whiskers_of_the_interval() -> None:
    f1 = {emotion: (0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.2) for i, emotion in enumerate(EMOTIONS)}
    f1["contempt"] = NONE  # neither labelled nor predicted
    figure: Any = plots.class_bars(f1, [1200, *range(1, 7), 0], "base")
    axes = figure.axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0])
    np.testing.assert_allclose(lines_of(axes)[:, :, 1], [f1[emotion][1:] for emotion in EMOTIONS[:7]])
    np.testing.assert_allclose(lines_of(axes)[:, 0, 0], [bar.get_x() + 0.36 for bar in axes.patches[:7]])
    assert [text.get_text() for text in axes.texts] == ["0%", "10%", "20%", "30%", "40%", "50%", "60%", "none"]
    assert axes.get_xticklabels()[0].get_text() == "neutral\n1,200"
    assert axes.get_ylim() == (0, 1)
    assert "1,221 images" in figure.get_suptitle()
    check(figure)


@pytest.mark.parametrize(("accuracies", "best"), [([0.5, 0.7, 0.6, 0.7], 2), ([0.4], 1), ([0.5] * 150, 1)])
def test_training_curves_follow_the_history_and_mark_the_best_epoch(accuracies: list[float], best: int) -> None:
    figure: Any = plots.training_curves(history(accuracies), "base")
    epochs = range(1, len(accuracies) + 1)
    expected = np.array([[2 - np.array(accuracies)], [accuracies], [np.array(accuracies) / 2]])
    for axes, valid in zip(figure.axes, expected, strict=False):
        curves = {line.get_label(): line.get_xydata() for line in axes.lines}
        np.testing.assert_allclose(curves["validation"], np.stack([epochs, valid[0]], axis=1))
    train, _, mark = figure.axes[1].lines[:3]
    np.testing.assert_allclose(train.get_ydata(), np.array(accuracies) / 2)
    assert set(mark.get_xdata()) == {best}
    assert f"best epoch {best}: {max(accuracies):.1%}" in legend(figure)
    np.testing.assert_allclose(figure.axes[3].lines[0].get_ydata(), 0.1 * np.array(accuracies))
    assert figure.axes[3].get_ylim()[0] == 0
    ticks = [tick for tick in figure.axes[3].get_xticks() if 0.4 <= tick <= len(accuracies) + 0.6]
    assert ticks
    assert all(tick == int(tick) for tick in ticks)  # there is no epoch 0.975
    check(figure)


def test_agreement_shows_the_model_next_to_an_annotator() -> None:
    points = [(0.5, 100, (0.6, 0.5, 0.7)), (0.7, 0, NONE), (1.0, 300, (0.9, 0.85, 0.95))]
    figure: Any = plots.agreement(points, "base")
    upper, lower = figure.axes
    assert legend(figure) == [
        "one annotator (mean 87.5%)",
        "model (mean 82.5%)",
    ]  # (0.5 + 3 x 1) / 4, (0.6 + 3 x 0.9) / 4
    diagonal, model = upper.lines
    np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(model.get_xydata(), [[0.5, 0.6], [1, 0.9]])
    whiskers = lines_of(upper)
    np.testing.assert_allclose(whiskers, [[[0.5, 0.5], [0.5, 0.7]], [[1, 0.85], [1, 0.95]]])
    assert [bar.get_height() for bar in lower.patches] == [100, 0, 300]
    assert [text.get_text() for text in lower.texts] == ["100", "0", "300"]
    check(figure)
    check(plots.agreement([(1.0, 1, (1.0, 0.2, 1.0))], LONG))
    check(plots.agreement([(i / 10, 1000, (i / 10, 0.0, 1.0)) for i in range(1, 11)], LONG))


def test_slices_are_rows_from_low_to_high_about_the_accuracy_of_all() -> None:
    measures = {
        "sharpness": [Part(0.125, 1.5, 30, (0.6, 0.4, 0.7)), Part(1.5, 25613.2, 10, (1.0, 0.8, 1.0))],
        "contrast": [Part(7, 7, 40, (0.7, 0.5, 0.8))],
    }
    figure: Any = plots.slices(measures, "base")
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["sharpness", "contrast"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["0.125 to 1.5 (30)", "1.5 to 25,613 (10)"]
    dots, overall = first.lines
    np.testing.assert_allclose(dots.get_xydata(), [[0.6, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(lines_of(first)[:, :, 0], [[0.4, 0.7], [0.8, 1]])
    np.testing.assert_allclose(overall.get_xdata(), 0.7)  # (30 x 0.6 + 10 x 1) / 40
    assert second.get_xlabel() == "accuracy (dashed: all images, 70.0%)"
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the lowest slice is on top
    left, right = first.get_xlim()
    assert left < 0.4
    assert right == 1  # no accuracy beyond
    assert second.get_xlim() == (left, right)
    assert "40 images" in figure.get_suptitle()
    check(figure)
    check(plots.slices({"sharpness": [Part(1, 1, 0, NONE)]}, LONG))


def test_forest_has_a_row_for_each_model_and_a_panel_for_each_metric() -> None:
    rows = {
        "base": {"accuracy": (0.85, 0.84, 0.86), "macro F1": (0.65, 0.6, 0.7)},
        "an ensemble of base, vgg13 and emotion_cnn": {"accuracy": (0.87, 0.86, 0.88), "macro F1": NONE},
    }
    figure: Any = plots.forest(rows, 3199, "valid, majority")
    accuracy, f1 = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["accuracy", "macro F1"]
    np.testing.assert_allclose(accuracy.lines[0].get_xydata(), [[0.85, 0], [0.87, 1]])
    np.testing.assert_allclose(lines_of(accuracy)[:, :, 0], [[0.84, 0.86], [0.86, 0.88]])
    assert [label.get_text().replace("\n", " ") for label in accuracy.get_yticklabels()] == list(rows)
    assert [text.get_text() for text in f1.texts] == ["65.0%", "none"]
    assert "valid, majority, 3,199 images" in figure.get_suptitle()
    check(figure)
    check(plots.forest({"oracle": {"accuracy": (1.0, 1.0, 1.0)}}, 1, LONG))
    check(plots.forest({f"model {i}": {"accuracy": (0.1 * i, 0.0, 1.0)} for i in range(8)}, 10, LONG))


def test_png_and_pixels_are_the_same_image() -> None:
    figure: Any = plots.class_bars(dict.fromkeys(EMOTIONS, (0.5, 0.4, 0.6)), [1] * 8, "base")
    image = plots.pixels(figure)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(plots.png(figure))).convert("RGB")), image)


def test_colours_differ_in_grey_print() -> None:
    def grey(colour: str) -> float:
        return float(np.dot(to_rgb(colour), [0.299, 0.587, 0.114]))

    # neighbours on a plot: text, curves, bars, their 100%
    for a, b in pairwise(["black", style.BLUE, style.ORANGE, "#E3E3E3"]):
        assert grey(b) - grey(a) > 0.2
    assert grey(style.SKY) - grey(style.BLUE) > 0.2


def test_no_text_escapes_the_check_and_a_title_may_be_long() -> None:
    figure: Any = plots.confusion(np.eye(8, dtype=int), " ".join([LONG] * 3))
    assert "8 images" in words(figure)
    assert len(shown_texts(figure)) == 1 + 64 + 16 + 2 + 3 + 1  # title, cells, ticks, axes, bar's ticks, bar's label
    check(figure)
    figure.axes[0].text(5, 5.2, "too near")
    with pytest.raises(AssertionError, match="lies on"):
        check(figure)
    figure.axes[0].texts[-1].remove()
    figure.text(0.95, 0.5, "over the edge")
    with pytest.raises(AssertionError, match="edge"):
        check(figure)


def test_plots_need_neither_pyplot_nor_jax_nor_scikit_learn() -> None:
    program = (
        "import sys, numpy; from fer_jax.reporting import galleries, plots; "
        "plots.png(plots.confusion(numpy.eye(8), '')); galleries.gallery(*[numpy.zeros((0, 48, 48))] * 4, ''); "
        "print([name for name in ('matplotlib.pyplot', 'jax', 'sklearn') if name in sys.modules])"
    )
    assert run_python("-c", program).stdout == "[]\n"
