"""Training targets from votes: the ten votes on an image become a distribution over eight emotions, or one label.

The table `MODES` has every label mode and protocol: the images that it keeps, their targets, and the loss. The rules
are those of Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution", section 3 (https://arxiv.org/abs/1608.01041). Details follow the authors' code, src/ferplus.py of
https://github.com/microsoft/FERPlus. This module needs numpy alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTES = (*EMOTIONS, "unknown", "NF")  # the columns of a vote row; NF: not a face
PROTOCOLS = ("majority", "clean", "argmax")  # metrics are reported on these; each is also a label mode

MULTI_TARGET_SMOOTHING = 0.001
_CHUNK = 65_536  # vote rows at a time; bounds the memory of the steps in between

Targets = tuple[np.ndarray, np.ndarray]


class Mode(NamedTuple):
    """A label mode: `select` makes (target, keep) from votes; the other fields tell training how to use the target."""

    select: Callable[[np.ndarray], Targets]
    sampled: bool = False  # draw one label from the target each time the image is used
    loss: str = "cross_entropy"  # a key of fer_jax.training.losses.LOSSES
    multi_hot: bool = False  # targets are multi-hot, not distributions: they can be neither softened nor mixed


def targets(votes: np.ndarray, mode: str) -> Targets:
    """The targets of vote rows under a label mode or protocol, and the mask of the images that it keeps.

    Args:
        votes: int[N, 10], counts in the order of `VOTES`.
        mode: a key of `MODES`.

    Returns:
        target f32[N, 8] and keep bool[N]. Rows of dropped images are zero. Kept rows are distributions that sum to
        one; those of `multi_target` are multi-hot: 1 for the selected emotions, 0.001 for the others.

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
    parts = [_targets(votes[start : start + _CHUNK], mode) for start in range(0, max(len(votes), 1), _CHUNK)]
    target, keep = map(np.concatenate, zip(*parts, strict=True))
    return target, keep


def _targets(votes: np.ndarray, mode: str) -> Targets:
    target, keep = MODES[mode].select(votes.astype(np.int64))
    return np.where(keep[:, None], target, 0).astype(np.float32), keep


def soften(target: np.ndarray, temperature: float, smoothing: float) -> np.ndarray:
    """Flatten (temperature > 1) or sharpen (< 1) distributions, then smooth them: f32[N, 8] -> f32[N, 8].

    A distribution p becomes (1 - smoothing) q + smoothing / 8, where q is p^(1 / temperature), normalised. With a
    temperature of 1 and a smoothing of 0 it stays p.
    """
    if temperature != 1:
        # divided by the largest, which therefore cannot underflow
        powers = (target.astype(np.float64) / target.max(axis=1, keepdims=True)) ** (1 / temperature)
        target = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    if smoothing:
        target = (target * (1 - smoothing) + smoothing / len(EMOTIONS)).astype(np.float32)
    return target


def draw_labels(rng: np.random.Generator, target: np.ndarray) -> np.ndarray:
    """Draw one class from the distribution in each row, as a one-hot row: f32[N, 8] -> f32[N, 8]."""
    cumulative = np.cumsum(target, axis=1)
    draws = rng.random((len(target), 1)) * cumulative[:, -1:]
    return _one_hot(np.argmax(draws < cumulative, axis=1))


def _one_hot(classes: np.ndarray) -> np.ndarray:
    return np.eye(len(EMOTIONS), dtype=np.float32)[classes]


def _without_single_votes(votes: np.ndarray) -> np.ndarray:
    """Set counts of 1 to 0: a single vote counts as a slip, in any column (paper, section 3)."""
    return np.where(votes == 1, 0, votes)


def _normalize(selection: np.ndarray, keep: np.ndarray) -> Targets:
    """Drop the images whose top selected class is unknown or NF; normalise the eight emotions of the others."""
    keep = keep & (np.argmax(selection, axis=1) < len(EMOTIONS))
    emotions = selection[:, : len(EMOTIONS)]
    total = np.maximum(emotions.sum(axis=1, keepdims=True), 1)
    return emotions / total, keep


