"""The generated folders, read with Pillow and the csv module, and the generator's command line."""

import csv
import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_python
from PIL import Image
from tiny_csvs import KEPT, ROWS, SCRIPT, Row, check_folders, csv_lines, generate_rows, generator_arguments, write_csvs

from fer_generator import generate_training_data, png, synthetic
from fer_generator.generate_training_data import Summary, generate
from fer_generator.read_csv import SPLIT_FOLDERS
from fer_jax.data import labels


def test_folders_have_the_images_and_votes_of_the_csvs(tmp_path: Path) -> None:
    summary = generate_rows(tmp_path, ROWS)
    check_folders(tmp_path / "data", KEPT)
    assert replace(summary, order=[]) == Summary(
        pictures={"FER2013Train": 3, "FER2013Valid": 2, "FER2013Test": 1},
        majority={
            "FER2013Train": [0, 1, 0, 0, 0, 0, 0, 0, 2],  # 4 of 9 votes is no majority, and unknown is no emotion
            "FER2013Valid": [0, 0, 0, 0, 0, 0, 0, 1, 1],
            "FER2013Test": [0, 0, 0, 0, 0, 0, 0, 0, 1],
        },
        nameless=1,
        repeated=[["fer0000000.png", 6, 2]],
    )


def test_label_csv_has_the_published_bytes(tmp_path: Path) -> None:
    generate_rows(tmp_path, ROWS)
    first = (tmp_path / "data/FER2013Train/label.csv").read_bytes().splitlines(keepends=True)[0]
    assert first == b'fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0\n'


def test_majority_counts_match_the_label_mode(tmp_path: Path) -> None:
    votes = np.random.default_rng(0).multinomial(10, [0.4, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05, 0.02, 0.05, 0.03], 400)
    rows = [Row("Training", f"fer{i:07d}.png", ROWS[0].pixels, list(counts)) for i, counts in enumerate(votes)]
    summary = generate_rows(tmp_path, rows)
    target, keep = labels.targets(votes, "majority")
    assert summary.majority["FER2013Train"] == [*target.sum(axis=0), np.sum(~keep)]


def test_script_and_module_print_the_same_summary(tmp_path: Path) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    runs = [
        run_python(SCRIPT, *generator_arguments(csvs, tmp_path / "script")),
        run_python("-m", "fer_generator.generate_training_data", *generator_arguments(csvs, tmp_path / "module")),
    ]
    for run, name in zip(runs, ("script", "module"), strict=True):
        assert (run.returncode, run.stderr) == (0, "")
        check_folders(tmp_path / name, KEPT)
    summary = runs[0].stdout
    assert summary.replace("/script", "/module") == runs[1].stdout
    assert re.search(r"^FER2013Train +3 +0 +1 +0 +0 +0 +0 +0 +0 +2$", summary, re.MULTILINE)
    assert "Rows skipped: 1 without a file name, 1 with a duplicate file name" in summary
    assert "row 6 (the header is row 1): fer0000000.png is also the name of row 2, which was kept" in summary


def test_script_runs_from_any_folder(tmp_path: Path) -> None:
    write_csvs(tmp_path, *csv_lines(ROWS))
    command = [sys.executable, str(ROOT / SCRIPT), "--base_folder", "data"]
    command += ["--fer_path", "fer2013.csv", "--ferplus_path", "fer2013new.csv"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    check_folders(tmp_path / "data", KEPT)


@pytest.mark.parametrize("command", [generate_training_data.main, synthetic.main])
def test_help_names_the_command_of_the_calling_program(command: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command(["--help"], prog="any-program any-name")
    text = capsys.readouterr().out
    assert text.startswith("usage: any-program any-name ")
    assert "\nexample: any-program any-name -" in text


def test_pillow_reads_the_encoded_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    for expected, file in zip(images, png.encode(images), strict=True):
        with Image.open(io.BytesIO(file)) as image:
            image.verify()  # checksums
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), expected)


def test_real_data(real_csvs: Path, real_dir: Path) -> None:
    summary = generate(real_csvs / "fer2013.csv", real_csvs / "fer2013new.csv", real_dir)
    assert not summary.changed
    assert {name: summary.pictures[name] for name in ("FER2013Train", "FER2013Valid")} == {
        "FER2013Train": 28558,
        "FER2013Valid": 3579,
    }
    assert summary.majority["FER2013Train"][:8] == [8739, 7287, 3149, 3013, 2099, 119, 532, 119]
    assert summary.majority["FER2013Valid"][:8] == [1182, 865, 415, 351, 287, 24, 62, 13]
    # names on the 0-based data rows 5274/6968, 5348/11817 and 8423/15835
    assert [[kept, skipped] for _, skipped, kept in summary.repeated[:3]] == [
        [5276, 6970],
        [5350, 11819],
        [8425, 15837],
    ]


def test_real_images_and_votes(real_csvs: Path, real_dir: Path) -> None:
    entries: dict[str, tuple[str, list[str]]] = {}
    for folder in SPLIT_FOLDERS.values():
        if (real_dir / folder).exists():
            with open(real_dir / folder / "label.csv", newline="") as file:
                entries |= {row[0]: (folder, row[2:]) for row in csv.reader(file)}
    names = set()
    with open(real_csvs / "fer2013.csv") as fer, open(real_csvs / "fer2013new.csv") as ferplus:
        rows = zip(csv.reader(fer), csv.reader(ferplus), strict=True)
        next(rows)
        for index, ((_, pixels, usage), (_, name, *votes)) in enumerate(rows):
            if not name or name in names:
                continue
            names.add(name)
            assert entries[name] == (SPLIT_FOLDERS[usage], votes)
            if index % 1000 == 0 or index in (5274, 5348, 8423):
                with Image.open(real_dir / SPLIT_FOLDERS[usage] / name) as image:
                    assert np.asarray(image).ravel().tolist() == [int(value) for value in pixels.split()]
    assert names == entries.keys()
