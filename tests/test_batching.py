import itertools
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from fer_jax.core.errors import UserError
from fer_jax.data import augment, batching, digests, labels
from fer_jax.data.batching import Augmentation, Batch, Examples, Render
from fer_jax.data.folders import Split
from fer_jax.data.selection import Selection

HOST, DEVICE = (Render("scale", 48, on_device=on_device) for on_device in (False, True))


def numbered(n: int) -> Examples:
    """Examples whose pixels are all the number of the image, so that a batch shows its images."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 48, 48))
    return Examples(images, np.eye(8, dtype=np.float32)[np.arange(n) % 8])


def noise(n: int) -> Examples:
    return numbered(n)._replace(images=np.random.default_rng(0).integers(0, 256, (n, 48, 48), np.uint8))


def uneven(counts: list[int]) -> Examples:
    """Examples with classes of these sizes; the largest entry of a target is 0.6, another class has the rest."""
    classes = np.repeat(np.arange(len(counts)), counts)
    eye = np.eye(8, dtype=np.float32)
    return numbered(len(classes))._replace(target=0.6 * eye[classes] + 0.4 * eye[(classes + 1) % 8])


def take(n: int, examples: Examples, render: Render = HOST, recipe: str = "emotion_cnn", **options: Any) -> list[Batch]:
    """The first n training batches."""
    changes = Augmentation(recipe, **{name: options.pop(name) for name in Augmentation._fields if name in options})
    options = {"augmentation": lambda epoch: changes, "batch_size": 8, "seed": 3, "sampled": False, **options}
    return list(itertools.islice(batching.train_batches(examples, render, **options), n))


def assert_equal(tree: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_select_keeps_the_images_of_the_label_mode() -> None:
    votes = np.zeros((6, 10), np.int32)
    votes[:, 0], votes[:, 1] = 10 - np.arange(6), np.arange(6)
    images = numbered(6).images
    split = Split(images, votes, np.array(["name.png"] * 6), digests.of_images(images))
    examples = batching.select(split, "majority")
    target, keep = labels.targets(votes, "majority")
    assert np.flatnonzero(keep).tolist() == [0, 1, 2, 3, 4]  # 5 against 5 is dropped
    assert_equal(examples, Examples(images[:5], target[:5]))


def test_an_epoch_has_every_image_at_most_once_and_epochs_differ() -> None:
    batches = take(10, numbered(43), DEVICE, "none")  # two epochs of five steps
    rows = [batch.image.tolist() for batch in batches]
    first, second = (list(itertools.chain(*epoch)) for epoch in (rows[:5], rows[5:]))
    assert len(set(first)) == len(set(second)) == 40
    assert first != second
    assert first != sorted(first)
    for batch in batches:
        np.testing.assert_array_equal(batch.target.argmax(1), batch.image % 8)
        assert batch.mask.tolist() == [1.0] * 8


def test_the_seed_determines_the_batches() -> None:
    examples = noise(20)
    assert_equal(take(5, examples), take(5, examples))
    assert not np.array_equal(take(1, examples)[0].image, take(1, examples, seed=4)[0].image)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"sampled": True},
        {"sampled": True, "balance": 0.5, "erase": 0.5, "mixup": 0.2},
        {"sampled": True, "erase": 0.5, "cutmix": 0.5},
    ],
    ids=["sampled", "balanced-mixup", "cutmix"],
)
def test_batches_replay_from_any_step_and_are_split_between_processes(on_device: bool, options: dict[str, Any]) -> None:
    render, examples = HOST._replace(on_device=on_device), uneven([12, 6, 2])
    whole = take(5, examples, render, **options)  # two epochs of two steps, and one more
    for start in (1, 2, 3):
        assert_equal(take(5 - start, examples, render, start_step=start, **options), whole[start:])
    parts = [take(5, examples, render, process=(i, 4), **options) for i in range(4)]
    for step in range(5):
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *(part[step] for part in parts))
        assert_equal(joined, whole[step])


@pytest.mark.slow
def test_host_and_device_rendering_give_the_same_images() -> None:
    examples = noise(16)
    host = take(2, examples)
    device = take(2, examples, DEVICE)
    for host_batch, device_batch in zip(host, device, strict=True):
        images = examples.images[device_batch.image]
        rendered = augment.render_device(images, device_batch.params, size=48, normalize="scale")
        np.testing.assert_allclose(host_batch.image, rendered, atol=1e-3)
        np.testing.assert_array_equal(host_batch.target, device_batch.target)


def test_calls_have_the_batches_in_order_and_end_with_the_epoch() -> None:
    batches = take(8, numbered(43), DEVICE)  # five steps an epoch
    calls = batching.calls(iter(batches[1:]), 3, 5, start_step=1)
    first, second, third = (next(calls) for _ in range(3))
    assert [len(call.mask) for call in (first, second, third)] == [3, 1, 3]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), first, second, third)
    assert_equal(joined, jax.tree.map(lambda *rows: np.stack(rows), *batches[1:8]))


def test_sampled_labels_change_from_epoch_to_epoch() -> None:
    examples = numbered(16)._replace(target=np.full((16, 8), 1 / 8, np.float32))
    drawn = np.concatenate([batch.target for batch in take(4, examples, sampled=True)])
    assert set(drawn.sum(axis=1)) == {1.0}
    assert not np.array_equal(drawn[:16], drawn[16:])
    assert_equal(take(1, examples)[0].target, examples.target[:8])


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_balanced_classes_occur_in_proportion_to_a_power_of_their_size(balance: float) -> None:
    counts = [160, 60, 16, 4]
    examples = uneven(counts)
    expected = np.array(counts, float) ** (1 - balance)
    expected /= expected.sum()
    probabilities = batching.sampling_probabilities(examples.target, balance)
    assert probabilities.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(examples.target.argmax(1), probabilities), expected, rtol=1e-6)

    drawn = [batch.image for batch in take(40, examples, DEVICE, "none", batch_size=240, balance=balance)]
    frequency = np.bincount(np.concatenate(drawn), minlength=240) / (40 * 240)
    class_frequency = np.bincount(examples.target.argmax(1), frequency)
    np.testing.assert_allclose(class_frequency, expected, atol=0.015)  # three standard errors
    assert abs(frequency - probabilities).max() < 0.012  # the images of a class are equally frequent
    assert not np.array_equal(drawn[0], drawn[1])  # two epochs


def test_sampling_probabilities_without_balance_are_equal() -> None:
    np.testing.assert_allclose(batching.sampling_probabilities(uneven([5, 3, 2]).target, 0), 0.1)


def test_mixing_weights_of_mixup_are_beta_and_leave_the_rest_of_a_batch() -> None:
    mixed = take(6, numbered(4000), DEVICE, "ferplus", batch_size=2000, mixup=0.2, sampled=True)
    weights = np.concatenate([batch.mixing_weight for batch in mixed])
    assert weights.dtype == np.float32
    assert stats.kstest(weights.astype(float), stats.beta(0.2, 0.2).cdf).pvalue > 0.001
    unmixed = take(6, numbered(4000), DEVICE, "ferplus", batch_size=2000, sampled=True)
    assert unmixed[0].mixing_weight is None
    assert_equal([batch._replace(mixing_weight=None) for batch in mixed], unmixed)


def test_each_epoch_has_its_augmentation() -> None:
    def augmentation(epoch: int) -> Augmentation:
        return Augmentation("none") if epoch else Augmentation("camera", erase=0.5, mixup=0.2)

    changed = take(6, noise(16), DEVICE, augmentation=augmentation)  # three epochs of two steps
    assert_equal(changed[:2], take(2, noise(16), DEVICE, "camera", erase=0.5, mixup=0.2))
    assert_equal(changed[2:], take(6, noise(16), DEVICE, "none")[2:])


def test_cutmix_leaves_the_rest_of_a_batch() -> None:
    take_erased = partial(take, 5, numbered(20), DEVICE._replace(size=32), "ferplus", erase=0.5, sampled=True)
    plain, cut = take_erased(), take_erased(cutmix=0.5)
    assert plain[0].box is None
    assert_equal([batch._replace(mixing_weight=None, box=None) for batch in cut], plain)
    assert np.concatenate([batch.box for batch in cut]).max() <= 32  # in pixels of the network's input
    assert len({batch.box.tobytes() for batch in cut}) == 5
    assert 5 < (np.concatenate([batch.mixing_weight for batch in cut]) < 1).sum() < 35  # of 40


def test_mixing_weights_of_cutmix_are_the_area_outside_the_box() -> None:
    boxes, weights = batching.cut_boxes(np.random.default_rng(0), 500, 48, 0.7)
    assert (boxes.dtype, weights.dtype, boxes.shape) == (np.int32, np.float32, (500, 4))
    for (left, top, right, bottom), weight in zip(boxes.tolist(), weights, strict=True):
        assert 0 <= left <= right <= 48
        assert 0 <= top <= bottom <= 48
        outside = np.ones((48, 48))
        outside[top:bottom, left:right] = 0
        assert weight == np.float32(outside.mean())
    assert abs((weights < 1).mean() - 0.7) < 0.08  # four standard errors; a box of no pixel is rare


def test_no_image_or_every_image_gets_a_box() -> None:
    assert (batching.cut_boxes(np.random.default_rng(0), 200, 48, 0.0)[1] == 1).all()
    assert (batching.cut_boxes(np.random.default_rng(0), 200, 4096, 1.0)[1] < 1).all()


def test_boxes_are_uniform_in_area_and_position_and_of_the_shape_of_the_image() -> None:
    size = 2**14  # so large that rounding to pixels does not matter
    boxes, _ = batching.cut_boxes(np.random.default_rng(0), 30_000, size, 1.0)
    low, high = boxes[:, :2] / size, boxes[:, 2:] / size
    # Of the boxes of area a, which is uniform, the fraction (1 - sqrt a)^2 is inside the image; their sides:
    inside = ((low > 0) & (high < 1)).all(axis=1)
    side = (high - low)[inside]
    np.testing.assert_allclose(side[:, 0], side[:, 1], atol=1.5 / size)
    area = side.prod(axis=1)
    assert inside.mean() == pytest.approx(1 / 6, abs=0.01)  # the integral of that fraction
    assert stats.kstest(area, lambda a: 6 * (a - 4 / 3 * a**1.5 + a**2 / 2)).pvalue > 0.001
    for axis in (0, 1):
        position = low[inside, axis] / (1 - side[:, axis])
        assert stats.kstest(position, stats.uniform.cdf).pvalue > 0.001
    assert abs(stats.spearmanr(*low[inside].T / (1 - side.T)).statistic) < 0.05  # x and y are independent


@pytest.mark.parametrize(
    ("n", "batch_size", "processes"),
    [(16, 8, 1), (17, 8, 1), (5, 8, 1), (1, 1, 1), (30, 7, 1), (16, 8, 2), (17, 8, 2), (3, 8, 4)],
)
def test_evaluation_counts_every_example_exactly_once(n: int, batch_size: int, processes: int) -> None:
    numbers = []
    for index in range(processes):
        for batch in batching.eval_batches(numbered(n), DEVICE, batch_size=batch_size, process=(index, processes)):
            assert len(batch.image) == batch_size // processes
            real = batch.mask == 1
            assert not batch.image[~real].any()
            assert not batch.target[~real].any()
            np.testing.assert_array_equal(batch.target[real].argmax(1), batch.image[real][:, 0, 0] % 8)
            numbers += batch.image[real][:, 0, 0].tolist()
    assert sorted(numbers) == list(range(n))


def test_evaluation_does_not_augment() -> None:
    examples = noise(4)
    batch = next(batching.eval_batches(examples, HOST, batch_size=4))
    np.testing.assert_allclose(batch.image[..., 0], examples.images / 127.5 - 1, atol=1e-5)


def test_prefetch_keeps_the_order_and_is_a_bounded_number_of_items_ahead() -> None:
    made: list[int] = []
    ahead = threading.Event()

    def items() -> Iterator[int]:
        for i in range(6):
            made.append(i)
            if i == 3:
                ahead.set()
            yield i

    ready = batching.prefetch(items(), place=lambda i: 10 * i, depth=2)
    assert next(ready) == 0
    assert ahead.wait(5)  # one taken, two ready, one waiting for a place in the queue
    assert made == [0, 1, 2, 3]
    assert list(ready) == [10, 20, 30, 40, 50]


def test_prefetch_raises_the_error_of_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise UserError("row 7")

    ready = batching.prefetch(items(), place=lambda i: i)
    assert next(ready) == 1
    with pytest.raises(UserError, match="row 7"):
        next(ready)


def test_closed_prefetch_ends_its_thread() -> None:
    """A thread that outlives its reader could abort Python's exit."""
    threads: list[threading.Thread] = []

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        yield from itertools.count()

    ready = batching.prefetch(items(), place=lambda i: i)
    next(ready)
    assert threads[0].is_alive()
    ready.close()
    assert not threads[0].is_alive()


