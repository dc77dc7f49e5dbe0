"""The order of the rows: wrong orders are refused, doubtful ones named, right ones let through."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_csvs import error_line, generator_arguments, write_csvs

from fer_generator import synthetic
from fer_generator.generate_training_data import generate, main
from fer_generator.read_csv import FER_HEADER, FERPLUS_HEADER, Labels, read_labels, read_pixels
from fer_generator.row_order import AGREEMENT, FER2013_LABELS, check, label_number

SIZES = {"Training": 900, "PublicTest": 300}
PIXELS = " ".join(["7"] * 48 * 48)
Orders = dict[str, np.ndarray]


def tables(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Usage, emotion 0..6 and ten votes of each row, which agree as often as in the real files."""
    rng = np.random.default_rng(seed)
    usage = np.repeat(list(SIZES), list(SIZES.values()))
    emotion = rng.choice(7, len(usage), p=[0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17])
    other = rng.choice(7, len(usage), p=[0.08, 0.01, 0.01, 0.10, 0.10, 0.10, 0.60])
    label = np.where(rng.random(len(usage)) < AGREEMENT[emotion], emotion, other)
    votes = np.ones((len(usage), 10), int)
    votes[np.arange(len(usage)), FER2013_LABELS.argsort()[label]] = 5
    return usage, emotion, votes


def written(folder: Path, usage: np.ndarray, emotion: np.ndarray, votes: np.ndarray) -> tuple[Path, Path]:
    fer = [",".join(FER_HEADER), *(f"{label},{PIXELS},{name}" for label, name in zip(emotion, usage, strict=True))]
    ferplus = [",".join(FERPLUS_HEADER)]
    for row, (name, counts) in enumerate(zip(usage, votes, strict=True)):
        ferplus.append(f"{name},fer{row:07d}.png,{','.join(map(str, counts))}")
    return write_csvs(folder, fer, ferplus)


