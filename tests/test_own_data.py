"""The import of a user's images: names of emotions, folders and CSVs, splits, the data folder, what is left out."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_generator import all_or_nothing
from fer_generator.faces import draw_faces
from fer_jax import import_data
from fer_jax.core.errors import UserError
from fer_jax.curation import groups, import_report, listing, own_data
from fer_jax.data import duplicates, folders, labels
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import detect
from fer_jax.faces.detect import Detection

FOLDERS = {"Happy": 1, "02 sad": 3, "angry": 4}


def faces(emotion: int, count: int, seed: int = 0) -> np.ndarray:
    return draw_faces(np.random.default_rng((seed, emotion)), np.full(count, emotion), np.full(count, 1.0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Folders of three emotions with ten drawn faces each."""
    for name, emotion in FOLDERS.items():
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for i, image in enumerate(faces(emotion, 10)):
            Image.fromarray(image).save(folder / f"{i}.png")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        ("Happy", "happiness"),
        ("3_angry", "anger"),
        ("04-Fearful", "fear"),
        ("afraid", "fear"),
        ("CONTEMPTUOUS", "contempt"),
        ("calm", "neutral"),
        ("Disgusted", "disgust"),
        ("surprised", "surprise"),
        (" sadness ", "sadness"),
    ],
)
def test_emotions_go_by_their_usual_names(name: str, emotion: str) -> None:
    assert listing.emotion_index(name) == EMOTIONS.index(emotion)


@pytest.mark.parametrize("name", ["misc", "", "not happy", "train"])
def test_other_names_are_no_emotion(name: str) -> None:
    assert listing.emotion_index(name) is None


def test_a_synonym_belongs_to_one_emotion() -> None:
    names = [name for emotion in EMOTIONS for name in (emotion, *listing.SYNONYMS[emotion])]
    assert len({*names}) == len(names)


def test_a_folder_of_folders_becomes_a_data_folder(source: Path, tmp_path: Path) -> None:
    (source / "Happy" / "notes.txt").write_text("mine")
    (source / "misc").mkdir()
    result = own_data.import_data(source, tmp_path / "data")
    assert result.counts == {"train": [0, 8, 0, 8, 8, 0, 0, 0], "valid": [0, 2, 0, 2, 2, 0, 0, 0]}
    assert result.unreadable == []
    assert {Path(entry.name).name for entry in result.left_out} == {"notes.txt", "misc"}
    assert not (tmp_path / "data" / "FER2013Test").exists()
    for split in ("train", "valid"):
        folder = tmp_path / "data" / folders.FOLDERS[split]
        loaded = folders.load(tmp_path / "data", split)
        with open(folder / own_data.SOURCES, newline="") as file:
            files = {row["name"]: Path(row["file"]) for row in csv.DictReader(file)}
        for image, votes, name in zip(loaded.images, loaded.votes, loaded.names, strict=True):
            assert np.array_equal(image, np.asarray(Image.open(files[name])))
            assert votes[FOLDERS[files[name].parent.name]] == votes.sum() == 10
            stored = Image.open(folder / name)
            assert (stored.mode, stored.size) == ("L", (48, 48))
        for mode in labels.MODES:
            assert labels.targets(loaded.votes, mode)[1].all()


def test_the_same_input_gives_the_same_folder_and_another_seed_another_split(source: Path, tmp_path: Path) -> None:
    def states(out: Path) -> dict[Path, bytes]:
        return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        own_data.import_data(source, tmp_path / name, seed=seed, test=0.2)
    assert states(tmp_path / "a") == states(tmp_path / "b") != states(tmp_path / "c")
    assert len(states(tmp_path / "a")) == 30 + 3 * 3 + 1


