"""Numpy batches of images and targets: selected by label mode, shuffled or balanced, augmented, prefetched.

A training batch is a function of (seed, step) alone, so a resumed run replays the same batches. It is drawn whole and
then split by process, so any number of processes trains on the same images.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from fer_jax.data import augment, labels
from fer_jax.data.augment import AugmentParams
from fer_jax.data.folders import Split
from fer_jax.data.selection import Images, Selection

# The purpose of a random stream, last in its seed: to numpy the seeds (seed, epoch) and (seed, epoch, 0) are the same.
ORDER, AUGMENTATION, MIXING = 1, 2, 5  # 3: weights (models/registry.py), 4: sample grid (reporting/event_log.py)

T = TypeVar("T")
Array = Any  # numpy on the host, jax.Array on the device


class Examples(NamedTuple):
    """The images that a label mode keeps, with their targets."""

    images: Images  # u8[N, 48, 48]
    target: np.ndarray  # f32[N, 8]


class Batch(NamedTuple):
    """The input of a step; rows with mask 0 only fill the batch up.

    Where the device renders, `image` is u8[B, 48, 48] to be rendered with `params`, or i32[B], the rows of images that
    lie on the device. Where something is mixed, each image keeps the weight `mixing_weight`; the rest comes from its
    partner, the image at the same place from the batch's end. CutMix takes the rest from a rectangle, `box`: left,
    top, right, bottom (see `augment`).
    """

    image: Array  # f32[B, S, S, 1], or not yet rendered
    target: Array  # f32[B, 8]
    mask: Array  # f32[B]
    params: AugmentParams | None  # None where the host has rendered
    mixing_weight: Array | None = None  # f32[B]; None where nothing is mixed
    box: Array | None = None  # i32[B, 4]; None where whole images are mixed


def select(split: Split, mode: str) -> Examples:
    """The images of a split that a label mode or protocol keeps, with their targets."""
    target, keep = labels.targets(split.votes, mode)
    return Examples(Selection(split.images, np.flatnonzero(keep)), target[keep])


class Augmentation(NamedTuple):
    """The changes of the training images of an epoch."""

    recipe: str  # a key of `fer_jax.data.recipes.RECIPES`
    erase: float = 0.0  # see `augment.sample`
    # alpha of the Beta(alpha, alpha) from which `Batch.mixing_weight` is drawn; 0 mixes nothing. Zhang et al. 2017
    # (https://arxiv.org/abs/1710.09412).
    mixup: float = 0.0
    cutmix: float = 0.0  # the probability that an image gets a `Batch.box`, see `cut_boxes`; not together with mixup


class Render(NamedTuple):
    """The conversion of images to network input."""

    normalize: str  # a key of `fer_jax.data.normalize.NORMALIZATIONS`
    size: int
    on_device: bool  # the step renders: training batches carry row numbers of images, and parameters

    def __call__(self, images: np.ndarray, params: AugmentParams) -> tuple[np.ndarray, AugmentParams | None]:
        """`Batch.image` and `Batch.params`."""
        if self.on_device:
            return images, params
        return augment.render(images, params, size=self.size, normalize=self.normalize), None


def sampling_probabilities(target: np.ndarray, balance: float) -> np.ndarray:
    """The probability of each image to be drawn next: proportional to n_class^-balance, f64[N] of sum 1.

    Args:
        target: f32[N, 8]; the largest entry is the image's class.
        balance: 0 makes all images equally probable, 1 all classes that occur.
    """
    classes = np.argmax(target, axis=1)
    weight = np.bincount(classes)[classes] ** -float(balance)
    return weight / weight.sum()


def train_batches(
    examples: Examples,
    render: Render,
    augmentation: Callable[[int], Augmentation],
    *,
    batch_size: int,
    seed: int,
    sampled: bool,
    balance: float = 0.0,
    start_step: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yield augmented batches from `start_step` on, without end; an epoch is N // batch_size of them.

    In an epoch every image occurs once at most. With `balance`, images are drawn independently instead, by
    `sampling_probabilities`.

    Args:
        examples: of the training split.
        render: the conversion of images to network input.
        augmentation: of an epoch, by its number from 0 on.
        batch_size: over all processes.
        seed: of the run; with the step it fixes the batch.
        sampled: draw each image's label from its target (label mode `probability`).
        balance: see `sampling_probabilities`; 0 shuffles.
        start_step: the first step.
        process: (index, count): this process gets its equal part of the rows of each batch.
    """
    steps_per_epoch = len(examples.images) // batch_size
    rows = _process_rows(batch_size, process)
    step = start_step
    while True:
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == start_step:
            order = _order(np.random.default_rng((seed, epoch, 0, ORDER)), examples.target, balance)
        indices = order[position * batch_size : (position + 1) * batch_size]
        rng = np.random.default_rng((seed, epoch, position, AUGMENTATION))
        recipe, erase, mixup, cutmix = augmentation(epoch)
        params = augment.sample(rng, batch_size, recipe, render.size, erase)
        target = examples.target[indices]
        if sampled:
            target = labels.draw_labels(rng, target)
        mixing_weight = box = None
        rng = np.random.default_rng((seed, epoch, position, MIXING))
        if mixup:
            mixing_weight = rng.beta(mixup, mixup, batch_size).astype(np.float32)[rows]
        elif cutmix:
            box, mixing_weight = (field[rows] for field in cut_boxes(rng, batch_size, render.size, cutmix))
        indices, params = indices[rows], jax.tree.map(lambda field: field[rows], params)
        if render.on_device:
            image, device_params = indices.astype(np.int32), params
        else:
            image, device_params = render(examples.images[indices], params)
        yield Batch(image, target[rows], np.ones(len(image), np.float32), device_params, mixing_weight, box)
        step += 1


