"""The ceiling that ten annotators leave: the accuracy of a model that knew every image's true distribution of votes.

Ten votes show the true distribution of an image with chance errors, and so does the label that they give. By Bayes'
rule the true distribution has a Dirichlet posterior: prior plus votes. The label need not be its most likely emotion.
No model can know the chance errors of ten annotators, unless it has memorised a duplicate of the image.

The estimate assumes that an image's annotators draw independently from one distribution. The FER+ votes do not say who
gave them, so that cannot be tested.
"""

from typing import NamedTuple

import numpy as np

from fer_jax.data import labels
from fer_jax.data.labels import EMOTIONS, VOTES

DRAWS = 200  # of the posterior, for each image: over 3,199 images the mean then has an error of 0.03 points
CHUNK = 400  # images at a time, which bounds memory


class Prior(NamedTuple):
    """A Dirichlet prior of the true distributions."""

    weight: float  # the number of votes that it counts for
    by_class: bool  # in proportion to all votes of the split; else the same for each of the ten columns


# The votes of FER+'s validation images are most likely under a weight of 1.07 by class. Uniform priors and weights of
# 0.5 to 2 change the ceiling by 0.3 points (docs/results.md).
PRIOR = Prior(1.0, by_class=True)


class Ceiling(NamedTuple):
    """The posterior of N images."""

    # f64[N]: the probability that the label is the most likely emotion of the true distribution. Its mean is the
    # accuracy of a model that knows the true distributions.
    accuracy: np.ndarray
    another_vote: np.ndarray  # f64[N]: the probability that another annotator chooses the label
    same_label: np.ndarray  # f64[N]: the probability that as many new annotators give the same label...
    labelled: np.ndarray  # f64[N]: ...and that they give any: else the protocol drops the image

    @property
    def repeated(self) -> float:
        """The fraction of the labels by new annotators that are the same, 0..1."""
        return float(self.same_label.sum() / self.labelled.sum())


def ceiling(
    votes: np.ndarray, label: np.ndarray, protocol: str, prior: Prior = PRIOR, draws: int = DRAWS, seed: int = 0
) -> Ceiling:
    """Return the posterior of images that a protocol keeps.

    Args:
        votes: int[N, 10], in the order of `labels.VOTES`.
        label: int[N], their labels under the protocol.
        protocol: one of `labels.PROTOCOLS`.
        prior: of the true distributions.
        draws: of the posterior, for each image.
        seed: fixes them.
    """
    shape = votes.sum(axis=0) / max(votes.sum(), 1) if prior.by_class else np.full(len(VOTES), 1 / len(VOTES))
    alpha = votes + prior.weight * np.maximum(shape, 1e-6)  # a column without any vote stays possible
    rng = np.random.default_rng(seed)
    accuracy, same, labelled = (np.empty(len(votes)) for _ in range(3))
    for start in range(0, len(votes), CHUNK):
        rows = slice(start, start + CHUNK)
        gamma = rng.standard_gamma(alpha[rows], (draws, *alpha[rows].shape))
        accuracy[rows] = (gamma[..., : len(EMOTIONS)].argmax(axis=-1) == label[rows]).mean(axis=0)
        new = rng.multinomial(votes[rows].sum(axis=1), gamma / gamma.sum(axis=-1, keepdims=True))
        target, keep = labels.targets(new.reshape(-1, len(VOTES)), protocol)
        keep, new_label = keep.reshape(draws, -1), target.argmax(axis=1).reshape(draws, -1)
        labelled[rows] = keep.mean(axis=0)
        same[rows] = (keep & (new_label == label[rows])).mean(axis=0)
    another = alpha[np.arange(len(votes)), label] / alpha.sum(axis=1)
    return Ceiling(accuracy, another, same, labelled)
