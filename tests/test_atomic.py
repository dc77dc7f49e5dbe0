from pathlib import Path

import pytest

from fer_jax.core import atomic


def test_a_file_appears_whole_at_the_end_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "figures.csv"
    path.write_text("old")
    with atomic.replacing(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("before", ["old", None])
def test_an_error_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "figures.csv"
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
    with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / "figures.csv"):
        pass


def test_what_cannot_be_written_is_named_as_the_user_knows_it(tmp_path: Path) -> None:
    path = tmp_path / "none" / "figures.csv"
    with pytest.raises(FileNotFoundError) as error, atomic.replacing(path) as partial:
        partial.write_text("whole")
    assert error.value.filename == str(path)
