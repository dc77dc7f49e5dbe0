import os
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_jax.core.cli import UserError
from fer_jax.data import batching, folders, labels


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
    split = folders.load(sample_dir, "valid")
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
    split = folders.load(folder.parent, "valid")
    assert (split.images[0] == 200).all()
    text = text.replace("(24, 48, 72, 96)", "(0, 0, 96, 96)", 1)
    (folder / "label.csv").write_text(text)
    whole = folders.load(folder.parent, "valid").images[0]
    assert whole.shape == (48, 48)
    assert whole[:20].max() == 0
    assert whole[40, 24] == 200


def test_cache_is_used_and_notices_changes(folder: Path) -> None:
    first = folders.load(folder.parent, "valid")
    cache = folder.parent / "FER2013Valid.cache.npz"
    written = cache.stat().st_mtime_ns
    again = folders.load(folder.parent, "valid")
    assert cache.stat().st_mtime_ns == written
    jax.tree.map(np.testing.assert_array_equal, first, again)

    # a cache that is read gives what is in it, even if that is not what the folder holds
    with np.load(cache) as stored:
        content = dict(stored)
    np.savez(cache, **{**content, "images": content["images"] + 1})
    np.testing.assert_array_equal(folders.load(folder.parent, "valid").images, first.images + 1)

    time.sleep(0.01)
    Image.fromarray(np.full((48, 48), 99, np.uint8)).save(folder / "fer0000003.png")
    assert (folders.load(folder.parent, "valid").images[3] == 99).all()
    np.testing.assert_array_equal(folders.load(folder.parent, "valid").images[0], first.images[0])

    cache.write_bytes(b"cut off")
    assert (folders.load(folder.parent, "valid").images[3] == 99).all()


def test_read_only_data_folder_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "FER2013Valid.cache.npz").mkdir()  # nothing can be written in its place
    assert len(folders.load(folder.parent, "valid").images) == 6
    assert not list(folder.parent.glob(".*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), r"no valid data in .*FER2013Valid.*generate_training_data\.py.*make sample"),
        (lambda f: (f / "fer0000002.png").unlink(), r"label\.csv, row 3: no such picture: .*fer0000002\.png"),
        (lambda f: (f / "fer0000002.png").write_text("x"), r"row 3: not a readable picture"),
        (lambda f: os.truncate(f / "fer0000002.png", 60), r"row 3: not a readable picture"),
        (lambda f: put(f / "fer0000002.png", 36, 1), r"row 3: not a readable picture"),  # length of the pixels
        (lambda f: put(f / "fer0000002.png", 11, 0x01), r"row 3: not a readable picture"),  # length of the header
        (lambda f: (f / "label.csv").write_text("a,b,1\n"), r"label\.csv: 3 columns"),
        (lambda f: (f / "label.csv").write_text(""), r"label\.csv: No columns"),
        (lambda f: edit(f, "10,0,0", "x,0,0"), r"label\.csv: a vote is not a whole number"),
        (lambda f: edit(f, "9,1,0", "-9,1,0"), r"label\.csv, row 2: a vote is negative"),
        (lambda f: edit(f, "(0, 0, 48, 48)", "48"), r"row 1: the box '48'"),
        (lambda f: edit(f, "(0, 0, 48, 48)", "(0, 0, 48.5, 48)"), r"row 1: the box '\(0, 0, 48\.5, 48\)'"),
        (lambda f: edit(f, "(0, 0, 48, 48)", "(0, 0, 48, 49)"), r"row 1: the box .* is larger than .*, which is 48x48"),
    ],
)
def test_damaged_folders_get_one_line(folder: Path, damage, message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        folders.load(folder.parent, "valid")
    assert "\n" not in str(error.value)


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "label.csv").read_text()
    assert old in text
    (folder / "label.csv").write_text(text.replace(old, new, 1))


def put(file: Path, place: int, byte: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] = byte
    file.write_bytes(content)


def test_select_keeps_what_the_mode_keeps(folder: Path) -> None:
    split = folders.load(folder.parent, "valid")
    examples = batching.select(split, "majority")
    target, keep = labels.targets(split.votes, "majority")
    assert np.flatnonzero(keep).tolist() == [0, 1, 2, 3, 4]  # 5 against 5 is dropped
    np.testing.assert_array_equal(examples.images, split.images[:5])
    np.testing.assert_array_equal(examples.target, target[:5])


@pytest.mark.parametrize(("split", "count"), [("train", 28_558), ("valid", 3_579)])
def test_real_folders(real_dir: Path, split: str, count: int) -> None:
    loaded = folders.load(real_dir, split)
    assert loaded.images.shape == (count, 48, 48)
    assert set(loaded.votes.sum(axis=1)) <= {9, 10}
