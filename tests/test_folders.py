import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_jax.core.errors import UserError
from fer_jax.data import digests, folders, label_csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of six flat images: image i has the level 40 i, 10 - i votes for neutral and i for happiness."""
    path = tmp_path / "FER2013Valid"
    path.mkdir()
    rows = []
    for i in range(6):
        Image.fromarray(np.full((48, 48), 40 * i, np.uint8)).save(path / f"fer{i:07}.png")
        rows.append(f'fer{i:07}.png,"(0, 0, 48, 48)",{10 - i},{i},0,0,0,0,0,0,0,0')
    (path / "label.csv").write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.slow
def test_load_equals_pillow_and_the_csv_row_by_row(sample_dir: Path) -> None:
    split = folders.load(sample_dir, "valid")
    table = pd.read_csv(sample_dir / "FER2013Valid" / "label.csv", header=None)
    assert split.names.tolist() == table[0].tolist()
    np.testing.assert_array_equal(split.votes, table.iloc[:, 2:])
    for row in (0, 1, len(table) // 2, len(table) - 1):
        with Image.open(sample_dir / "FER2013Valid" / table[0][row]) as image:
            np.testing.assert_array_equal(split.images[row], np.asarray(image))


def test_box_is_cropped_and_resized_to_48(folder: Path) -> None:
    image = np.zeros((96, 96), np.uint8)
    image[48:, 24:72] = 200
    Image.fromarray(image).save(folder / "fer0000000.png")
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


def brighten_stored(cache: Path) -> None:
    """Add 1 to all pixels in a cache: other content than the folder's shows that the cache is read."""
    content = bytearray(cache.read_bytes())
    start = content.index(b"|u1")
    start = content.index(b"\n", start) + 1
    pixels = np.frombuffer(content, np.uint8, 6 * 48 * 48, start)
    assert pixels.tolist() == np.repeat(40 * np.arange(6), 48 * 48).tolist()
    pixels += 1
    cache.write_bytes(content)


def test_cache_is_read_until_the_folder_changes(folder: Path) -> None:
    first = folders.load(folder.parent, "valid")
    cache = folder.parent / "FER2013Valid.cache"
    time = cache.stat().st_mtime_ns
    second = folders.load(folder.parent, "valid")
    assert cache.stat().st_mtime_ns == time
    jax.tree.map(np.testing.assert_array_equal, first, second)
    images = first.images.copy()

    brighten_stored(cache)
    np.testing.assert_array_equal(folders.load(folder.parent, "valid").images, images + 1)

    changed = folder / "fer0000003.png"
    time = changed.stat().st_mtime_ns
    Image.fromarray(np.full((48, 48), 99, np.uint8)).save(changed)
    os.utime(changed, ns=(time, time + 1))  # a coarse clock could show the same time
    assert (folders.load(folder.parent, "valid").images[3] == 99).all()
    np.testing.assert_array_equal(folders.load(folder.parent, "valid").images[0], images[0])


@pytest.mark.parametrize("kept", [0, 9, 150, 9_000, -1])
def test_a_cache_that_is_cut_off_is_decoded_again(folder: Path, kept: int) -> None:
    expected = jax.tree.map(np.copy, folders.load(folder.parent, "valid"))
    cache = folder.parent / "FER2013Valid.cache"
    content = cache.read_bytes()
    cache.unlink()  # not cut off in its place: it is mapped
    cache.write_bytes(content[:kept])
    jax.tree.map(np.testing.assert_array_equal, folders.load(folder.parent, "valid"), expected)
    assert cache.read_bytes() == content


def test_a_cache_of_another_reader_is_decoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = jax.tree.map(np.copy, folders.load(folder.parent, "valid"))
    brighten_stored(folder.parent / "FER2013Valid.cache")
    monkeypatch.setattr(folders, "_READER", "another")
    jax.tree.map(np.testing.assert_array_equal, folders.load(folder.parent, "valid"), first)


