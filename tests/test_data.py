import itertools
import os
import shutil
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_jax import augment, data, labels
from fer_jax.cli import UserError
from fer_jax.data import Examples, Render

HOST = Render("emotion_cnn", "scale", 48, on_device=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures by hand: the level of each is 40 x its number; boxes and sizes as others may write them."""
    path = tmp_path / "FER2013Valid"
    path.mkdir()
    rows = []
    for i in range(6):
        Image.fromarray(np.full((48, 48), 40 * i, np.uint8)).save(path / f"fer{i:07}.png")
        rows.append(f'fer{i:07}.png,"(0, 0, 48, 48)",{10 - i},{i},0,0,0,0,0,0,0,0')
    (path / "label.csv").write_text("\n".join(rows) + "\n")
    return path


def test_load_equals_pillow_and_the_csv_row_by_row(sample_dir: Path) -> None:
    split = data.load(sample_dir, "valid")
    table = pd.read_csv(sample_dir / "FER2013Valid" / "label.csv", header=None)
    assert split.names.tolist() == table[0].tolist()
    np.testing.assert_array_equal(split.votes, table.iloc[:, 2:])
    for row in (0, 1, len(table) // 2, len(table) - 1):
        with Image.open(sample_dir / "FER2013Valid" / table[0][row]) as picture:
            np.testing.assert_array_equal(split.images[row], np.asarray(picture))


def test_box_is_cut_out_and_brought_to_48(folder: Path) -> None:
    picture = np.zeros((96, 96), np.uint8)
    picture[48:, 24:72] = 200
    Image.fromarray(picture).save(folder / "fer0000000.png")
    text = (folder / "label.csv").read_text().replace("(0, 0, 48, 48)", "(24, 48, 72, 96)", 1)
    (folder / "label.csv").write_text(text)
    split = data.load(folder.parent, "valid")
    assert (split.images[0] == 200).all()
    text = text.replace("(24, 48, 72, 96)", "(0, 0, 96, 96)", 1)
    (folder / "label.csv").write_text(text)
    whole = data.load(folder.parent, "valid").images[0]
    assert whole.shape == (48, 48)
    assert whole[:20].max() == 0
    assert whole[40, 24] == 200


def test_cache_is_used_and_notices_changes(folder: Path) -> None:
    first = data.load(folder.parent, "valid")
    cache = folder.parent / "FER2013Valid.cache.npz"
    written = cache.stat().st_mtime_ns
    again = data.load(folder.parent, "valid")
    assert cache.stat().st_mtime_ns == written
    jax.tree.map(np.testing.assert_array_equal, first, again)

    # a cache that is read gives what is in it, even if that is not what the folder holds
    with np.load(cache) as stored:
        content = dict(stored)
    np.savez(cache, **{**content, "images": content["images"] + 1})
    np.testing.assert_array_equal(data.load(folder.parent, "valid").images, first.images + 1)

    time.sleep(0.01)
    Image.fromarray(np.full((48, 48), 99, np.uint8)).save(folder / "fer0000003.png")
    assert (data.load(folder.parent, "valid").images[3] == 99).all()
    np.testing.assert_array_equal(data.load(folder.parent, "valid").images[0], first.images[0])

    cache.write_bytes(b"cut off")
    assert (data.load(folder.parent, "valid").images[3] == 99).all()


def test_read_only_data_folder_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "FER2013Valid.cache.npz").mkdir()  # nothing can be written in its place
    assert len(data.load(folder.parent, "valid").images) == 6
    assert not list(folder.parent.glob(".*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), r"no valid data in .*FER2013Valid.*generate_training_data\.py.*make sample"),
        (lambda f: (f / "fer0000002.png").unlink(), r"label\.csv, row 3: no such picture: .*fer0000002\.png"),
        (lambda f: (f / "fer0000002.png").write_text("x"), r"row 3: not a readable picture"),
        (lambda f: os.truncate(f / "fer0000002.png", 60), r"row 3: not a readable picture"),
        (lambda f: (f / "label.csv").write_text("a,b,1\n"), r"label\.csv: 3 columns"),
        (lambda f: (f / "label.csv").write_text(""), r"label\.csv: No columns"),
        (lambda f: edit(f, "10,0,0", "x,0,0"), r"label\.csv: a vote is not a whole number"),
        (lambda f: edit(f, "9,1,0", "-9,1,0"), r"label\.csv, row 2: a vote is negative"),
        (lambda f: edit(f, "(0, 0, 48, 48)", "48"), r"row 1: the box '48'"),
    ],
)
def test_damaged_folders_get_one_line(folder: Path, damage, message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        data.load(folder.parent, "valid")
    assert "\n" not in str(error.value)


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "label.csv").read_text()
    assert old in text
    (folder / "label.csv").write_text(text.replace(old, new, 1))


def test_select_keeps_what_the_mode_keeps(folder: Path) -> None:
    split = data.load(folder.parent, "valid")
    examples = data.select(split, "majority")
    target, keep = labels.targets(split.votes, "majority")
    assert examples.rows.tolist() == np.flatnonzero(keep).tolist() == [0, 1, 2, 3, 4]  # 5 against 5 is dropped
    np.testing.assert_array_equal(examples.images, split.images[:5])
    np.testing.assert_array_equal(examples.target, target[:5])


def examples_of(n: int) -> Examples:
    """Pictures whose every pixel is their number, so that a batch shows who is in it."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 48, 48))
    return Examples(images, np.eye(8, dtype=np.float32)[np.arange(n) % 8], np.arange(n))


def take(n: int, examples: Examples, render: Render = HOST, **options):
    options = {"batch_size": 8, "seed": 3, "sampled": False, **options}
    return list(itertools.islice(data.train_batches(examples, render, **options), n))


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
    examples = data.Examples(np.random.default_rng(0).integers(0, 256, (20, 48, 48), np.uint8), *examples_of(20)[1:])
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
    made = data.calls(iter(batches[1:]), 3, 5, start_step=1)
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


@pytest.mark.parametrize(
    ("n", "batch_size", "processes"),
    [(16, 8, 1), (17, 8, 1), (5, 8, 1), (1, 1, 1), (30, 7, 1), (16, 8, 2), (17, 8, 2), (3, 8, 4)],
)
def test_evaluation_counts_every_example_exactly_once(n: int, batch_size: int, processes: int) -> None:
    render = Render("emotion_cnn", "scale", 48, on_device=True)
    seen = []
    for index in range(processes):
        for batch in data.eval_batches(examples_of(n), render, batch_size=batch_size, process=(index, processes)):
            assert len(batch.image) == batch_size // processes
            real = batch.mask == 1
            assert not batch.image[~real].any()
            assert not batch.target[~real].any()
            np.testing.assert_array_equal(batch.target[real].argmax(1), batch.image[real][:, 0, 0] % 8)
            seen += batch.image[real][:, 0, 0].tolist()
    assert sorted(seen) == list(range(n))


def test_evaluation_does_not_augment() -> None:
    examples = Examples(np.random.default_rng(0).integers(0, 256, (4, 48, 48), np.uint8), *examples_of(4)[1:])
    batch = next(data.eval_batches(examples, HOST, batch_size=4))
    np.testing.assert_allclose(batch.image[..., 0], examples.images / 127.5 - 1, atol=1e-5)


def test_prefetch_keeps_order_runs_ahead_and_places() -> None:
    made = []

    def items():
        for i in range(6):
            made.append(i)
            yield i

    ready = data.prefetch(items(), place=lambda i: 10 * i, depth=2)
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

    ready = data.prefetch(items(), place=lambda i: i)
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
    ready = data.prefetch(items(), place=lambda i: i)
    next(ready)
    assert threading.active_count() == threads + 1
    ready.close()
    assert threading.active_count() == threads  # one that outlived its reader could abort Python's exit
    count = len(made)
    time.sleep(0.2)
    assert len(made) == count


@pytest.mark.parametrize(("split", "count"), [("train", 28_558), ("valid", 3_579)])
def test_real_folders(real_dir: Path, split: str, count: int) -> None:
    loaded = data.load(real_dir, split)
    assert loaded.images.shape == (count, 48, 48)
    assert set(loaded.votes.sum(axis=1)) <= {9, 10}
