"""`fer-jax` and `python -m fer_jax`: the list of commands, and each of them."""

import subprocess
import sys
from pathlib import Path

import pytest

import fer_jax
from fer_jax import __main__ as program
from fer_jax.core import cli

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def as_fer_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fer-jax"])
    monkeypatch.setattr(cli, "_program", "")


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0), (["-h"], 0), (["help"], 0)])
def test_the_commands_are_listed(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(arguments) == status
    text = capsys.readouterr().out
    for name, command in program.COMMANDS.items():
        assert f"\n  {name:<10}{command.effect}\n" in text
    assert "usage: fer-jax COMMAND" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("argument", ["--version", "-V"])
def test_version(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([argument]) == 0
    assert capsys.readouterr().out == f"fer_jax {fer_jax.__version__}\n"


def test_an_unknown_command_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["trian", "--config", "base"]) == 2
    assert capsys.readouterr().err.startswith("error: no command 'trian': choose one of predict, webcam, demo, train, ")


@pytest.mark.parametrize("name", program.COMMANDS)
def test_a_command_explains_itself_under_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        program.main([name, "--help"])
    assert exit_status.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: fer-jax {name} ")
    assert f" fer-jax {name} " in text.split("example", 1)[1]


def test_an_error_of_a_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["evaluate", "--run", "none"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: no run in none: none/config.json is missing; train one with fer-jax"
    )


def test_python_m_fer_jax_is_the_program_and_imports_little(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "fer_jax"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "usage: python -m fer_jax COMMAND" in done.stdout
    code = "import sys, fer_jax; print({'jax', 'numpy', 'pandas', 'ml_collections'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n"
