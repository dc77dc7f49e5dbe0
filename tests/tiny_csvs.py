"""Hand-made pairs of CSVs with every trap, and an independent check of the folders generated from them."""

import csv
import os
import re
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from fer_generator.generate_training_data import Summary, generate, main
from fer_generator.read_csv import FER_HEADER, FERPLUS_HEADER

SCRIPT = "fer_generator/generate_training_data.py"


class Row(NamedTuple):
    usage: str
    name: str
    pixels: np.ndarray
    votes: list[int]
    emotion: int = 0


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)


# Lines 2 to 9 of both files: line 3 has no name, line 6 has the name of line 2 and another image.
ROWS = [
    Row("Training", "fer0000000.png", noise(0), [4, 0, 0, 1, 3, 2, 0, 0, 0, 0]),
    Row("Training", "", noise(1), [0, 0, 0, 0, 0, 0, 0, 0, 0, 10]),
    Row("Training", "fer0000001.png", noise(2), [0, 9, 0, 0, 0, 0, 0, 0, 0, 0]),
    Row("PublicTest", "fer0000005.png", noise(3), [0, 1, 0, 0, 0, 0, 0, 8, 1, 0]),
    Row("Training", "fer0000000.png", noise(4), [0, 0, 10, 0, 0, 0, 0, 0, 0, 0]),
    Row("PrivateTest", "fer0000004.png", noise(5), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    Row("Training", "fer0000003.png", np.zeros((48, 48), np.uint8), [0, 0, 0, 0, 0, 0, 0, 0, 6, 4]),
    Row("PublicTest", "fer0000006.png", np.full((48, 48), 255, np.uint8), [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]),
]
KEPT = {
    "FER2013Train": [ROWS[0], ROWS[2], ROWS[6]],
    "FER2013Valid": [ROWS[3], ROWS[7]],
    "FER2013Test": [ROWS[5]],
}


def csv_lines(rows: list[Row]) -> tuple[list[str], list[str]]:
    """The lines of fer2013.csv and of fer2013new.csv, with their headers."""
    fer, ferplus = [",".join(FER_HEADER)], [",".join(FERPLUS_HEADER)]
    for row in rows:
        fer.append(f"{row.emotion},{' '.join(map(str, row.pixels.ravel()))},{row.usage}")
        ferplus.append(",".join([row.usage, row.name, *map(str, row.votes)]))
    return fer, ferplus


def write_csvs(folder: Path, fer: list[str], ferplus: list[str]) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True, parents=True)
    paths = folder / "fer2013.csv", folder / "fer2013new.csv"
    for path, lines in zip(paths, (fer, ferplus), strict=True):
        path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
    return paths


def generate_rows(folder: Path, rows: list[Row]) -> Summary:
    """Write both CSVs into `folder` and generate `folder`/data."""
    fer, ferplus = write_csvs(folder, *csv_lines(rows))
    return generate(fer, ferplus, folder / "data")


def generator_arguments(csvs: tuple[Path, Path], out_dir: Path) -> list[str]:
    return ["-d", str(out_dir), "-fer", str(csvs[0]), "-ferplus", str(csvs[1])]


def check_folders(out_dir: Path, expected: dict[str, list[Row]]) -> None:
    """Assert that the folders hold exactly these images and votes, read with Pillow and the csv module."""
    assert sorted(os.listdir(out_dir)) == sorted(expected)
    for folder, rows in expected.items():
        assert {path.name for path in (out_dir / folder).glob("*.png")} == {row.name for row in rows}
        with open(out_dir / folder / "label.csv", newline="") as file:
            labels = list(csv.reader(file))
        assert labels == [[row.name, "(0, 0, 48, 48)", *map(str, row.votes)] for row in rows]
        for row in rows:
            with Image.open(out_dir / folder / row.name) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "L", (48, 48))
                np.testing.assert_array_equal(np.asarray(image), row.pixels)


def file_states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and modification time of all files and folders in a folder."""
    paths = folder.rglob("*")
    return {str(path): (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def error_line(capsys: pytest.CaptureFixture[str], csvs: tuple[Path, Path], out_dir: Path) -> str:
    """The one line on stderr of a run in the folder of csvs[1] that must end with status 1 and change nothing."""

    def state() -> object:
        return file_states(out_dir) if out_dir.is_dir() else out_dir.exists()

    initial_state = state()
    with chdir(csvs[1].parent):  # the line has short paths
        fer, ferplus, data = (Path(os.path.relpath(path)) for path in (*csvs, out_dir))
        assert main(generator_arguments((fer, ferplus), data)) == 1
    assert state() == initial_state
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: [^\n]{,293}\n", captured.err)
    return captured.err
