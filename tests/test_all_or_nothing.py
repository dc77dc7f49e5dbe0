"""Whole output or none: faults on writing, runs that are interrupted, repeated or started over other folders."""

import dataclasses
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from tiny_csvs import KEPT, ROWS, SCRIPT, Row, arguments, check_output, fails_with, lines_of, make, tree, write

from fer_generator.all_or_nothing import UNFINISHED
from fer_generator.generate_training_data import generate, main
from fer_generator.read_csv import FER_HEADER, FERPLUS_HEADER, SPLIT_FOLDERS


def test_output_folder_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    (tmp_path / "file").write_text("mine")
    for out_dir in (tmp_path / "file", tmp_path / "file" / "data"):
        assert re.search(r"cannot write .*/file.* -d", fails_with(capsys, csvs, out_dir))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_output_folder_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    (tmp_path / "data").mkdir(mode=0o500)
    assert "Permission denied" in fails_with(capsys, csvs, tmp_path / "data")


def test_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    run = subprocess.run(
        [sys.executable, SCRIPT, *arguments(csvs, tmp_path / "data")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),  # bytes
    )
    assert run.returncode == 1
    assert re.fullmatch(r"error: cannot write [^\n]*File too large[^\n]*-d\n", run.stderr)
    assert not (tmp_path / "data").exists()


def test_again_changes_nothing(tmp_path: Path) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    first = generate(csvs[0], csvs[1], tmp_path / "data")
    before = tree(tmp_path)  # the folder "data" itself included
    again = generate(csvs[0], csvs[1], tmp_path / "data")
    assert tree(tmp_path) == before
    assert (first.changed, again.changed) == (True, False)
    assert dataclasses.replace(again, changed=True) == first


def test_other_input_replaces_the_folders(tmp_path: Path) -> None:
    make(tmp_path, ROWS)
    (tmp_path / "data" / "notes.txt").write_text("mine")
    summary = make(tmp_path, ROWS[2:5])
    assert summary.changed
    assert (tmp_path / "data" / "notes.txt").read_text() == "mine"
    (tmp_path / "data" / "notes.txt").unlink()
    check_output(tmp_path / "data", {"FER2013Train": [ROWS[2], ROWS[4]], "FER2013Valid": [ROWS[3]]})


def test_wrong_input_keeps_the_earlier_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    generate(csvs[0], csvs[1], tmp_path / "data")
    csvs[0].write_bytes(csvs[0].read_bytes()[:-100])
    fails_with(capsys, csvs, tmp_path / "data")
    check_output(tmp_path / "data", KEPT)


@pytest.mark.parametrize("lost", ["FER2013Train", "FER2013Train/fer0000001.png", "FER2013Valid/label.csv"])
def test_what_is_lost_is_made_again(tmp_path: Path, lost: str) -> None:
    """Without the training folder is how a run that is killed between two moves leaves the data."""
    csvs = write(tmp_path, *lines_of(ROWS))
    generate(csvs[0], csvs[1], tmp_path / "data")
    path = tmp_path / "data" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert generate(csvs[0], csvs[1], tmp_path / "data").changed
    check_output(tmp_path / "data", KEPT)


@pytest.mark.parametrize("folder", SPLIT_FOLDERS.values())
def test_folder_of_others_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str) -> None:
    csvs = write(tmp_path, *lines_of(ROWS[:4]))
    (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data" / folder / "label.csv").write_text("mine")
    error = fails_with(capsys, csvs, tmp_path / "data")
    assert f"data/{folder} was not made by this command" in error


def test_empty_folder_in_the_way_is_used(tmp_path: Path) -> None:
    (tmp_path / "data" / "FER2013Train").mkdir(parents=True)
    make(tmp_path, ROWS)
    check_output(tmp_path / "data", KEPT)


@pytest.fixture
def long_run(tmp_path: Path) -> tuple[list[str], list[Row]]:
    """Arguments of a run of 5000 rows into tmp_path/data, and the rows."""
    rows = [Row("Training", f"fer{i:07d}.png", ROWS[0].pixels, ROWS[0].votes) for i in range(5000)]
    pixel_line = lines_of(rows[:1])[0][1]
    ferplus = [",".join(["Training", row.name, *map(str, row.votes)]) for row in rows]
    header, plus_header = ",".join(FER_HEADER), ",".join(FERPLUS_HEADER)
    csvs = write(tmp_path, [header, *[pixel_line] * len(rows)], [plus_header, *ferplus])
    return arguments(csvs, tmp_path / "data"), rows


def prepare() -> None:
    """Before the generator starts: Ctrl-C works, as it may not in a background job, and the test is quicker."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.nice(19)


def start_and_stop(arguments: list[str], out_dir: Path) -> subprocess.Popen[str]:
    """Starts the generator and halts it (SIGSTOP) once it has written its first picture."""
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )
    deadline = time.monotonic() + 60
    while not any(out_dir.rglob("*.png")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    assert os.listdir(out_dir) == [UNFINISHED]  # or it was too quick for this test
    return process


def test_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path, long_run: tuple[list[str], list[Row]]) -> None:
    run_arguments, rows = long_run
    process = start_and_stop(run_arguments, tmp_path / "data")
    process.kill()
    process.communicate()
    assert os.listdir(tmp_path / "data") == [UNFINISHED]
    assert main(run_arguments) == 0
    assert os.listdir(tmp_path / "data") == ["FER2013Train"]
    assert len(list((tmp_path / "data/FER2013Train").glob("*.png"))) == len(rows)


def test_ctrl_c_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], long_run: tuple[list[str], list[Row]]
) -> None:
    process = start_and_stop(long_run[0], tmp_path / "data")
    assert main(long_run[0]) == 1  # while the other holds the folder
    assert "another run is writing here" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output, error) == (130, "", "interrupted: nothing was written\n")
    assert not (tmp_path / "data").exists()