def test_a_cache_is_mapped_not_read_and_stays_while_another_takes_its_place(folder: Path) -> None:
    first = folders.load(folder.parent, "valid")
    cache = folder.parent / "FER2013Valid.cache"
    for array in first:
        assert not array.flags.writeable
        assert isinstance(array.base, np.memmap)
        assert array.base.filename == str(cache)
    (folder / "fer0000005.png").unlink()
    text = (folder / "label.csv").read_text().splitlines(keepends=True)
    (folder / "label.csv").write_text("".join(text[:5]))
    assert len(folders.load(folder.parent, "valid").images) == 5
    assert first.images[:, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]


def test_a_cache_that_another_process_wrote_meanwhile_stays(folder: Path) -> None:
    cache, inodes = folder.parent / "FER2013Valid.cache", []
    names, votes = np.array([f"fer{i:07}.png" for i in range(6)]), np.zeros((6, 10), np.int32)

    def images(level: int) -> Iterator[np.ndarray]:
        for row in range(6):
            if level == 1 and row == 3:  # the other process is quicker
                folders.store(folder, files, images(2), votes, names)
                inodes.append(cache.stat().st_ino)
            yield np.full((48, 48), level, np.uint8)

    files = folders.fingerprint(folder)
    with pytest.raises(FileExistsError):
        folders.store(folder, files, images(1), votes, names)
    assert [cache.stat().st_ino] == inodes
    assert (folders.load(folder.parent, "valid").images == 2).all()
    assert not list(folder.parent.glob(".*"))


def test_the_cache_of_an_older_version_is_removed(folder: Path) -> None:
    older = folder.parent / "FER2013Valid.cache.npz"
    older.write_bytes(b"compressed")
    folders.load(folder.parent, "valid")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["FER2013Valid", "FER2013Valid.cache"]


def test_digests_are_blake2_of_the_pixels(folder: Path) -> None:
    split = folders.load(folder.parent, "valid")
    expected = [hashlib.blake2b(bytes([40 * i]) * 48 * 48, digest_size=16).digest() for i in range(6)]
    assert split.digests.dtype == "S16"
    assert split.digests.tobytes() == b"".join(expected)


def test_a_folder_of_several_chunks_is_read_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_CHUNK", 4)
    monkeypatch.setattr(label_csv, "_CHUNK", 4)
    split = folders.load(folder.parent, "valid")
    assert split.images[:, 7, 9].tolist() == [0, 40, 80, 120, 160, 200]
    assert split.votes[:, :2].tolist() == [[10 - i, i] for i in range(6)]
    assert split.names.tolist() == [f"fer{i:07}.png" for i in range(6)]
    edit("5,5,0", "5,-5,0")(folder)
    with pytest.raises(UserError, match="row 6: a vote is negative"):
        folders.load(folder.parent, "valid")


RAMP = np.tile(np.arange(48, dtype=np.uint8) * 5, (48, 1))  # from black on the left to 235


