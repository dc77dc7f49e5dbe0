"""From ten crowd votes per picture to training targets and reporting protocols.

One table, `MODES`, says of every way to read the votes which pictures it keeps, what target it makes,
whether a label is drawn anew each time a picture is used, and which loss goes with it. The rules are those
of Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution", section 3 (https://arxiv.org/abs/1608.01041), in detail as in the authors' code, src/ferplus.py of
https://github.com/microsoft/FERPlus. This module needs numpy alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTES = (*EMOTIONS, "unknown", "NF")  # the columns of a vote row; NF: not a face
PROTOCOLS = ("majority", "clean", "argmax")  # what figures are reported on; each is also a mode

MULTI_TARGET_SMOOTHING = 0.001

Targets = tuple[np.ndarray, np.ndarray]


class Mode(NamedTuple):
    """One way to read votes: `select` makes (target, keep); the rest says how training uses it."""

    select: Callable[[np.ndarray], Targets]
    sampled: bool = False  # draw one label from the target each time the picture is used
    loss: str = "cross_entropy"  # a key of fer_jax.training.losses.LOSSES
    multi_hot: bool = False  # targets are multi-hot, not distributions: they can be neither softened nor mixed


def targets(votes: np.ndarray, mode: str) -> Targets:
    """Targets and kept pictures of vote rows under a label mode or protocol.

    Args:
        votes: int[N, 10], counts in the order of `VOTES`.
        mode: a key of `MODES`.

    Returns:
        target f32[N, 8] and keep bool[N]. Rows of dropped pictures are zero. Kept rows are distributions
        that sum to one; those of `multi_target` are marks of 1 (chosen) and 0.001 (not chosen).

    Raises:
        ValueError: unknown mode, or votes that are not whole numbers >= 0 of shape [N, 10].
    """
    votes = np.asarray(votes)
    if mode not in MODES:
        raise ValueError(f"unknown label mode {mode!r}: choose one of {', '.join(MODES)}")
    if votes.ndim != 2 or votes.shape[1] != len(VOTES) or votes.dtype.kind not in "iu":
        raise ValueError(f"votes must be whole numbers of shape [N, 10], not {votes.dtype} {votes.shape}")
    if votes.size and votes.min() < 0:
        raise ValueError("votes must not be negative")
    target, keep = MODES[mode].select(votes.astype(np.int64))
    return np.where(keep[:, None], target, 0).astype(np.float32), keep


def soften(target: np.ndarray, temperature: float, smoothing: float) -> np.ndarray:
    """Distributions p flattened (temperature > 1) or sharpened (< 1), then smoothed: f32[N, 8] -> f32[N, 8].

    q is p^(1 / temperature), normalised; of it, (1 - smoothing) q + smoothing / 8. With (1, 0) nothing changes.
    """
    if temperature != 1:
        # divided by the largest, which therefore cannot underflow
        powers = (target.astype(np.float64) / target.max(axis=1, keepdims=True)) ** (1 / temperature)
        target = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    if smoothing:
        target = (target * (1 - smoothing) + smoothing / len(EMOTIONS)).astype(np.float32)
    return target


def draw_labels(rng: np.random.Generator, target: np.ndarray) -> np.ndarray:
    """One class drawn from each row's distribution, as a one-hot row: f32[N, 8] -> f32[N, 8]."""
    cumulative = np.cumsum(target, axis=1)
    draws = rng.random((len(target), 1)) * cumulative[:, -1:]
    return _one_hot(np.argmax(draws < cumulative, axis=1))


def _one_hot(classes: np.ndarray) -> np.ndarray:
    return np.eye(len(EMOTIONS), dtype=np.float32)[classes]


def _without_outliers(votes: np.ndarray) -> np.ndarray:
    """A single vote is taken for a slip, whichever column it stands in (paper, section 3)."""
    return np.where(votes == 1, 0, votes)


def _emotions_only(taken: np.ndarray, keep: np.ndarray) -> Targets:
    """Drop where unknown or NF leads what was taken; share the rest out among the eight emotions."""
    keep = keep & (np.argmax(taken, axis=1) < len(EMOTIONS))
    emotions = taken[:, : len(EMOTIONS)]
    total = np.maximum(emotions.sum(axis=1, keepdims=True), 1)
    return emotions / total, keep


def _majority(votes: np.ndarray) -> Targets:
    votes = _without_outliers(votes)
    top = np.where(votes == votes.max(axis=1, keepdims=True), votes, 0)
    return _emotions_only(top, 2 * votes.max(axis=1) > votes.sum(axis=1))


def _crossentropy(votes: np.ndarray) -> Targets:
    """The largest counts in turn until they hold 75 % of the total or three classes are in.

    Equal counts are taken together, from left to right, and unknown or NF ends the taking on the spot: it
    stays in only if it is the first to be taken, which drops the picture.
    """
    votes = _without_outliers(votes)
    total = votes.sum(axis=1)
    left, taken = votes.copy(), np.zeros_like(votes)
    held, classes = np.zeros_like(total), np.zeros_like(total)
    open_ = np.ones(len(votes), bool)
    for _ in range(3):
        taking = open_ & (4 * held < 3 * total) & (classes < 3)
        largest = left.max(axis=1)
        for column in range(len(VOTES)):
            chosen = taking & (left[:, column] == largest)
            if column >= len(EMOTIONS):
                first = chosen & (taken.sum(axis=1) == 0)
                taken[first, column] = largest[first]
                open_ &= ~chosen
                taking &= ~chosen
            else:
                taken[chosen, column] = largest[chosen]
                left[chosen, column] = 0
                held += np.where(chosen, largest, 0)
                classes += chosen
    return _emotions_only(taken, (2 * taken.sum(axis=1) > total) & (classes <= 3))


def _mixture(votes: np.ndarray) -> Targets:
    """Half the distribution, half its majority; the distribution alone where there is none."""
    distribution, keep = _crossentropy(votes)
    label, agreed = _majority(votes)
    return np.where(agreed[:, None], (distribution + label) / 2, distribution), keep


def _multi_target(votes: np.ndarray) -> Targets:
    votes = _without_outliers(votes)
    total = votes.sum(axis=1, keepdims=True)
    taken = np.where(10 * votes >= 3 * total, votes, 0)
    emotions, keep = _emotions_only(taken, 2 * taken.sum(axis=1) > total[:, 0])
    marks = (emotions > 0) * (1 - MULTI_TARGET_SMOOTHING) + MULTI_TARGET_SMOOTHING
    return marks, keep


def _clean(votes: np.ndarray) -> Targets:
    target, _ = _argmax(votes)
    return target, (votes[:, len(EMOTIONS) :] == 0).all(axis=1)


def _argmax(votes: np.ndarray) -> Targets:
    return _one_hot(np.argmax(votes[:, : len(EMOTIONS)], axis=1)), np.ones(len(votes), bool)


MODES = {
    # the paper's four training modes
    "majority": Mode(_majority),
    "probability": Mode(_crossentropy, sampled=True),
    "crossentropy": Mode(_crossentropy),
    "multi_target": Mode(_multi_target, loss="multi_target", multi_hot=True),
    # half `crossentropy`, half `majority`: our own
    "mixture": Mode(_mixture),
    # what others report on, and train on, beside `majority`
    "clean": Mode(_clean),
    "argmax": Mode(_argmax),
}
