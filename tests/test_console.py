"""The frame of the generator's commands: any terminal, any name, closed pipes, one line of bounded length."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from tiny_csvs import KEPT, ROWS, SCRIPT, Row, check_folders, csv_lines, generator_arguments, write_csvs

from fer_generator import console, synthetic
from fer_generator.generate_training_data import main

NAMES = [
    "donn\N{LATIN SMALL LETTER E WITH ACUTE}es",
    "\N{CJK UNIFIED IDEOGRAPH-4E2D} \N{GRINNING FACE}",
    "a\nb",
    "\udcff",
]


@pytest.fixture
def csvs(tmp_path: Path) -> tuple[Path, Path]:
    return write_csvs(tmp_path, *csv_lines(ROWS))


def run(arguments: list[str], stdout: int, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_on_any_terminal(tmp_path: Path, csvs: tuple[Path, Path], name: str, encoding: str) -> None:
    command = run([SCRIPT, *generator_arguments(csvs, tmp_path / name)], subprocess.PIPE, PYTHONIOENCODING=encoding)
    assert (command.returncode, command.stderr) == (0, b"")
    check_folders(tmp_path / name, KEPT)
    shown = console.escaped(name).encode(encoding, "backslashreplace")
    assert command.stdout.splitlines()[0].endswith(b"/" + shown + b".")


@pytest.mark.parametrize("name", NAMES)
def test_error_with_any_name_is_one_line(tmp_path: Path, csvs: tuple[Path, Path], name: str) -> None:
    (tmp_path / name).write_text("content of a user")
    command = run([SCRIPT, *generator_arguments(csvs, tmp_path / name)], subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (command.returncode, command.stdout) == (1, b"")
    assert command.stderr.startswith(b"error: cannot write ")
    assert command.stderr.count(b"\n") == 1


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_closed_pipe_is_no_error(tmp_path: Path, csvs: tuple[Path, Path]) -> None:
    writer = closed_pipe()
    command = run([SCRIPT, *generator_arguments(csvs, tmp_path / "data")], writer)
    os.close(writer)
    assert (command.returncode, command.stderr) == (0, b"")
    check_folders(tmp_path / "data", KEPT)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_summary_that_cannot_be_written_is_one_line(tmp_path: Path, csvs: tuple[Path, Path]) -> None:
    with open("/dev/full", "wb") as full:
        command = run([SCRIPT, *generator_arguments(csvs, tmp_path / "data")], full.fileno())
    assert command.returncode == 1
    assert command.stderr.endswith(b"the summary cannot be printed: No space left on device\n")
    assert command.stderr.count(b"\n") == 1
    check_folders(tmp_path / "data", KEPT)


def test_sample_survives_a_closed_pipe(tmp_path: Path) -> None:
    writer = closed_pipe()
    sizes = ["--train", "100", "--valid", "25", "--test", "25"]
    command = run(["-m", "fer_generator.synthetic", "-o", str(tmp_path / "\udcff"), *sizes], writer)
    os.close(writer)
    assert (command.returncode, command.stderr) == (0, b"")
    assert sorted(path.name for path in (tmp_path / "\udcff").iterdir()) == ["fer2013.csv", "fer2013new.csv"]


def test_long_paths_are_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "/".join(["a" * 100] * 10)
    csvs = write_csvs(folder, *csv_lines(ROWS))
    csvs[0].write_text(csvs[0].read_text().replace("PrivateTest", "Training"))
    assert main(generator_arguments(csvs, folder / "data")) == 1
    error = capsys.readouterr().err
    assert len(error) <= console.LINE + 1
    assert "a/fer2013.csv: row 7 (the header is row 1) is Training, but row 7 of ..." in error


def test_text_of_any_length_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_line("x" * 10_000)
    assert capsys.readouterr().err == "x" * 297 + "...\n"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (console.Terminated, 143)])
def test_stopped_sample_has_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: type, status: int
) -> None:
    def stop(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(synthetic, "write_csvs", stop)
    assert synthetic.main(["-o", str(tmp_path)]) == status
    assert capsys.readouterr().err.endswith("ed: run the same command again\n")


def test_long_lists_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("Training", "fer0000000.png", ROWS[0].pixels, ROWS[0].votes)] * 100
    csvs = write_csvs(tmp_path, *csv_lines(rows))
    assert main(generator_arguments(csvs, tmp_path / "data")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("is also the name of row 2, which was kept" in line for line in lines) == 20
    assert "  and 79 more" in lines


def test_mistyped_arguments_get_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for command, arguments in ((main, []), (synthetic.main, ["--train", "x" * 900])):
        with pytest.raises(SystemExit) as exit_status:
            command(arguments)
        line = capsys.readouterr().err
        assert (exit_status.value.code, line.count("\n")) == (2, 1)
        assert line.startswith("error: ")
        assert len(line) <= console.LINE + 1
