from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from changed_pictures import all_at_once, draw, highest_correlation, lighter, mirrored, moved, paler
from conftest import run_python
from PIL import Image
from scipy.ndimage import gaussian_filter

from fer_jax import repeats
from fer_jax.data import folders


@pytest.mark.parametrize("change", [np.array, lighter, paler, mirrored, all_at_once])
def test_changed_copies_are_found(change: Callable[[np.ndarray], np.ndarray]) -> None:
    others = draw(300, seed=0)
    rows = np.array([299, 0, 256, 255, 17])
    images = np.concatenate([draw(300, seed=1), change(others[rows])])
    assert repeats.near(images, others).tolist() == [-1] * 300 + rows.tolist()
    assert repeats.exact(images, others).tolist() == [False] * 300 + [change is np.array] * 5


def test_a_shift_by_three_pixels_is_another_picture() -> None:
    others = draw(40, seed=3)
    for down, right in ((0, 3), (3, 0), (-3, 3)):
        assert (repeats.near(moved(others, down, right), others) == -1).all()


def test_the_nearest_is_chosen_and_an_exact_one_first() -> None:
    image = draw(1, seed=7)
    blurred = gaussian_filter(image[0], 2)
    others = np.stack([draw(1, seed=8)[0], blurred, lighter(image)[0], image[0], image[0]])
    assert repeats.near(image, others).tolist() == [3]
    assert repeats.near(image, others[:3]).tolist() == [2]
    assert repeats.near(image, others[:2]).tolist() == [1]
    assert repeats.near(image, others[:1]).tolist() == [-1]


def test_flat_pictures_have_exact_repeats_only() -> None:
    flat = np.stack([np.full((48, 48), level, np.uint8) for level in (0, 90, 255)])
    edge = np.zeros((1, 48, 48), np.uint8)
    edge[0, 0, :] = 200  # flat as soon as it is shifted up
    others = np.concatenate([draw(4, seed=9), flat[1:2], edge])
    images = np.concatenate([flat, edge, edge // 2])
    assert repeats.near(images, others).tolist() == [-1, 4, -1, 5, 5]
    assert repeats.exact(images, others).tolist() == [False, True, False, True, False]
    assert repeats.drop(others, flat).tolist() == [True, True, True, True, False, True]


def test_drop_leaves_no_repeat_of_any_other_split() -> None:
    train, valid, test = draw(50, seed=10), draw(20, seed=11), draw(20, seed=12)
    train[7], train[8] = valid[0], all_at_once(valid)[1]
    train[30], train[31] = lighter(test)[19], moved(test, 0, 1)[18]
    train[40] = lighter(train)[41]  # copies within training stay
    keep = repeats.drop(train, valid, test)
    assert np.flatnonzero(~keep).tolist() == [7, 8, 30, 31]
    assert (repeats.near(train[keep], np.concatenate([valid, test])) == -1).all()
    assert repeats.drop(train).all()


def test_nothing_repeats_in_nothing() -> None:
    none, some = np.zeros((0, 48, 48), np.uint8), draw(3, seed=13)
    assert repeats.near(some, none).tolist() == [-1, -1, -1]
    assert repeats.near(none, some).shape == repeats.exact(none, some).shape == (0,)
    assert repeats.drop(some, none).all()


def write(folder: Path, images: np.ndarray) -> None:
    folder.mkdir()
    names = [f"fer{number:07}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    (folder / "label.csv").write_text("".join(f'{name},"(0, 0, 48, 48)",10,0,0,0,0,0,0,0,0,0\n' for name in names))


def test_command_counts_and_draws(tmp_path: Path) -> None:
    train, valid = draw(10, seed=14), draw(6, seed=15)
    valid[0], valid[1] = train[0], train[1]  # exact
    valid[2], valid[3], valid[4] = lighter(train)[2], mirrored(train)[3], moved(train, 1, 1)[4]
    train[9] = train[8]
    write(tmp_path / "FER2013Train", train)
    write(tmp_path / "FER2013Valid", valid)
    for name, message in (("sheet.txt", "name a .png file"), ("none/sheet.png", "name a file in a folder")):
        refused = run_python("-m", "fer_jax.repeats", "--data", str(tmp_path), "--sheet", str(tmp_path / name))
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr
    done = run_python("-m", "fer_jax.repeats", "--data", str(tmp_path), "--sheet", str(tmp_path / "sheet.png"))
    assert done.returncode == 0, done.stderr
    table = {
        tuple(line.split()[:2]): [int(figure) for figure in line.split()[2:]] for line in done.stdout.splitlines()[1:5]
    }
    assert table == {
        ("train", "itself"): [10, 2, 0, 0, 0, 0],
        ("train", "valid"): [10, 2, 3, 1, 1, 1],
        ("valid", "train"): [6, 2, 3, 1, 1, 1],
        ("valid", "itself"): [6, 0, 0, 0, 0, 0],
    }
    with Image.open(tmp_path / "sheet.png") as sheet:
        grey = np.asarray(sheet.convert("L"))
    assert (grey < 250).any(axis=0).mean() > 0.3  # three pairs of eight columns
    assert "3 of 3 pairs" in done.stdout


def test_command_without_data_says_how_to_get_it(tmp_path: Path) -> None:
    done = run_python("-m", "fer_jax.repeats", "--data", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: no train data in")
    assert len(done.stderr.splitlines()) == 1


def test_real_validation_pictures_in_training(real_dir: Path) -> None:
    train, valid = folders.load(real_dir, "train").images, folders.load(real_dir, "valid").images
    known = repeats.exact(valid, train)
    assert (len(valid), known.sum()) == (3579, 279)
    valid, known = valid[:800], known[:800]
    row = repeats.near(valid, train)
    assert (valid[known] == train[row[known]]).all()
    only_near = np.flatnonzero((row >= 0) & ~known)
    assert len(only_near) > 20
    assert all(highest_correlation(valid[i], train[row[i]]) >= repeats.THRESHOLD - 1e-5 for i in only_near)
