"""The version and commit of the code that are stored with a run."""

import subprocess
from pathlib import Path

import pytest

from fer_jax import __version__
from fer_jax.core import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_of_a_clone_is_given_and_changed_files_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.code_version() == {"version": __version__, "commit": ""}
    git(tmp_path, "init", "-q")
    assert provenance.code_version()["commit"] == ""  # nothing is committed
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert provenance.code_version()["commit"] == commit
    (tmp_path / "output.txt").touch()  # untracked
    assert provenance.code_version()["commit"] == commit
    (tmp_path / "code.py").write_text("22")
    assert provenance.code_version()["commit"] == f"{commit}-dirty"


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    monkeypatch.setenv("PATH", "")
    assert provenance.code_version()["commit"] == ""
