"""From pictures and targets to numpy batches: choose by label mode, shuffle or balance, augment, prefetch.

A training batch is a function of (seed, step) alone, so a resumed run replays the same batches, and it is drawn
whole and then cut by process, so every number of processes trains on the same pictures.
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

# What a random stream is for, last in its seed: numpy takes (seed, epoch) and (seed, epoch, 0) for the same.
ORDER, PICTURES, MIXTURE = 1, 2, 5  # 3: weights (fer_jax.models), 4: the grid of samples (fer_jax.train)

T = TypeVar("T")
Array = Any  # numpy on the host, jax.Array on the device


class Examples(NamedTuple):
    """The pictures that a label mode keeps, with its targets."""

    images: np.ndarray  # u8[N, 48, 48]
    target: np.ndarray  # f32[N, 8]


class Batch(NamedTuple):
    """What a step takes; rows with mask 0 only fill the batch up."""

    image: Array  # f32[B, S, S, 1]; or still to be rendered with `params`: u8[B, 48, 48], or the numbers i32[B] of
    # pictures that lie on the device
    target: Array  # f32[B, 8]
    mask: Array  # f32[B]
    params: AugmentParams | None  # None where the host has rendered
    mixing_weight: Array | None = None  # f32[B]: mixing leaves each picture that share of itself, the rest is of the picture at
    # its place from the batch's end; None where nothing is mixed
    box: Array | None = None  # i32[B, 4]: CutMix takes the rest from there, left, top, right, bottom (see `augment`);
    # None where whole pictures are mixed


def select(split: Split, mode: str) -> Examples:
    """The pictures that a label mode or protocol keeps, with their targets."""
    target, keep = labels.targets(split.votes, mode)
    return Examples(split.images[keep], target[keep])


class Render(NamedTuple):
    """How pictures become network input; see `fer_jax.data.augment` for `recipe`, `normalize` and `erase`."""

    recipe: str
    normalize: str
    size: int
    on_device: bool  # the step renders: training batches carry numbers of pictures and parameters
    erase: float = 0.0

    def __call__(self, images: np.ndarray, params: AugmentParams) -> tuple[np.ndarray, AugmentParams | None]:
        """(image, params) of a Batch."""
        if self.on_device:
            return images, params
        return augment.render(images, params, size=self.size, normalize=self.normalize), None


def sampling_probabilities(target: np.ndarray, balance: float) -> np.ndarray:
    """How probably a picture is the next to be drawn, f64[N] of sum 1: proportional to n_class^-balance.

    Args:
        target: f32[N, 8]; the largest entry is the picture's class.
        balance: 0 makes all pictures equally probable, 1 all classes that there are.
    """
    classes = np.argmax(target, axis=1)
    weight = np.bincount(classes)[classes] ** -float(balance)
    return weight / weight.sum()


def train_batches(
    examples: Examples,
    render: Render,
    *,
    batch_size: int,
    seed: int,
    sampled: bool,
    balance: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    start_step: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Augmented batches from `start_step` on, without end; an epoch is N // batch_size of them.

    In an epoch every image comes once at most; balanced, images are drawn independently by `sampling_probabilities`.

    Args:
        examples: of the training split.
        render: how pictures become network input.
        batch_size: over all processes.
        seed: of the run; with the step it fixes the batch.
        sampled: draw each picture's label from its target (label mode `probability`).
        balance: see `sampling_probabilities`; 0 shuffles.
        mixup: alpha of the Beta(alpha, alpha) that `Batch.mixing_weight` is drawn from; 0: nothing is mixed. Zhang et al. 2017
            (https://arxiv.org/abs/1710.09412).
        cutmix: the probability that a picture gets a `Batch.box`, see `cut_boxes`; not together with mixup.
        start_step: the step to begin with.
        process: (index, count): this process gets its equal share of the rows of each batch.
    """
    steps_per_epoch = len(examples.images) // batch_size
    rows = _share(batch_size, process)
    step = start_step
    while True:
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == start_step:
            order = _order(np.random.default_rng((seed, epoch, 0, ORDER)), examples.target, balance)
        chosen = order[position * batch_size : (position + 1) * batch_size]
        rng = np.random.default_rng((seed, epoch, position, PICTURES))
        params = augment.sample(rng, batch_size, render.recipe, render.size, render.erase)
        target = examples.target[chosen]
        if sampled:
            target = labels.draw_labels(rng, target)
        share = box = None
        rng = np.random.default_rng((seed, epoch, position, MIXTURE))
        if mixup:
            share = rng.beta(mixup, mixup, batch_size).astype(np.float32)[rows]
        elif cutmix:
            box, share = (drawn[rows] for drawn in cut_boxes(rng, batch_size, render.size, cutmix))
        chosen, params = chosen[rows], jax.tree.map(lambda field: field[rows], params)
        image, left = (chosen.astype(np.int32), params) if render.on_device else render(examples.images[chosen], params)
        yield Batch(image, target[rows], np.ones(len(image), np.float32), left, share, box)
        step += 1


def cut_boxes(rng: np.random.Generator, n: int, size: int, probability: float) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles that CutMix fills from another picture: i32[n, 4], and the share that is left f32[n].

    Their area is uniform in 0..1 of the picture, their shape the picture's, their centre anywhere; what lies outside is
    cut off (Yun et al. 2019, section 3.1, https://arxiv.org/abs/1905.04899).
    """
    side = np.where(rng.random(n) < probability, np.sqrt(rng.random(n)), 0)[:, None]
    centre = rng.random((n, 2))
    corners = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    box = np.rint(np.clip(corners, 0, 1) * size).astype(np.int32)
    width, height = (box[:, 2:] - box[:, :2]).T
    return box, (1 - width * height / size**2).astype(np.float32)


def _order(rng: np.random.Generator, target: np.ndarray, balance: float) -> np.ndarray:
    """The numbers of an epoch's pictures, i64[N]."""
    if balance:
        return rng.choice(len(target), len(target), p=sampling_probabilities(target, balance))
    return rng.permutation(len(target))


def calls(batches: Iterator[Batch], steps_per_call: int, steps_per_epoch: int, start_step: int) -> Iterator[Batch]:
    """The batches from `start_step` on, stacked to [K, B, ...]: K is `steps_per_call`, or what is left of the epoch."""
    step = start_step
    while True:
        count = min(steps_per_call, steps_per_epoch - step % steps_per_epoch)
        yield jax.tree.map(lambda *rows: np.stack(rows), *islice(batches, count))
        step += count


def eval_batches(
    examples: Examples, render: Render, *, batch_size: int, process: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Every example once, in order and without augmentation; the last batch is filled up with masked rows."""
    rows = _share(batch_size, process)
    params = augment.identity(rows.stop - rows.start, render.size)
    for start in range(0, len(examples.images), batch_size):
        images = examples.images[start : start + batch_size]
        missing = batch_size - len(images)
        images = np.pad(images, ((0, missing), (0, 0), (0, 0)))[rows]
        target = np.pad(examples.target[start : start + batch_size], ((0, missing), (0, 0)))[rows]
        mask = np.pad(np.ones(batch_size - missing, np.float32), (0, missing))[rows]
        image, left = render(images, params)
        yield Batch(image, target, mask, left)


def _share(batch_size: int, process: tuple[int, int]) -> slice:
    index, count = process
    return slice(index * batch_size // count, (index + 1) * batch_size // count)


def prefetch(items: Iterator[T], place: Callable[[T], T], depth: int = 2) -> Generator[T, None, None]:
    """The same items, made and put in place (on the device) by a thread that runs `depth` of them ahead."""
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