def in_usage(usage: np.ndarray, name: str, order: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Row numbers in which the rows of one Usage have another order."""
    rows = np.arange(len(usage))
    rows[usage == name] = order(rows[usage == name])
    return rows


def shuffled(rows: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).permutation(rows)


def first_half_shuffled(rows: np.ndarray) -> np.ndarray:
    half = len(rows) // 2
    return np.concatenate([shuffled(rows[:half]), rows[half:]])


def two_fifths_shuffled(rows: np.ndarray) -> np.ndarray:
    """Every second and fifth of five rows, in another order."""
    rows = rows.copy()
    chosen = np.flatnonzero(np.isin(np.arange(len(rows)) % 5, (1, 4)))
    rows[chosen] = rows[shuffled(chosen)]
    return rows


def one_dropped(rows: np.ndarray) -> np.ndarray:
    """A row is missing after a third, and the last one is there twice."""
    return np.append(np.delete(rows, len(rows) // 3), rows[-1])


ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reversed": lambda rows: rows[::-1],
    "shuffled": shuffled,
    "offset by one": lambda rows: np.roll(rows, 1),
    "two parts exchanged": lambda rows: np.roll(rows, len(rows) // 2),
}


def test_right_order_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = written(tmp_path, *tables())
    assert main(generator_arguments(csvs, tmp_path / "data")) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.endswith(
        "Emotions that agree with the votes: Training 66 % (18 % by chance), PublicTest 65 % (17 % by chance)\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("usage", SIZES)
def test_wrong_order_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], usage: str, order: str) -> None:
    usages, emotion, votes = tables()
    csvs = written(tmp_path, usages, emotion[in_usage(usages, usage, ORDERS[order])], votes)
    error = error_line(capsys, csvs, tmp_path / "data")
    assert error.startswith(f"error: fer2013.csv: the {usage} rows are in another order than in fer2013new.csv: ")
    assert " % of their emotions agree with the votes (" in error
    assert error.endswith(" % by chance); use both as downloaded (--force ignores this)\n")
    assert not (tmp_path / "data").exists()


def test_sorted_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage, emotion, votes = tables()
    by_emotion = np.lexsort((emotion, usage != "Training"))
    by_votes = np.lexsort((*votes.T[::-1], usage != "Training"))
    for csvs in (
        written(tmp_path / "fer", usage, emotion[by_emotion], votes),
        written(tmp_path / "ferplus", usage, emotion, votes[by_votes]),
    ):
        assert "the Training rows are in another order" in error_line(capsys, csvs, tmp_path / "data")
    generate(*written(tmp_path / "both", usage, emotion[by_emotion], votes[by_emotion]), tmp_path / "data")


@pytest.mark.parametrize(("order", "first", "last"), [(first_half_shuffled, 2, 451), (one_dropped, 302, 901)])
def test_block_in_another_order_is_refused_with_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], order: Callable, first: int, last: int
) -> None:
    usage, emotion, votes = tables()
    csvs = written(tmp_path, usage, emotion[in_usage(usage, "Training", order)], votes)
    error = error_line(capsys, csvs, tmp_path / "data")
    found = error.split(" are in another order")[0].split("rows ")[1].split(" to ")
    np.testing.assert_allclose([int(row) for row in found], (first, last), atol=12)


def test_doubtful_order_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage, emotion, votes = tables()
    csvs = written(tmp_path, usage, emotion[in_usage(usage, "PublicTest", two_fifths_shuffled)], votes)
    for _ in range(2):  # a second run, which changes nothing, warns too
        assert main(generator_arguments(csvs, tmp_path / "data")) == 0
        captured = capsys.readouterr()
        assert captured.err.startswith("warning: ")
        assert "the PublicTest rows may be in another order" in captured.err
        assert captured.out.startswith("Images in ")


def test_force_pairs_the_rows_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage, emotion, votes = tables()
    csvs = written(tmp_path, usage, emotion[::-1], votes)
    for arguments in (["--force"], []):
        assert main([*generator_arguments(csvs, tmp_path / "data"), *arguments]) == 0
        warnings = capsys.readouterr().err.splitlines()
        assert len(warnings) == 2
        assert all(line.startswith("warning: ") and "rows are in another order" in line for line in warnings)
    assert len(list((tmp_path / "data").rglob("*.png"))) == 1200


@pytest.mark.parametrize(
    ("emotion", "reason"),
    [
        (lambda emotion: np.zeros_like(emotion), "almost the same emotion or votes everywhere"),
        (lambda emotion: np.full(len(emotion), "happy"), "no emotion column with labels 0 to 6"),
        (lambda emotion: np.where(np.arange(len(emotion)) % 10, "", emotion), "fewer than 100 rows to compare"),
    ],
)
def test_file_that_cannot_be_checked_passes_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], emotion: Callable, reason: str
) -> None:
    usage, labels, votes = tables()
    csvs = written(tmp_path, usage, emotion(labels[::-1]), votes)
    assert main(generator_arguments(csvs, tmp_path / "data")) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"Order of the rows not checked: {reason} in Training, PublicTest\n" in captured.out


def as_older_version(folder: Path) -> None:
    """Rewrite the records as versions wrote them that did not check the order."""
    for path in folder.rglob("generated.json"):
        record = json.loads(path.read_text())
        del record["order"]
        record["summary"]["changed"] = True
        path.write_text(json.dumps(record))


def test_folders_of_older_versions_are_recognised_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usage, emotion, votes = tables()
    csvs = written(tmp_path, usage, emotion, votes)
    first = generate(*csvs, tmp_path / "data")
    as_older_version(tmp_path / "data")
    second = generate(*csvs, tmp_path / "data")
    assert not second.changed
    assert second.order == first.order
    csvs = written(tmp_path, usage, emotion[::-1], votes)
    generate(*csvs, tmp_path / "data", force=True)
    as_older_version(tmp_path / "data")
    assert "are in another order" in error_line(capsys, csvs, tmp_path / "data")


def test_drawn_sample_passes(tmp_path: Path) -> None:
    csvs = synthetic.write_csvs(tmp_path, {"Training": 150, "PublicTest": 120, "PrivateTest": 25}, seed=0)
    order = generate(*csvs, tmp_path / "data").order
    assert [(split.usage, split.unchecked, split.doubtful) for split in order] == [
        ("Training", "", False),
        ("PublicTest", "", False),
        ("PrivateTest", "fewer than 100 rows to compare", False),
    ]


def test_right_order_is_never_doubted() -> None:
    for seed in range(20):
        usage, emotion, votes = tables(seed)
        labels = Labels(list(range(2, len(usage) + 2)), list(usage), [""] * len(usage), votes)
        assert not any(split.doubtful for split in check(emotion, labels))


def test_real_files(real_csvs: Path) -> None:
    fer_csv, ferplus_csv = real_csvs / "fer2013.csv", real_csvs / "fer2013new.csv"
    labels = read_labels(ferplus_csv)
    emotions = np.array([label_number(row.emotion) for row in read_pixels(fer_csv, ferplus_csv, labels)])
    right = check(emotions, labels)[:2]
    assert [round(split.agreement, 3) for split in right] == [0.630, 0.627]
    assert [round(split.chance, 3) for split in right] == [0.180, 0.178]
    assert all(0.98 < split.score < 1.02 and split.evidence < 10 for split in right)
    usage = np.array(labels.usages)
    for name, order in ORDERS.items():
        wrong = check(emotions[in_usage(usage, "Training", order)], labels)
        assert [split.wrong for split in wrong[:2]] == [True, False], name
        assert abs(wrong[0].score) < 0.05
    for rows in (150, 500):
        block = check(emotions[in_usage(usage, "Training", lambda r, n=rows: np.r_[r[:n][::-1], r[n:]])], labels)[0]
        assert block.doubtful
        assert abs(block.last - rows) < 30
    dropped = check(emotions[in_usage(usage, "Training", one_dropped)], labels)[0]
    assert dropped.wrong
    assert abs(dropped.first - 28709 // 3) < 30