def _majority(votes: np.ndarray) -> Targets:
    """The top class, if it has more than half of the votes that are not single; else the image is dropped."""
    votes = _without_single_votes(votes)
    top = np.where(votes == votes.max(axis=1, keepdims=True), votes, 0)
    return _normalize(top, 2 * votes.max(axis=1) > votes.sum(axis=1))


def _crossentropy(votes: np.ndarray) -> Targets:
    """The vote distribution without single votes and without its tail, normalised over the eight emotions.

    The largest counts are selected in turn until they hold 75 % of the total or three classes are selected. The other
    counts, the tail, are dropped. Classes with equal counts are selected in one turn. Unknown or NF ends the selection
    at once. If one of them is the very first, the image is dropped. It is also dropped if the selection holds at most
    half of the total, or more than three classes, which equal counts can bring.
    """
    votes = _without_single_votes(votes)
    total = votes.sum(axis=1)
    remainder, selection = votes.copy(), np.zeros_like(votes)
    selected_votes, selected_classes = np.zeros_like(total), np.zeros_like(total)
    unfinished = np.ones(len(votes), bool)
    for _ in range(3):
        active = unfinished & (4 * selected_votes < 3 * total) & (selected_classes < 3)
        largest = remainder.max(axis=1)
        for column in range(len(VOTES)):
            rows = active & (remainder[:, column] == largest)
            if column >= len(EMOTIONS):
                first = rows & (selection.sum(axis=1) == 0)
                selection[first, column] = largest[first]
                unfinished &= ~rows
                active &= ~rows
            else:
                selection[rows, column] = largest[rows]
                remainder[rows, column] = 0
                selected_votes += np.where(rows, largest, 0)
                selected_classes += rows
    return _normalize(selection, (2 * selection.sum(axis=1) > total) & (selected_classes <= 3))


def _mixture(votes: np.ndarray) -> Targets:
    """The mean of the distribution and its majority label; the distribution alone where there is no majority."""
    distribution, keep = _crossentropy(votes)
    label, has_majority = _majority(votes)
    return np.where(has_majority[:, None], (distribution + label) / 2, distribution), keep


def _multi_target(votes: np.ndarray) -> Targets:
    """Every class with at least 30 % of the votes that are not single, as a smoothed multi-hot target."""
    votes = _without_single_votes(votes)
    total = votes.sum(axis=1, keepdims=True)
    selection = np.where(10 * votes >= 3 * total, votes, 0)
    emotions, keep = _normalize(selection, 2 * selection.sum(axis=1) > total[:, 0])
    multi_hot = (emotions > 0) * (1 - MULTI_TARGET_SMOOTHING) + MULTI_TARGET_SMOOTHING
    return multi_hot, keep


def _clean(votes: np.ndarray) -> Targets:
    """The emotion with the most votes, for images without a vote for unknown or NF."""
    target, _ = _argmax(votes)
    return target, (votes[:, len(EMOTIONS) :] == 0).all(axis=1)


def _argmax(votes: np.ndarray) -> Targets:
    """The emotion with the most votes, for every image."""
    return _one_hot(np.argmax(votes[:, : len(EMOTIONS)], axis=1)), np.ones(len(votes), bool)


MODES = {
    # the paper's four training modes
    "majority": Mode(_majority),
    "probability": Mode(_crossentropy, sampled=True),
    "crossentropy": Mode(_crossentropy),
    "multi_target": Mode(_multi_target, loss="multi_target", multi_hot=True),
    # half `crossentropy`, half `majority`: not from the paper
    "mixture": Mode(_mixture),
    # other authors' protocols: no vote for unknown or NF; every image
    "clean": Mode(_clean),
    "argmax": Mode(_argmax),
}
