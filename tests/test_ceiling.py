"""The ceiling: against exact values, and against labels simulated from known distributions."""

import numpy as np
import pytest
from scipy import stats

from fer_jax.data import labels
from fer_jax.evaluation import ceiling
from fer_jax.evaluation.ceiling import Prior


def votes_of(**counts: int) -> np.ndarray:
    return np.array([[counts.get(name, 0) for name in labels.VOTES]])


def test_one_image_of_two_emotions_by_the_beta_distribution() -> None:
    """With a prior by class only the two voted emotions are possible: theta is Beta(7 + 0.7, 3 + 0.3)."""
    votes = votes_of(neutral=7, sadness=3)
    posterior = ceiling.ceiling(votes, np.array([0]), "majority", Prior(1.0, by_class=True), draws=40_000)
    theta = stats.beta(7.7, 3.3)
    assert posterior.accuracy[0] == pytest.approx(theta.sf(0.5), abs=0.01)
    assert posterior.another_vote[0] == pytest.approx(7.7 / 11)
    # Ten new votes follow the beta-binomial. A single vote is dropped; six or more of ten are the majority.
    new = stats.betabinom(10, 7.7, 3.3)
    assert posterior.same_label[0] == pytest.approx(new.sf(5), abs=0.01)
    assert posterior.labelled[0] == pytest.approx(1 - new.pmf(5), abs=0.01)
    assert posterior.repeated == pytest.approx(new.sf(5) / (1 - new.pmf(5)), abs=0.01)


def test_a_uniform_prior_by_hand() -> None:
    posterior = ceiling.ceiling(votes_of(happiness=10), np.array([1]), "majority", Prior(2.0, by_class=False))
    assert posterior.another_vote[0] == pytest.approx(10.2 / 12)
    assert posterior.accuracy[0] > 0.99


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_it_is_the_accuracy_of_a_model_that_knows_simulated_distributions(weight: float) -> None:
    """Ten annotators vote from distributions drawn from the prior; knowing the votes alone, the ceiling is the rate at
    which the most likely emotion is the label, and the rates of a new label and of an eleventh vote are right too."""
    rng = np.random.default_rng(1)
    truth = rng.dirichlet(np.full(10, weight / 10), 12_000)
    votes, again = rng.multinomial(10, truth), rng.multinomial(10, truth)
    eleventh = rng.multinomial(1, truth).argmax(axis=1)
    target, keep = labels.targets(votes, "majority")
    label = target.argmax(axis=1)
    posterior = ceiling.ceiling(votes[keep], label[keep], "majority", Prior(weight, by_class=False), draws=50)

    correct = truth[keep, :8].argmax(axis=1) == label[keep]
    assert posterior.accuracy.mean() == pytest.approx(correct.mean(), abs=0.01)
    assert posterior.another_vote.mean() == pytest.approx((eleventh == label)[keep].mean(), abs=0.015)
    new_target, new_keep = labels.targets(again, "majority")
    both = keep & new_keep
    assert posterior.labelled.mean() == pytest.approx(both.sum() / keep.sum(), abs=0.015)
    assert posterior.repeated == pytest.approx((new_target.argmax(axis=1) == label)[both].mean(), abs=0.01)
    unsure = votes[keep].max(axis=1) < 8  # and so for the images on which the annotators disagree
    assert posterior.accuracy[unsure].mean() == pytest.approx(correct[unsure].mean(), abs=0.03)
