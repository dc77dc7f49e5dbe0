"""The plots of a study: positions on their scales, and every text legible."""

import numpy as np
import pytest
from legible import check, words

from fer_jax.search import study_plots


def test_numbers_have_linear_or_logarithmic_positions() -> None:
    even = study_plots.numbers([1.0, 3.0, 5.0], 1.0, 5.0)
    np.testing.assert_allclose(even.positions, [0, 0.5, 1])
    assert even.ticks == [(0, "1"), (0.5, "3"), (1, "5")]
    log = study_plots.numbers([1e-4, 1e-3, 1e-1], 1e-4, 1e-1, log=True)
    np.testing.assert_allclose(log.positions, [0, 1 / 3, 1])
    assert [text for _, text in log.ticks] == ["0.0001", "0.00316", "0.1"]


def test_choices_have_different_positions_around_their_tick() -> None:
    scale = study_plots.choices(["b", "a", "b"], ["a", "b"])
    a, b = (position for position, _ in scale.ticks)
    assert abs(scale.positions[1] - a) < abs(scale.positions[1] - b)
    assert all(abs(scale.positions[[0, 2]] - b) < abs(scale.positions[[0, 2]] - a))
    assert scale.positions[0] != scale.positions[2]
    assert study_plots.choices([()], [(), (1, 2)]).ticks[1][1] == "(1, 2)"


def test_parallel_coordinates_have_a_line_for_each_trial_and_the_best_on_top() -> None:
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.7, 0.8, 30)
    fields = {
        "optim.learning_rate": study_plots.numbers(rng.uniform(1e-3, 1e-2, 30), 1e-3, 1e-2, log=True),
        "augment.recipe": study_plots.choices(["none", "ferplus"] * 15, ["none", "emotion_cnn", "ferplus"]),
        "schedule.warmup_epochs": study_plots.numbers(rng.uniform(0, 1, 30), 0, 1),
    }
    figure = study_plots.parallel(fields, accuracy, "tune")
    check(figure)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(fields) + 1]
    assert len(lines) == 30
    best = int(accuracy.argmax())
    np.testing.assert_allclose(lines[-1].get_xdata(), [*(scale.positions[best] for scale in fields.values()), 1])
    assert lines[-1].get_linewidth() > lines[0].get_linewidth()
    assert "30 trials" in words(figure)


@pytest.mark.slow
@pytest.mark.parametrize(
    "importances", [{"optim.learning_rate": 1.0, "model.dropout": 0.0}, {f"model.f{i}": 0.1 for i in range(10)}]
)
def test_the_importance_plot_has_a_bar_for_each_field(importances: dict[str, float]) -> None:
    figure = study_plots.importance(
        importances, 50, "a study with a name so long that its title takes another line or two"
    )
    check(figure)
    assert [patch.get_width() for patch in figure.axes[0].patches] == list(importances.values())
    for name, importance in importances.items():
        assert f" {importance:.0%}" in words(figure)
        assert name in words(figure)