def test_no_duplicate_and_no_person_is_in_two_splits(tmp_path: Path) -> None:
    """Each face four times: brighter, mirrored, shifted by a pixel; two faces are of one person."""
    lines = [["File", "Emotion", "Person"]]
    for emotion in (1, 4):
        for i, face in enumerate(faces(emotion, 8)):
            views = [face, (face * 0.8 + 20).astype(np.uint8), face[:, ::-1], np.roll(face, 1, axis=0)]
            for j, view in enumerate(views):
                Image.fromarray(view).save(tmp_path / f"{emotion}_{i}_{j}.png")
                lines.append([f"{emotion}_{i}_{j}.png", EMOTIONS[emotion], f"person {i // 2}" if emotion == 4 else ""])
    (tmp_path / "mine.csv").write_text("\n".join(";".join(line) for line in lines), encoding="utf-8-sig")
    result = own_data.import_data(tmp_path / "mine.csv", tmp_path / "data", valid=0.25)
    assert sum(map(sum, result.counts.values())) == 64
    assert result.left_out == []
    train, valid = (folders.load(tmp_path / "data", split) for split in ("train", "valid"))
    assert (duplicates.near(valid, train) < 0).all()
    persons = []
    for split in ("FER2013Train", "FER2013Valid"):
        with open(tmp_path / "data" / split / own_data.SOURCES, newline="") as file:
            persons.append({row["person"] for row in csv.DictReader(file)} - {""})
    assert persons[0]
    assert persons[1]
    assert not persons[0] & persons[1]


def test_folders_of_persons(source: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted(source.rglob("*.png"))):
        folder = path.parent / f"person{i % 5}"
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    entries, _ = listing.read(source, "folder")
    assert {entry.person for entry in entries} == {f"person{i}" for i in range(5)}
    assert {entry.person for entry in listing.read(source, None)[0]} == {""}
    with pytest.raises(UserError, match="is a folder; give --person folder"):
        listing.read(source, "name")


def test_groups_are_connected() -> None:
    a, b, c, d = faces(1, 4)
    images = np.stack([a, b, a[:, ::-1], c, d, np.zeros_like(a), np.zeros_like(a)])
    assert list(groups.find(images)) == [0, 1, 0, 2, 3, 4, 4]
    assert list(groups.find(images, ["", "p", "p", "q", "", "q", ""])) == [0, 0, 0, 1, 2, 1, 1]
    assert list(groups.find(images[:0])) == []


def test_parts_have_the_classes_in_proportion() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(300), rng.integers(1, 5, 300))
    classes = rng.choice(8, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.01, 0.01], size=len(group))
    part = groups.divide(group, classes, [0.6, 0.4, 0.0], seed=1)
    for index, fraction in enumerate((0.6, 0.4, 0.0)):
        counts = np.bincount(classes[part == index], minlength=8)
        np.testing.assert_allclose(counts, fraction * np.bincount(classes, minlength=8), atol=1.5)
    assert all(len({*part[group == number]}) == 1 for number in range(300))
    assert list(groups.divide(np.arange(0), np.arange(0), [0.5, 0.5], 0)) == []


