"""The drawn sample: real formats and traps, determinism, and faces that show what the votes say."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_generator.expressions import EMOTIONS
from fer_generator.faces import draw_clutter, draw_faces
from fer_generator.synthetic import (
    NOT_A_FACE,
    PIXEL_HEADER,
    VOTE_HEADER,
    OccupiedError,
    draw_split,
    vote,
    write_csvs,
)

SIZES = {"Training": 300, "PublicTest": 60, "PrivateTest": 40}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_csvs(folder, SIZES, seed=0)
    return folder


@pytest.fixture(scope="module")
def tables(sample: Path) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Pixels `int[N, 2304]`, the vote table, and its counts `int[N, 10]`."""
    pictures = pd.read_csv(sample / "fer2013.csv")
    table = pd.read_csv(sample / "fer2013new.csv")
    assert list(pictures.Usage) == list(table.Usage)
    pixels = np.array([[int(grey) for grey in row.split(" ")] for row in pictures.pixels])
    return pixels, table, table.iloc[:, 2:].to_numpy()


def test_formats(sample: Path, tables: tuple) -> None:
    pixels, table, votes = tables
    faces = (sample / "fer2013.csv").read_bytes().split(b"\n")
    assert faces[0] == b"emotion,pixels,Usage"
    assert faces[-1] == b""
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    assert (sample / "fer2013new.csv").read_text().splitlines()[0] == header
    assert list(table.Usage) == [usage for usage, n in SIZES.items() for _ in range(n)]
    assert pixels.shape == (400, 48 * 48)
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    assert votes.min() >= 0
    assert {int(line[: line.index(b",")]) for line in faces[1:-1]} == set(range(7))


@pytest.mark.skipif("FER2013_DIR" not in os.environ, reason="FER2013_DIR names no folder with the real CSVs")
@pytest.mark.parametrize(("name", "header"), [("fer2013.csv", PIXEL_HEADER), ("fer2013new.csv", VOTE_HEADER)])
def test_headers_are_the_real_ones(name: str, header: str) -> None:
    with open(Path(os.environ["FER2013_DIR"], name), encoding="ascii", newline="") as file:
        assert file.readline().rstrip("\r\n") == header


def test_nameless_rows_are_those_that_all_call_no_face(tables: tuple) -> None:
    _, table, votes = tables
    nameless = table["Image name"].isna().to_numpy()
    assert (nameless == (votes[:, 9] == 10)).all()
    assert nameless[17]
    assert nameless[59]


def test_numbers_rise_and_skip_some_nameless_rows_but_not_all(tables: tuple) -> None:
    _, table, _ = tables
    names = table["Image name"].dropna().drop(index=52)  # row 52 bears the name of row 69
    assert names.str.fullmatch(r"fer\d{7}\.png").all()
    numbers = names.str[3:10].astype(int)
    assert numbers.is_monotonic_increasing
    assert (numbers.loc[:51] != np.arange(len(numbers.loc[:51]))).any()  # not a count of named rows
    assert (numbers != numbers.index).any()  # nor a row number


def test_one_name_stands_on_two_rows_that_differ(tables: tuple) -> None:
    pixels, table, votes = tables
    names = table["Image name"]
    assert list(names.index[names.notna() & names.duplicated(keep=False)]) == [52, 69]
    assert (pixels[52] != pixels[69]).any()
    assert votes[52].argmax() != votes[69].argmax()


def test_ten_votes_but_for_one_picture(tables: tuple) -> None:
    _, _, votes = tables
    assert Counter(votes.sum(axis=1).tolist()) == {10: 399, 9: 1}


def test_some_training_pictures_return_and_no_others_are_alike(tables: tuple) -> None:
    pixels, table, votes = tables
    first: dict[bytes, int] = {}
    pairs = []
    for row, picture in enumerate(pixels.astype(np.uint8)):
        source = first.setdefault(picture.tobytes(), row)
        if source != row and pixels[row].std() > 0:
            pairs.append((source, row))
    sources = [source for source, _ in pairs]
    assert Counter(table.Usage[row] for _, row in pairs) == {"PublicTest": 2, "PrivateTest": 2}
    assert set(table.Usage[sources]) == {"Training"}
    assert any((votes[source] != votes[row]).any() for source, row in pairs)


def test_same_seed_same_bytes(sample: Path, tmp_path: Path) -> None:
    same = write_csvs(tmp_path / "same", SIZES, seed=0)
    other = write_csvs(tmp_path / "other", SIZES, seed=1)
    for again, changed in zip(same, other, strict=True):
        assert again.read_bytes() == (sample / again.name).read_bytes()
        assert changed.read_bytes() != again.read_bytes()
    assert sorted(path.name for path in (tmp_path / "same").iterdir()) == ["fer2013.csv", "fer2013new.csv"]


def test_rows_do_not_depend_on_how_many_follow() -> None:
    long = draw_split(3, "Training", 133)
    short = draw_split(3, "Training", 104)
    for few, many in zip(short, long, strict=True):
        np.testing.assert_array_equal(few, many[:104])
    for few, many in zip(draw_split(3, "PublicTest", 26, short), draw_split(3, "PublicTest", 41, long), strict=True):
        np.testing.assert_array_equal(few, many[:26])


