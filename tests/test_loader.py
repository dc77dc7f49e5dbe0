import itertools
import threading
import time

import jax
import numpy as np
import pytest
from scipy import stats

from fer_jax.core.cli import UserError
from fer_jax.data import augment, batching
from fer_jax.data.batching import Examples, Render

HOST = Render("emotion_cnn", "scale", 48, on_device=False)


def examples_of(n: int) -> Examples:
    """Pictures whose every pixel is their number, so that a batch shows who is in it."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 48, 48))
    return Examples(images, np.eye(8, dtype=np.float32)[np.arange(n) % 8])


def take(n: int, examples: Examples, render: Render = HOST, **options):
    options = {"batch_size": 8, "seed": 3, "sampled": False, **options}
    return list(itertools.islice(batching.train_batches(examples, render, **options), n))


def assert_equal(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_epoch_shows_every_picture_at_most_once_and_epochs_differ() -> None:
    plain = Render("none", "scale", 48, on_device=True)
    batches = take(10, examples_of(43), plain)  # two epochs of five steps
    who = [batch.image.tolist() for batch in batches]
    first, second = (list(itertools.chain(*epoch)) for epoch in (who[:5], who[5:]))
    assert len(set(first)) == len(set(second)) == 40
    assert first != second
    assert first != sorted(first)
    for batch in batches:
        np.testing.assert_array_equal(batch.target.argmax(1), batch.image % 8)
        assert batch.mask.tolist() == [1.0] * 8


def test_same_seed_same_batches_other_seed_others() -> None:
    examples = Examples(np.random.default_rng(0).integers(0, 256, (20, 48, 48), np.uint8), *examples_of(20)[1:])
    assert_equal(take(5, examples), take(5, examples))
    assert not np.array_equal(take(1, examples)[0].image, take(1, examples, seed=4)[0].image)


def test_starting_at_a_step_replays_the_batches_from_there() -> None:
    examples = examples_of(20)
    whole = take(7, examples)
    assert_equal(whole[3:], take(4, examples, start_step=3))


@pytest.mark.parametrize("on_device", [False, True])
def test_processes_share_each_batch(on_device: bool) -> None:
    render = HOST._replace(on_device=on_device)
    whole = take(3, examples_of(20), render, sampled=True)
    parts = [take(3, examples_of(20), render, sampled=True, process=(i, 4)) for i in range(4)]
    for step in range(3):
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *(part[step] for part in parts))
        assert_equal(joined, whole[step])


def test_host_and_device_rendering_give_the_same_pictures() -> None:
    examples = Examples(np.random.default_rng(0).integers(0, 256, (16, 48, 48), np.uint8), *examples_of(16)[1:])
    host = take(2, examples)
    device = take(2, examples, HOST._replace(on_device=True))
    for a, b in zip(host, device, strict=True):
        rendered = augment.render_device(examples.images[b.image], b.params, size=48, normalize="scale")
        np.testing.assert_allclose(a.image, rendered, atol=1e-3)
        np.testing.assert_array_equal(a.target, b.target)


def test_calls_hold_the_batches_in_order_and_end_with_the_epoch() -> None:
    render = HOST._replace(on_device=True)
    batches = take(8, examples_of(43), render)  # five steps an epoch
    made = batching.calls(iter(batches[1:]), 3, 5, start_step=1)
    first, second, third = (next(made) for _ in range(3))
    assert [len(call.mask) for call in (first, second, third)] == [3, 1, 3]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), first, second, third)
    assert_equal(joined, jax.tree.map(lambda *rows: np.stack(rows), *batches[1:8]))


def test_sampled_labels_change_from_epoch_to_epoch() -> None:
    examples = examples_of(16)._replace(target=np.full((16, 8), 1 / 8, np.float32))
    drawn = np.concatenate([batch.target for batch in take(4, examples, sampled=True)])
    assert set(drawn.sum(axis=1)) == {1.0}
    assert not np.array_equal(drawn[:16], drawn[16:])
    assert_equal(take(1, examples)[0].target, examples.target[:8])


def uneven(counts: list[int]) -> Examples:
    """Classes of these sizes; the largest entry of a target is 0.6, another class has the rest."""
    classes = np.repeat(np.arange(len(counts)), counts)
    eye = np.eye(8, dtype=np.float32)
    examples = examples_of(len(classes))
    return examples._replace(target=0.6 * eye[classes] + 0.4 * eye[(classes + 1) % 8])


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_balanced_classes_come_in_proportion_to_their_size_to_a_power(balance: float) -> None:
    counts = [160, 60, 16, 4]
    examples = uneven(counts)
    share = np.array(counts, float) ** (1 - balance)
    chances = batching.chances(examples.target, balance)
    assert chances.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(examples.target.argmax(1), chances), share / share.sum(), rtol=1e-6)

    plain = Render("none", "scale", 48, on_device=True)
    drawn = [batch.image for batch in take(40, examples, plain, batch_size=240, balance=balance)]
    seen = np.bincount(np.concatenate(drawn), minlength=240) / (40 * 240)
    of_class = np.bincount(examples.target.argmax(1), seen)
    np.testing.assert_allclose(of_class, share / share.sum(), atol=0.015)  # three standard errors
    assert abs(seen - chances).max() < 0.012  # every picture of a class as often as the others of it
    assert not np.array_equal(drawn[0], drawn[1])  # an epoch each


def test_unbalanced_chances_are_equal() -> None:
    np.testing.assert_allclose(batching.chances(uneven([5, 3, 2]).target, 0), 0.1)


@pytest.mark.parametrize("on_device", [False, True])
def test_balanced_mixed_erased_batches_replay_from_any_step_and_are_shared(on_device: bool) -> None:
    render, options = HOST._replace(on_device=on_device, erase=0.5), {"balance": 0.5, "mixup": 0.2, "sampled": True}
    examples = uneven([12, 6, 2])
    whole = take(5, examples, render, **options)  # two epochs of two steps, and one more
    for start in (1, 2, 3):
        assert_equal(whole[start:], take(5 - start, examples, render, start_step=start, **options))
    parts = [take(5, examples, render, process=(i, 4), **options) for i in range(4)]
    for step in range(5):
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *(part[step] for part in parts))
        assert_equal(joined, whole[step])


def test_shares_of_mixup_are_beta_and_the_rest_of_a_batch_stays() -> None:
    plain = Render("ferplus", "scale", 48, on_device=True)
    mixed = take(6, examples_of(4000), plain, batch_size=2000, mixup=0.2, sampled=True)
    shares = np.concatenate([batch.mixing_weight for batch in mixed])
    assert shares.dtype == np.float32
    assert stats.kstest(shares.astype(float), stats.beta(0.2, 0.2).cdf).pvalue > 0.001
    unmixed = take(6, examples_of(4000), plain, batch_size=2000, sampled=True)
    assert unmixed[0].share is None
    assert_equal([batch._replace(share=None) for batch in mixed], unmixed)


def test_boxes_lie_in_the_picture_and_shares_are_the_area_left() -> None:
    box, share = batching.cut_boxes(np.random.default_rng(0), 500, 48, 0.7)
    assert (box.dtype, share.dtype, box.shape) == (np.int32, np.float32, (500, 4))
    for (left, top, right, bottom), left_over in zip(box.tolist(), share, strict=True):
        assert 0 <= left <= right <= 48
        assert 0 <= top <= bottom <= 48
        picture = np.ones((48, 48))
        picture[top:bottom, left:right] = 0
        assert left_over == np.float32(picture.mean())
    boxed = (share < 1).mean()
    assert abs(boxed - 0.7) < 0.08  # four standard errors; a box of no pixel is rare


def test_no_picture_or_every_picture_gets_a_box() -> None:
    assert (batching.cut_boxes(np.random.default_rng(0), 200, 48, 0.0)[1] == 1).all()
    assert (batching.cut_boxes(np.random.default_rng(0), 200, 4096, 1.0)[1] < 1).all()


def test_boxes_are_uniform_in_area_and_place_and_of_the_pictures_shape() -> None:
    size = 2**14  # so large that whole pixels do not show
    box, _ = batching.cut_boxes(np.random.default_rng(0), 30_000, size, 1.0)
    low, high = box[:, :2] / size, box[:, 2:] / size
    # The sides of those that lie inside, of area a: a uniform, and of these the share (1 - sqrt a)^2 is inside.
    inside = ((low > 0) & (high < 1)).all(axis=1)
    side = (high - low)[inside]
    np.testing.assert_allclose(side[:, 0], side[:, 1], atol=1.5 / size)
    area = side.prod(axis=1)
    assert inside.mean() == pytest.approx(1 / 6, abs=0.01)  # the integral of that share
    assert stats.kstest(area, lambda a: 6 * (a - 4 / 3 * a**1.5 + a**2 / 2)).pvalue > 0.001
    for axis in (0, 1):
        place = low[inside, axis] / (1 - side[:, axis])
        assert stats.kstest(place, stats.uniform.cdf).pvalue > 0.001
    assert abs(stats.spearmanr(*low[inside].T / (1 - side.T)).statistic) < 0.05  # x and y do not hang together


@pytest.mark.parametrize("on_device", [False, True])
def test_cutmix_leaves_the_rest_of_a_batch_and_replays_from_any_step(on_device: bool) -> None:
    render = Render("ferplus", "scale", 32, on_device, erase=0.5)
    plain = take(5, examples_of(20), render, sampled=True)  # two epochs of two steps, and one more
    cut = take(5, examples_of(20), render, sampled=True, cutmix=0.5)
    assert plain[0].box is None
    assert_equal([batch._replace(share=None, box=None) for batch in cut], plain)
    boxes = np.concatenate([batch.box for batch in cut])
    assert boxes.max() <= 32  # of the pictures as the network sees them
    assert len({batch.box.tobytes() for batch in cut}) == 5
    assert 5 < (np.concatenate([batch.mixing_weight for batch in cut]) < 1).sum() < 35  # of 40
    for start in (1, 2, 3):
        assert_equal(cut[start:], take(5 - start, examples_of(20), render, sampled=True, cutmix=0.5, start_step=start))
    parts = [take(5, examples_of(20), render, sampled=True, cutmix=0.5, process=(i, 4)) for i in range(4)]
    for step in range(5):
        assert_equal(jax.tree.map(lambda *rows: np.concatenate(rows), *(part[step] for part in parts)), cut[step])


@pytest.mark.parametrize(
    ("n", "batch_size", "processes"),
    [(16, 8, 1), (17, 8, 1), (5, 8, 1), (1, 1, 1), (30, 7, 1), (16, 8, 2), (17, 8, 2), (3, 8, 4)],
)
def test_evaluation_counts_every_example_exactly_once(n: int, batch_size: int, processes: int) -> None:
    render = Render("emotion_cnn", "scale", 48, on_device=True)
    seen = []
    for index in range(processes):
        for batch in batching.eval_batches(examples_of(n), render, batch_size=batch_size, process=(index, processes)):
            assert len(batch.image) == batch_size // processes
            real = batch.mask == 1
            assert not batch.image[~real].any()
            assert not batch.target[~real].any()
            np.testing.assert_array_equal(batch.target[real].argmax(1), batch.image[real][:, 0, 0] % 8)
            seen += batch.image[real][:, 0, 0].tolist()
    assert sorted(seen) == list(range(n))


def test_evaluation_does_not_augment() -> None:
    examples = Examples(np.random.default_rng(0).integers(0, 256, (4, 48, 48), np.uint8), *examples_of(4)[1:])
    batch = next(batching.eval_batches(examples, HOST, batch_size=4))
    np.testing.assert_allclose(batch.image[..., 0], examples.images / 127.5 - 1, atol=1e-5)


def test_prefetch_keeps_order_runs_ahead_and_places() -> None:
    made = []

    def items():
        for i in range(6):
            made.append(i)
            yield i

    ready = batching.prefetch(items(), place=lambda i: 10 * i, depth=2)
    assert next(ready) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:  # one taken, two ready, one waiting to be put
        time.sleep(0.01)
    assert made == [0, 1, 2, 3]
    assert list(ready) == [10, 20, 30, 40, 50]


def test_prefetch_raises_where_the_batches_are_read() -> None:
    def items():
        yield 1
        raise UserError("row 7")

    ready = batching.prefetch(items(), place=lambda i: i)
    assert next(ready) == 1
    with pytest.raises(UserError, match="row 7"):
        next(ready)


def test_closed_prefetch_stops_making_batches() -> None:
    made = []

    def items():
        for i in itertools.count():
            made.append(i)
            yield i

    threads = threading.active_count()
    ready = batching.prefetch(items(), place=lambda i: i)
    next(ready)
    assert threading.active_count() == threads + 1
    ready.close()
    assert threading.active_count() == threads  # one that outlived its reader could abort Python's exit
    count = len(made)
    time.sleep(0.2)
    assert len(made) == count
