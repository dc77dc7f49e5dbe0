"""Files that are written completely or not at all."""

import os
from pathlib import Path

import pytest

from fer_jax.core import atomic
from fer_jax.core.errors import DiskError


def test_a_file_is_replaced_at_the_end_and_nothing_else_remains(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("old")
    with atomic.replacing(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
        partial.write_text("complete")
    assert path.read_text() == "complete"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("before", ["old", None])
def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "metrics.csv"
    if before:
        path.write_text(before)

    def fails() -> None:
        with atomic.replacing(path) as partial:
            partial.write_text("half")
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fails()
    assert [file.read_text() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "metrics.csv"):
        pass


def test_an_error_names_the_file_and_not_its_partial_copy(tmp_path: Path) -> None:
    path = tmp_path / "none" / "metrics.csv"
    with pytest.raises(FileNotFoundError) as error, atomic.replacing(path) as partial:
        partial.write_text("complete")
    assert error.value.filename == str(path)


@pytest.mark.parametrize("context", [atomic.replacing, atomic.writing])
def test_a_full_disk_is_named_by_the_output(tmp_path: Path, context) -> None:
    path = tmp_path / "metrics.csv"
    with pytest.raises(DiskError) as error, context(path), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert str(error.value).startswith(f"cannot write to {path}: No space left on device; no file is half-written; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic.replacing(pipe) as path:
        path.write_text("metrics")
    assert os.read(reading, 100) == b"metrics"
    os.close(reading)
    assert pipe.is_fifo()


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "folder" / "file", tmp_path / "link"
    file.parent.mkdir()
    file.write_text("older")
    try:
        link.symlink_to(file)
    except OSError:
        pytest.skip("links are not permitted")
    with atomic.replacing(link) as path:
        path.write_text("new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert [path.name for path in file.parent.iterdir()] == ["file"]