def turned(path: Path) -> None:
    """A camera's JPEG that was held upright: EXIF says to turn it by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(RAMP)).save(path, "JPEG", quality=100, exif=exif)


def transparent(path: Path) -> None:
    """Grey where it is opaque; black under a fully transparent half."""
    alpha = np.where(RAMP < 120, 0, 255).astype(np.uint8)
    Image.merge("LA", [Image.fromarray(np.where(alpha, RAMP, 0).astype(np.uint8)), Image.fromarray(alpha)]).save(path)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: Image.fromarray(RAMP.astype(np.uint16) * 257).save(path), RAMP),
        (lambda path: Image.fromarray(RAMP.astype(np.float32) / 255).save(path, "TIFF"), RAMP),
        (turned, RAMP),
        (transparent, np.where(RAMP < 120, 128, RAMP)),
        (lambda path: Image.fromarray(RAMP).convert("RGB").save(path), RAMP),
        (lambda path: Image.fromarray(RAMP).convert("P").save(path), RAMP),
    ],
    ids=["16 bits", "float", "turned", "transparent", "RGB", "palette"],
)
def test_images_of_other_kinds_get_the_right_grey(folder: Path, write: Callable[[Path], None], expected) -> None:
    write(folder / "fer0000002.png")
    image = folders.load(folder.parent, "valid").images[2]
    np.testing.assert_allclose(image.astype(int), expected, atol=2)  # JPEG is not exact


def test_a_float_image_outside_its_range_is_refused_by_file_and_reason(folder: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32)).save(folder / "fer0000002.png", "TIFF")
    with pytest.raises(UserError, match=r"row 3: fer0000002\.png has values from 0 to 235, outside 0\.\.1: .*generate"):
        folders.load(folder.parent, "valid")


def test_data_folder_without_a_writable_cache_is_no_error(folder: Path) -> None:
    (folder.parent / "FER2013Valid.cache").mkdir()  # no file can take its place
    split = folders.load(folder.parent, "valid")
    assert split.images[:, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]
    assert len({*split.digests.tolist()}) == len(split.votes) == len(split.names) == 6
    assert not list(folder.parent.glob(".*"))


def edit(old: str, new: str) -> Callable[[Path], None]:
    """Replace a text in label.csv once."""

    def damage(folder: Path) -> None:
        text = (folder / "label.csv").read_text()
        assert old in text
        (folder / "label.csv").write_text(text.replace(old, new, 1))

    return damage


def set_byte(name: str, position: int, byte: int) -> Callable[[Path], None]:
    """Overwrite one byte of a file."""

    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[position] = byte
        (folder / name).write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"no valid data in .*FER2013Valid: run 'fer-jax generate -d .*fer_generator/"),
        (lambda f: (f / "fer0000002.png").unlink(), r"label\.csv, row 3: fer0000002\.png does not exist"),
        (lambda f: (f / "fer0000002.png").write_text("x"), r"row 3: fer0000002\.png cannot be read as an image"),
        (lambda f: os.truncate(f / "fer0000002.png", 60), r"row 3: .* cannot be read as an image"),
        (set_byte("fer0000002.png", 36, 1), r"row 3: .* cannot be read as an image"),  # length of the pixels
        (set_byte("fer0000002.png", 11, 0x01), r"row 3: .* cannot be read as an image"),  # length of the header
        (lambda f: (f / "label.csv").write_text("a,b,1\n"), r"label\.csv: 3 columns instead of 12"),
        (lambda f: (f / "label.csv").write_text(""), r"label\.csv: No columns"),
        (edit("10,0,0", "x,0,0"), r"label\.csv: a vote is not a whole number"),
        (edit("9,1,0", "-9,1,0"), r"label\.csv, row 2: a vote is negative"),
        (edit("9,1,0", "9,2000000000,0"), r"label\.csv, row 2: a vote is above 1,000,000"),
        (edit("(0, 0, 48, 48)", "(" * 9000), r"row 1: the box '\(\(\(.{,70}'"),
        (edit("fer0000002.png", "../fer0000002.png"), r"row 3: \.\./fer0000002\.png is a path, not a name"),
        (lambda f: [path.unlink() for path in f.glob("*.png")], "has a label.csv without images, as in a clone of"),
        (edit("(0, 0, 48, 48)", "48"), r"row 1: the box '48'"),
        (edit("(0, 0, 48, 48)", "(0, 0, 48.5, 48)"), r"row 1: the box '\(0, 0, 48\.5, 48\)'"),
        (edit("(0, 0, 48, 48)", "(0, 0, 48, 49)"), r"row 1: the box .* does not fit into .*, which is 48x48"),
    ],
)
def test_damaged_folders_get_one_line_with_a_remedy(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=rf"{message}.*generate") as error:
        folders.load(folder.parent, "valid")
    assert "\n" not in str(error.value)


def test_missing_split_names_the_existing_ones(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no test data in .*FER2013Test, only valid: generate the folder again"):
        folders.load(folder.parent, "test")


@pytest.mark.parametrize(("split", "count"), [("train", 28_558), ("valid", 3_579)])
def test_real_folders(real_dir: Path, split: str, count: int) -> None:
    loaded = folders.load(real_dir, split)
    assert loaded.images.shape == (count, 48, 48)
    assert set(loaded.votes.sum(axis=1)) <= {9, 10}


def test_the_validation_images_of_fer2013_are_recognised(real_dir: Path, sample_dir: Path) -> None:
    of_real = folders.load(real_dir, "valid").digests
    assert digests.are_of_fer2013(of_real[::-1])
    assert not digests.are_of_fer2013(of_real[1:])
    for other in (folders.load(real_dir, "train"), folders.load(sample_dir, "valid")):
        assert not digests.are_of_fer2013(other.digests)
