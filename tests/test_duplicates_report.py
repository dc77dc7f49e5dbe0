from pathlib import Path

import numpy as np
import pytest
from changed_images import brighten, draw, mirror, shift
from PIL import Image

from fer_jax import repeats
from fer_jax.core import cli


def write(folder: Path, images: np.ndarray) -> None:
    folder.mkdir()
    names = [f"fer{number:07}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    (folder / "label.csv").write_text("".join(f'{name},"(0, 0, 48, 48)",10,0,0,0,0,0,0,0,0,0\n' for name in names))


def test_command_counts_and_draws_duplicates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, valid = draw(10, seed=14), draw(6, seed=15)
    valid[0], valid[1] = train[0], train[1]  # exact
    valid[2], valid[3], valid[4] = brighten(train)[2], mirror(train)[3], shift(train, 1, 1)[4]
    train[9] = train[8]
    write(tmp_path / "FER2013Train", train)
    write(tmp_path / "FER2013Valid", valid)
    assert repeats.main(["--data", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")]) == 0
    output = capsys.readouterr().out
    rows = [line.split() for line in output.splitlines() if line.startswith(("train ", "valid "))]
    assert len(rows) == 4
    table = {(row[0], row[1]): [int(count) for count in row[2:]] for row in rows}
    assert table == {
        ("train", "itself"): [10, 2, 0, 0, 0, 0],
        ("train", "valid"): [10, 2, 3, 1, 1, 1],
        ("valid", "train"): [6, 2, 3, 1, 1, 1],
        ("valid", "itself"): [6, 0, 0, 0, 0, 0],
    }
    with Image.open(tmp_path / "sheet.png") as sheet:
        grey = np.asarray(sheet.convert("L"))
    assert (grey < 250).any(axis=0).mean() > 0.3  # three pairs of eight columns
    assert "3 of 3 pairs" in output


@pytest.mark.parametrize(
    ("name", "message"),
    [("sheet.txt", "name a .png file"), ("none/sheet.png", "the parent folder does not exist")],
)
def test_sheet_must_be_a_png_in_an_existing_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    with pytest.raises(SystemExit) as ending:
        repeats.main(["--data", str(tmp_path), "--sheet", str(tmp_path / name)])
    output, errors = capsys.readouterr()
    assert (ending.value.code, output) == (2, "")
    assert message in errors


def test_missing_data_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(lambda: repeats.main(["--data", str(tmp_path / "nowhere")])) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: no train data in")
    assert len(errors.splitlines()) == 1