class Noted:
    """Images that note the rows that were read."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.rows = images, []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> np.ndarray:
        self.rows += np.arange(len(self.images))[index].tolist()
        return self.images[index]


def test_a_process_reads_its_own_rows_alone() -> None:
    n, batch_size = 27, 8
    for evaluated in (False, True):
        parts = []
        for index in range(4):
            images = Noted(numbered(n).images)
            examples = numbered(n)._replace(images=images)
            if evaluated:
                list(batching.eval_batches(examples, HOST, batch_size=batch_size, process=(index, 4)))
            else:
                take(n // batch_size, examples, process=(index, 4))
            parts.append(images.rows)
        rows = sorted(itertools.chain(*parts))
        assert len({*rows}) == len(rows) == (n if evaluated else n // batch_size * batch_size)
        assert all(6 <= len(part) <= 8 for part in parts)


def test_a_selection_gives_the_rows_of_its_images() -> None:
    images, rows = numbered(20).images, np.array([3, 19, 4, 7])
    selection = Selection(images, rows)
    assert len(selection) == 4
    assert selection[1:3][:, 0, 0].tolist() == [19, 4]
    assert selection[np.array([2, 0])][:, 0, 0].tolist() == [4, 3]
    np.testing.assert_array_equal(selection, images[rows])