def test_other_content_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "fer2013new.csv").write_text("mine")
    with pytest.raises(OccupiedError, match=r"fer2013new\.csv"):
        write_csvs(tmp_path, {"Training": 100, "PublicTest": 25, "PrivateTest": 25}, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["fer2013new.csv"]
    assert (tmp_path / "fer2013new.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["-o", "taken"], 1, "cannot write to taken: File exists: choose another folder with -o"),
        (["--train", "99"], 2, "error: 99 Training pictures are too few: ask for 100 or more"),
        (["--seed", "-1"], 2, "error: --seed must be 0 or more"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, arguments: list[str], status: int, line: str) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    command = [sys.executable, "-m", "fer_generator.synthetic", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].endswith(line)
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_votes_centre_on_a_clear_emotion_and_call_a_weak_one_neutral() -> None:
    emotion = np.repeat(np.arange(8), 500)
    clear = vote(np.random.default_rng(0), emotion, np.ones(4000)).reshape(8, 500, 10).mean(1)
    weak = vote(np.random.default_rng(0), emotion, np.full(4000, 0.15)).reshape(8, 500, 10).mean(1)
    np.testing.assert_array_equal(clear.argmax(1), np.arange(8))
    assert (clear.max(1) > 7).all()
    assert (weak.argmax(1) == 0).all()
    second = {EMOTIONS[e]: (*EMOTIONS, "unknown", "NF")[clear[e].argsort()[-2]] for e in range(8)}
    assert second["fear"] == "surprise"
    assert second["surprise"] == "fear"
    assert second["disgust"] == "anger"
    assert second["anger"] == "disgust"
    assert second["contempt"] == second["sadness"] == "neutral"


def test_taggers_see_that_a_thing_is_no_face() -> None:
    votes = vote(np.random.default_rng(0), np.full(500, NOT_A_FACE), np.full(500, 0.5))
    assert votes[:, :8].sum() == 0
    assert (votes[:, 9] > 5).mean() > 0.9
    assert 0 < (votes[:, 9] == 10).sum() < 500  # so some of them have a name


def faces(seed: int, emotion: int, intensity: float, n: int = 40) -> np.ndarray:
    """The same n people for the same seed."""
    drawn = draw_faces(np.random.default_rng(seed), np.full(n, emotion), np.full(n, intensity))
    return drawn.astype(np.float64)


def test_face_does_not_depend_on_its_batch() -> None:
    emotion, intensity = np.arange(23) % 8, np.linspace(0, 1, 23)
    many = draw_faces(np.random.default_rng(0), emotion, intensity)
    few = draw_faces(np.random.default_rng(0), emotion[:7], intensity[:7])
    assert many.dtype == np.uint8
    assert many.shape == (23, 48, 48)
    np.testing.assert_array_equal(few, many[:7])
    things = draw_clutter(np.random.default_rng(0), 9)
    np.testing.assert_array_equal(draw_clutter(np.random.default_rng(0), 4), things[:4])


@pytest.mark.parametrize("emotion", range(1, 8))
def test_expression_grows_from_the_resting_face(emotion: int) -> None:
    rest, half, full = (faces(0, emotion, intensity) for intensity in (0, 0.5, 1))
    np.testing.assert_array_equal(rest, faces(0, 0, 0))
    change_half, change_full = np.abs(half - rest).mean((1, 2)), np.abs(full - rest).mean((1, 2))
    assert (change_half > 0).all()
    assert (change_full > change_half).mean() > 0.9


def test_people_differ_more_than_their_expressions_do() -> None:
    """So that no template of grey values can tell the emotions apart."""
    emotions = np.array([faces(0, emotion, 1) for emotion in range(8)])
    between_emotions = np.abs(emotions[1:] - emotions[0]).mean()
    between_people = np.abs(emotions - np.roll(emotions, 1, axis=1)).mean()
    assert between_people > 2 * between_emotions


def test_each_emotion_changes_faces_in_its_own_way() -> None:
    """What an emotion changes in a face tells it in people never seen; the grey values themselves do not."""

    def changes(seed: int) -> np.ndarray:
        rest = faces(seed, 0, 0, 60)
        change = np.array([faces(seed, emotion, 1, 60) - rest for emotion in range(1, 8)]).reshape(7, 60, -1)
        return change / np.linalg.norm(change, axis=2, keepdims=True)

    def nearest_template(known: np.ndarray, unseen: np.ndarray) -> float:
        template = known.mean(1)
        template /= np.linalg.norm(template, axis=1, keepdims=True)
        return float(((unseen @ template.T).argmax(-1) == np.arange(7)[:, None]).mean())

    def greys(seed: int) -> np.ndarray:
        grey = np.array([faces(10 * seed + emotion, emotion, 1, 60) for emotion in range(1, 8)])
        grey -= grey.mean((2, 3), keepdims=True)
        return grey.reshape(7, 60, -1) / grey.std((2, 3)).reshape(7, 60, 1) / 48

    by_change, by_grey = nearest_template(changes(1), changes(2)), nearest_template(greys(1), greys(2))
    assert by_change > 0.4  # chance is 1 in 7
    assert by_grey < 0.25
