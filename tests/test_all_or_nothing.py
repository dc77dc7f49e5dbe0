"""Complete output or none: failed writes, interrupted and repeated runs, folders of other origin."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run_python
from tiny_csvs import (
    KEPT,
    ROWS,
    SCRIPT,
    Row,
    check_folders,
    csv_lines,
    error_line,
    file_states,
    generate_rows,
    generator_arguments,
    write_csvs,
)

from fer_generator.all_or_nothing import STAGING
from fer_generator.generate_training_data import STOPPED, generate, main


def test_output_folder_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    (tmp_path / "file").write_text("content of a user")
    for out_dir in (tmp_path / "file", tmp_path / "file" / "data"):
        assert re.search(r"cannot write file.* -d", error_line(capsys, csvs, out_dir))
    assert (tmp_path / "file").read_text() == "content of a user"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_output_folder_without_write_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    (tmp_path / "data").mkdir(mode=0o500)
    assert "Permission denied" in error_line(capsys, csvs, tmp_path / "data")


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    # Set in a process of its own: jax's threads forbid a preexec_fn here.
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "  # bytes
        "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    run = run_python("-c", limited, SCRIPT, *generator_arguments(csvs, tmp_path / "data"))
    assert run.returncode == 1
    assert re.fullmatch(r"error: cannot write [^\n]*File too large[^\n]*-d\n", run.stderr)
    assert not (tmp_path / "data").exists()


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    first = generate(csvs[0], csvs[1], tmp_path / "data")
    initial_states = file_states(tmp_path)  # including the folder "data" itself
    second = generate(csvs[0], csvs[1], tmp_path / "data")
    assert file_states(tmp_path) == initial_states
    assert (first.changed, second.changed) == (True, False)
    assert dataclasses.replace(second, changed=True) == first


def test_other_input_replaces_the_folders(tmp_path: Path) -> None:
    generate_rows(tmp_path, ROWS)
    (tmp_path / "data" / "notes.txt").write_text("content of a user")
    summary = generate_rows(tmp_path, ROWS[2:5])
    assert summary.changed
    assert (tmp_path / "data" / "notes.txt").read_text() == "content of a user"
    (tmp_path / "data" / "notes.txt").unlink()
    check_folders(tmp_path / "data", {"FER2013Train": [ROWS[2], ROWS[4]], "FER2013Valid": [ROWS[3]]})


def test_wrong_input_keeps_the_earlier_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    generate(csvs[0], csvs[1], tmp_path / "data")
    csvs[0].write_bytes(csvs[0].read_bytes()[:-100])
    error_line(capsys, csvs, tmp_path / "data")
    check_folders(tmp_path / "data", KEPT)


@pytest.mark.parametrize("missing", ["FER2013Train", "FER2013Train/fer0000001.png", "FER2013Valid/label.csv"])
def test_missing_output_is_generated_again(tmp_path: Path, missing: str) -> None:
    """A run that is killed between two moves leaves the folders without the training folder."""
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    generate(csvs[0], csvs[1], tmp_path / "data")
    path = tmp_path / "data" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert generate(csvs[0], csvs[1], tmp_path / "data").changed
    check_folders(tmp_path / "data", KEPT)


@pytest.mark.parametrize("folder", ["FER2013Train", "FER2013Test"])  # the CSVs have no row for the second
def test_folder_of_other_origin_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS[:4]))
    (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data" / folder / "label.csv").write_text("content of a user")
    error = error_line(capsys, csvs, tmp_path / "data")
    assert f"data/{folder} was not made by this command" in error


def test_existing_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "data" / "FER2013Train").mkdir(parents=True)
    generate_rows(tmp_path, ROWS)
    check_folders(tmp_path / "data", KEPT)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["label.csv"], "it has a label.csv without images, as in a clone of FERPlus; choose another folder with -d"),
        (["label.csv", "fer0000000.png"], "it has images and a label.csv; train from it as it is, or choose another"),
        (["fer0000000.png"], "it has no generated.json; move it away or choose another folder with -d"),
    ],
)
def test_folder_of_other_origin_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: list[str], message: str
) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    for folder in ("FER2013Train", "FER2013Valid"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in files:
            (tmp_path / "data" / folder / name).write_text("content of a user")
    error = error_line(capsys, csvs, tmp_path / "data")
    assert f"data/FER2013Train was not made by this command and is left unchanged: {message}" in error


# Runs the generator, which stops itself (SIGSTOP) with 100 of its images opened for writing or written.
STOPPING_GENERATOR = """
import itertools, os, signal, sys
from fer_generator.generate_training_data import main

image_number = itertools.count(1)

def stop_after_100_images(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".png") and next(image_number) == 100:
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop_after_100_images)
sys.exit(main())
"""


@pytest.fixture
def stopped_run(tmp_path: Path) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    """The arguments of a run that makes 300 images in tmp_path/data, and its process, stopped while it writes them."""
    rows = [Row("Training", f"fer{i:07d}.png", ROWS[0].pixels, ROWS[0].votes) for i in range(300)]
    arguments = generator_arguments(write_csvs(tmp_path, *csv_lines(rows)), tmp_path / "data")
    command = [sys.executable, "-c", STOPPING_GENERATOR, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(60, process.kill)  # for a generator that hangs
        guard.start()
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert os.listdir(tmp_path / "data") == [STAGING]
            assert any((tmp_path / "data").rglob("*.png"))
            yield arguments, process
        finally:
            guard.cancel()
            process.kill()


def test_killed_run_leaves_nothing_that_looks_complete(
    tmp_path: Path, stopped_run: tuple[list[str], subprocess.Popen[str]]
) -> None:
    arguments, process = stopped_run
    process.kill()
    process.communicate()
    assert os.listdir(tmp_path / "data") == [STAGING]
    assert main(arguments) == 0
    assert os.listdir(tmp_path / "data") == ["FER2013Train"]
    assert len(list((tmp_path / "data/FER2013Train").glob("*.png"))) == 300


def test_ctrl_c_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stopped_run: tuple[list[str], subprocess.Popen[str]]
) -> None:
    arguments, process = stopped_run
    assert main(arguments) == 1  # the stopped process holds the folder
    assert "another run is writing to this folder" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output, error) == (130, "", f"interrupted: {STOPPED}\n")
    assert not (tmp_path / "data").exists()


def test_sigterm_leaves_nothing(tmp_path: Path, stopped_run: tuple[list[str], subprocess.Popen[str]]) -> None:
    _, process = stopped_run
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output, error) == (143, "", f"terminated: {STOPPED}\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_folders_are_moved_waits(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    status: int,
) -> None:
    """The folders of an earlier run are replaced by all of the new ones, and the next run finds nothing to do."""
    generate_rows(tmp_path, ROWS[:3])
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    rename = os.rename

    def rename_and_signal(source: Path, target: Path) -> None:
        rename(source, target)
        signal.raise_signal(number)

    monkeypatch.setattr(os, "rename", rename_and_signal)
    assert main(generator_arguments(csvs, tmp_path / "data")) == status
    assert STOPPED in capsys.readouterr().err
    check_folders(tmp_path / "data", KEPT)
    assert not generate(csvs[0], csvs[1], tmp_path / "data").changed


def test_signal_handlers_are_restored(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    assert main(generator_arguments(csvs, tmp_path / "data")) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
