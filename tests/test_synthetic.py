"""The drawn sample: formats and traps of the real data, determinism, and faces that show the emotion voted for."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_generator.faces import draw_clutter, draw_faces
from fer_generator.read_csv import EMOTIONS, VOTE_COLUMNS
from fer_generator.synthetic import (
    NOT_A_FACE,
    FileConflictError,
    draw_split,
    generator_command,
    main,
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
    images = pd.read_csv(sample / "fer2013.csv")
    table = pd.read_csv(sample / "fer2013new.csv")
    assert list(images.Usage) == list(table.Usage)
    pixels = np.array([[int(gray) for gray in row.split(" ")] for row in images.pixels])
    return pixels, table, table.iloc[:, 2:].to_numpy()


def test_formats(sample: Path, tables: tuple) -> None:
    pixels, table, _ = tables
    lines = (sample / "fer2013.csv").read_bytes().split(b"\n")
    assert lines[0] == b"emotion,pixels,Usage"
    assert lines[-1] == b""
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    assert (sample / "fer2013new.csv").read_text().splitlines()[0] == header
    assert list(table.Usage) == [usage for usage, n in SIZES.items() for _ in range(n)]
    assert pixels.shape == (400, 48 * 48)
    assert {int(line[: line.index(b",")]) for line in lines[1:-1]} == set(range(7))


def test_rows_without_a_name_have_ten_votes_for_no_face(tables: tuple) -> None:
    _, table, votes = tables
    nameless = table["Image name"].isna().to_numpy()
    assert (nameless == (votes[:, 9] == 10)).all()
    assert nameless[17]
    assert nameless[59]


def test_numbers_in_names_skip_some_nameless_rows_and_count_others(tables: tuple) -> None:
    _, table, _ = tables
    names = table["Image name"].dropna().drop(index=52)  # row 52 has the name of row 69
    assert names.str.fullmatch(r"fer\d{7}\.png").all()
    numbers = names.str[3:10].astype(int)
    assert numbers.is_monotonic_increasing
    assert (numbers.loc[:51] != np.arange(len(numbers.loc[:51]))).any()  # not a count of named rows
    assert (numbers != numbers.index).any()  # nor a row number


def test_two_rows_with_different_images_have_the_same_name(tables: tuple) -> None:
    pixels, table, votes = tables
    names = table["Image name"]
    assert list(names.index[names.notna() & names.duplicated(keep=False)]) == [52, 69]
    assert (pixels[52] != pixels[69]).any()
    assert votes[52].argmax() != votes[69].argmax()


def test_every_image_except_one_has_ten_votes(tables: tuple) -> None:
    _, _, votes = tables
    assert Counter(votes.sum(axis=1).tolist()) == {10: 399, 9: 1}


def test_only_some_training_images_have_duplicates_in_the_other_splits(tables: tuple) -> None:
    pixels, table, votes = tables
    first_row: dict[bytes, int] = {}
    pairs = []
    for row, image in enumerate(pixels.astype(np.uint8)):
        source = first_row.setdefault(image.tobytes(), row)
        if source != row and pixels[row].std() > 0:
            pairs.append((source, row))
    sources = [source for source, _ in pairs]
    assert Counter(table.Usage[row] for _, row in pairs) == {"PublicTest": 2, "PrivateTest": 2}
    assert set(table.Usage[sources]) == {"Training"}
    assert any((votes[source] != votes[row]).any() for source, row in pairs)


def test_same_seed_same_bytes(sample: Path, tmp_path: Path) -> None:
    same_seed = write_csvs(tmp_path / "same", SIZES, seed=0)
    other_seed = write_csvs(tmp_path / "other", SIZES, seed=1)
    for same, other in zip(same_seed, other_seed, strict=True):
        assert same.read_bytes() == (sample / same.name).read_bytes()
        assert other.read_bytes() != same.read_bytes()
    assert sorted(path.name for path in (tmp_path / "same").iterdir()) == ["fer2013.csv", "fer2013new.csv"]


def test_rows_do_not_depend_on_the_number_of_rows() -> None:
    long = draw_split(3, "Training", 133)
    short = draw_split(3, "Training", 104)
    for short_field, long_field in zip(short, long, strict=True):
        np.testing.assert_array_equal(short_field, long_field[:104])
    short_test, long_test = draw_split(3, "PublicTest", 26, short), draw_split(3, "PublicTest", 41, long)
    for short_field, long_field in zip(short_test, long_test, strict=True):
        np.testing.assert_array_equal(short_field, long_field[:26])


def test_file_with_other_content_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "fer2013new.csv").write_text("mine")
    with pytest.raises(FileConflictError, match=r"fer2013new\.csv"):
        write_csvs(tmp_path, {"Training": 100, "PublicTest": 25, "PrivateTest": 25}, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["fer2013new.csv"]
    assert (tmp_path / "fer2013new.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["-o", "file"], 1, "error: cannot write to file: File exists; choose another folder with -o"),
        (["-o", "."], 1, "error: fer2013new.csv has other content and is left unchanged; delete it or choose another"),
        (["--train", "99"], 2, "error: --train must be at least 100, not 99"),
        (["--seed", "-1"], 2, "error: --seed must be at least 0, not -1"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    line: str,
) -> None:
    for name in ("file", "fer2013new.csv"):
        (tmp_path / name).write_text("content of a user")
    monkeypatch.chdir(tmp_path)
    if status == 2:
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    else:
        assert main([*arguments, "--train", "100", "--valid", "25", "--test", "25"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert line in captured.err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fer2013new.csv", "file"]


def test_printed_command_quotes_paths() -> None:
    files = Path("my data/out"), Path("my data/fer2013.csv"), Path("fer2013new.csv")
    arguments = "-d 'my data/out' -fer 'my data/fer2013.csv' -ferplus fer2013new.csv"
    assert generator_command(*files) == f"python -m fer_generator.generate_training_data {arguments}"
    # the form that the user typed
    assert generator_command(*files, "fer-jax sample") == f"fer-jax generate {arguments}"
    assert generator_command(*files, "python -m fer_jax sample") == f"python -m fer_jax generate {arguments}"


def test_votes_are_for_a_clear_emotion_and_neutral_for_a_weak_one() -> None:
    emotion = np.repeat(np.arange(8), 500)
    clear = vote(np.random.default_rng(0), emotion, np.ones(4000)).reshape(8, 500, 10).mean(1)
    weak = vote(np.random.default_rng(0), emotion, np.full(4000, 0.15)).reshape(8, 500, 10).mean(1)
    np.testing.assert_array_equal(clear.argmax(1), np.arange(8))
    assert (clear.max(1) > 7).all()
    assert (weak.argmax(1) == 0).all()
    second = {name: VOTE_COLUMNS[counts.argsort()[-2]] for name, counts in zip(EMOTIONS, clear, strict=True)}
    assert second["fear"] == "surprise"
    assert second["surprise"] == "fear"
    assert second["disgust"] == "anger"
    assert second["anger"] == "disgust"
    assert second["contempt"] == second["sadness"] == "neutral"


def test_most_votes_for_clutter_are_for_no_face() -> None:
    votes = vote(np.random.default_rng(0), np.full(500, NOT_A_FACE), np.full(500, 0.5))
    assert votes[:, :8].sum() == 0
    assert (votes[:, 9] > 5).mean() > 0.9
    assert 0 < (votes[:, 9] == 10).sum() < 500  # some of these images have a name


def faces(seed: int, emotion: int, intensity: float, n: int = 40) -> np.ndarray:
    """Images of n people, the same people for the same seed, `f64[n, 48, 48]`."""
    images = draw_faces(np.random.default_rng(seed), np.full(n, emotion), np.full(n, intensity))
    return images.astype(np.float64)


def test_face_does_not_depend_on_its_batch() -> None:
    emotion, intensity = np.arange(23) % 8, np.linspace(0, 1, 23)
    images = draw_faces(np.random.default_rng(0), emotion, intensity)
    assert images.dtype == np.uint8
    assert images.shape == (23, 48, 48)
    np.testing.assert_array_equal(draw_faces(np.random.default_rng(0), emotion[:7], intensity[:7]), images[:7])
    clutter = draw_clutter(np.random.default_rng(0), 9)
    np.testing.assert_array_equal(draw_clutter(np.random.default_rng(0), 4), clutter[:4])


@pytest.mark.parametrize("emotion", range(1, 8))
def test_expression_grows_from_the_resting_face(emotion: int) -> None:
    rest, half, full = (faces(0, emotion, intensity) for intensity in (0, 0.5, 1))
    np.testing.assert_array_equal(rest, faces(0, 0, 0))
    change_half, change_full = np.abs(half - rest).mean((1, 2)), np.abs(full - rest).mean((1, 2))
    assert (change_half > 0).all()
    assert (change_full > change_half).mean() > 0.9


def test_change_from_the_resting_face_predicts_the_emotion_and_gray_values_do_not() -> None:
    """Nearest template, with templates from other people: of the change from the resting face, and of the image."""

    def changes(seed: int) -> np.ndarray:
        rest = faces(seed, 0, 0, 60)
        change = np.array([faces(seed, emotion, 1, 60) - rest for emotion in range(1, 8)]).reshape(7, 60, -1)
        return change / np.linalg.norm(change, axis=2, keepdims=True)

    def images(seed: int) -> np.ndarray:
        image = np.array([faces(10 * seed + emotion, emotion, 1, 60) for emotion in range(1, 8)])
        image -= image.mean((2, 3), keepdims=True)
        return image.reshape(7, 60, -1) / image.std((2, 3)).reshape(7, 60, 1) / 48

    def accuracy(train: np.ndarray, test: np.ndarray) -> float:
        template = train.mean(1)
        template /= np.linalg.norm(template, axis=1, keepdims=True)
        return float(((test @ template.T).argmax(-1) == np.arange(7)[:, None]).mean())

    assert accuracy(changes(1), changes(2)) > 0.4  # chance is 1 in 7
    assert accuracy(images(1), images(2)) < 0.25