def cut_boxes(rng: np.random.Generator, n: int, size: int, probability: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw rectangles that CutMix fills from another image, i32[n, 4], and the fraction of area outside them, f32[n].

    Their area is uniform in 0..1 of the image, their shape the image's, their centre anywhere; the part outside the
    image is cut off (Yun et al. 2019, section 3.1, https://arxiv.org/abs/1905.04899).
    """
    side = np.where(rng.random(n) < probability, np.sqrt(rng.random(n)), 0)[:, None]
    centre = rng.random((n, 2))
    corners = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    box = np.rint(np.clip(corners, 0, 1) * size).astype(np.int32)
    width, height = (box[:, 2:] - box[:, :2]).T
    return box, (1 - width * height / size**2).astype(np.float32)


def _order(rng: np.random.Generator, target: np.ndarray, balance: float) -> np.ndarray:
    """The rows of an epoch's images in order, i64[N]."""
    if balance:
        return rng.choice(len(target), len(target), p=sampling_probabilities(target, balance))
    return rng.permutation(len(target))


def calls(batches: Iterator[Batch], steps_per_call: int, steps_per_epoch: int, start_step: int) -> Iterator[Batch]:
    """Yield the batches from `start_step` on, stacked to [K, B, ...]: `steps_per_call`, or fewer at an epoch's end."""
    step = start_step
    while True:
        count = min(steps_per_call, steps_per_epoch - step % steps_per_epoch)
        yield jax.tree.map(lambda *rows: np.stack(rows), *islice(batches, count))
        step += count


def eval_batches(
    examples: Examples, render: Render, *, batch_size: int, process: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Yield every example once, in order, without augmentation; masked rows fill up the last batch."""
    rows = _process_rows(batch_size, process)
    params = augment.identity(rows.stop - rows.start, render.size)
    for start in range(0, len(examples.images), batch_size):
        own = slice(start + rows.start, start + rows.stop)
        images, target = examples.images[own], examples.target[own]
        missing = rows.stop - rows.start - len(images)
        mask = np.pad(np.ones(len(images), np.float32), (0, missing))
        image, device_params = render(np.pad(images, ((0, missing), (0, 0), (0, 0))), params)
        yield Batch(image, np.pad(target, ((0, missing), (0, 0))), mask, device_params)


def _process_rows(batch_size: int, process: tuple[int, int]) -> slice:
    index, count = process
    return slice(index * batch_size // count, (index + 1) * batch_size // count)


def prefetch(items: Iterator[T], place: Callable[[T], T], depth: int = 2) -> Generator[T, None, None]:
    """Yield the same items, made and placed (on the device) by a thread that is up to `depth` of them ahead."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not closed.is_set():
            try:
                return ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(place(item), None)
                if closed.is_set():
                    return
            put(None, None)
        except BaseException as error:  # raised again in the thread that reads
            put(None, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        closed.set()
        thread.join()  # a thread that is still inside XLA when Python exits aborts the process