def test_copies_are_left_out_and_contradictions_altogether(source: Path, tmp_path: Path) -> None:
    shutil.copy(source / "Happy" / "0.png", source / "Happy" / "copy.png")
    shutil.copy(source / "Happy" / "1.png", source / "angry" / "copy.png")
    result = own_data.import_data(source, tmp_path / "data")
    assert sum(map(sum, result.counts.values())) == 29
    lines = import_report.reasons(result.left_out)
    assert lines[0].startswith("left out: 1 the same pixels as another image: ")
    assert lines[1].startswith("left out: 2 the same pixels with several emotions: ")
    assert "(happiness and anger)" in lines[1]
    with open(tmp_path / "data" / "FER2013Train" / own_data.LEFT_OUT, newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_unreadable_files_are_named_and_the_others_imported(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "angry" / "broken.png").write_bytes(b"not an image")
    out = tmp_path / "data"
    assert import_data.main([str(source), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "broken.png" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out.splitlines()[4].split() == ["all", "24", "6", "30"]
    assert "no training image of neutral, surprise, disgust, fear, contempt: " in printed.out
    (source / "angry" / "broken.png").unlink()
    assert import_data.main([str(source), "--out", str(out)]) == 0  # replaces the first
    assert len(list(out.rglob("*.png"))) == 30


def test_rows_of_a_csv_that_cannot_be_used(source: Path, tmp_path: Path) -> None:
    rows = ["file,emotion", ",happy", "images/none.png,happy", "images/Happy/0.png,tired", "images/Happy/1.png,happy"]
    rows += ["images/Happy/1.png,sad", *(f"images/angry/{i}.png,angry" for i in range(5))]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    result = own_data.import_data(tmp_path / "mine.csv", tmp_path / "data")
    assert sum(map(sum, result.counts.values())) == 6
    assert [(Path(entry.name).name, entry.reason) for entry in result.left_out] == [
        ("mine.csv, line 2", "no file name"),
        ("0.png", "not an emotion"),
        ("1.png", "on an earlier row too"),
    ]
    assert [Path(entry.name).name for entry in result.unreadable] == ["none.png"]


def no_folder(path: Path) -> Path:
    return path / "none"


def no_emotion(path: Path) -> Path:
    (path / "train" / "happy").mkdir(parents=True)
    return path


def no_image(path: Path) -> Path:
    (path / "happy").mkdir()
    return path


def one_image(path: Path) -> Path:
    (path / "happy").mkdir()
    Image.fromarray(faces(1, 1)[0]).save(path / "happy" / "0.png")
    return path


def no_header(path: Path) -> Path:
    (path / "mine.csv").write_text("0.png,happy\n")
    return path / "mine.csv"


def empty_csv(path: Path) -> Path:
    (path / "mine.csv").write_text("file,emotion\n")
    return path / "mine.csv"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_folder, "no folder or CSV"),
        (no_emotion, r"no folder named after an emotion.*its folders: train"),
        (no_image, "no image of .* can be used"),
        (one_image, r"no image is left for valid: too few different persons and photographs \(1\)"),
        (no_header, r"no column file: its first line must name the columns"),
        (empty_csv, "no row with a file and an emotion"),
    ],
)
def test_input_that_cannot_be_used_gets_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match=message) as error:
        own_data.import_data(make(tmp_path / "source"), tmp_path / "data")
    assert "\n" not in str(error.value)
    assert len(str(error.value).replace(str(tmp_path), "")) < 300
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_folders_of_other_origin_stay(source: Path, tmp_path: Path, sample_dir: Path) -> None:
    out = tmp_path / "data"
    shutil.copytree(sample_dir, out)
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(UserError, match="was not made by an import"):
        own_data.import_data(source, out)
    assert sorted(path.name for path in out.rglob("*")) == before
    own_data.import_data(source, tmp_path / "mine")
    with pytest.raises(all_or_nothing.UserError, match="was not made by this command"):
        all_or_nothing.refuse_foreign(tmp_path / "mine")


def test_a_failure_leaves_the_earlier_import(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "data"
    own_data.import_data(source, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def fail(images: np.ndarray) -> list[bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own_data.png, "encode", fail)
    with pytest.raises(UserError, match="No space left on device"):
        own_data.import_data(source, out, seed=1)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([(40, 30, 48, 48)], None),
        ([(40, 30, 48, 48), (0, 0, 20, 20)], None),  # a far smaller face counts as background
        ([], "without a face"),
        ([(40, 30, 48, 48), (0, 0, 30, 30)], "with several faces"),
    ],
)
def test_the_face_of_a_photograph_is_cut_out(
    boxes: list[tuple[int, int, int, int]], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "find_faces", lambda image: [Detection(box, 0.9) for box in boxes])
    photograph = Image.new("L", (160, 120), 90)
    photograph.paste(Image.fromarray(faces(1, 1)[0]), (40, 30))
    if reason:
        with pytest.raises(own_data.NotOneFaceError, match=reason):
            own_data.face_in_photograph(photograph)
        return
    found = own_data.face_in_photograph(photograph)
    assert found.shape == (48, 48)
    assert abs(found[24, 24].astype(int) - np.asarray(photograph)[54, 64]) < 40


@pytest.mark.parametrize("arguments", [["--valid", "0"], ["--valid", "0.6", "--test", "0.5"], ["--seed", "-1"]])
def test_parts_that_do_not_add_up_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        import_data.main(["images", "--out", "data", *arguments])
