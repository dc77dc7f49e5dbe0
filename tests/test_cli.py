"""The frame of all commands: arguments, errors on one line, exit status, help."""

import argparse
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fer_jax import __main__ as program
from fer_jax.core import cli
from fer_jax.core.errors import UserError, one_line
from fer_jax.core.runtime import exit_status

ROOT = Path(__file__).parent.parent
MODULES = [command.module.removeprefix("fer_jax.") for command in program.COMMANDS.values()]
OWN = [module for module in MODULES if not module.startswith("fer_generator")]


def raises(error: BaseException):
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no run in here"), "error: no run in here\n"),
        (OSError(2, "No such file or directory", "runs/a"), "error: runs/a: No such file or directory\n"),
        (
            OSError(28, "No space left on device", "runs/a"),
            "error: cannot write to runs/a: No space left on device; no file is half-written; "
            "free some space or choose another disk, then run the same command again\n",
        ),
        (OSError("two\nlines"), "error: two lines\n"),
        (
            ModuleNotFoundError("No module named 'optuna'", name="optuna.trial"),
            "error: optuna is not installed: pip install 'fer_jax[tune]' (in a clone: pip install -e '.[tune]')\n",
        ),
    ],
)
def test_an_error_that_a_user_can_correct_is_one_line_and_status_1(
    error: BaseException, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.status(raises(error)) == 1
    assert capsys.readouterr().err == line


def test_other_errors_are_raised() -> None:
    for error in (ValueError("a bug"), ModuleNotFoundError("No module named 'mine'", name="mine")):
        with pytest.raises(type(error)):
            cli.status(raises(error))


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(lambda: None) == 0
    assert cli.status(lambda: 3) == 3
    assert cli.status(raises(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted: run the same command again\n"
    handler = signal.getsignal(signal.SIGTERM)
    assert cli.status(lambda: signal.raise_signal(signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "terminated: run the same command again\n"
    assert signal.getsignal(signal.SIGTERM) == handler
    with pytest.raises(SystemExit) as exit_status:
        cli.run(lambda: 3)
    assert exit_status.value.code == 3


def test_a_long_error_keeps_its_beginning_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(raises(UserError(f"the file {'x' * 900} is missing; choose another"))) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: the file xxx")
    assert line.endswith("xxx is missing; choose another\n")
    assert 250 < len(line) <= 300


def test_mistyped_arguments_get_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.parser("evaluate", "Evaluate.", ["--split valid"])
    parser.add_argument("--split", choices=("valid", "test"))
    for value in ("all", "x" * 900, "two\nlines"):
        with pytest.raises(SystemExit) as exit_status:
            parser.parse_args(["--split", value])
        assert exit_status.value.code == 2
        line = capsys.readouterr().err
        assert line.startswith("error: argument --split: invalid choice: ")
        assert line.endswith("; python -m fer_jax.evaluate --help explains the arguments\n")
        assert len(line) <= 300
        assert line.count("\n") == 1


def test_a_signal_gives_the_status_that_shells_expect() -> None:
    assert [exit_status(name) for name in ("", "SIGTERM", "SIGINT")] == [0, 143, 130]


def test_one_line() -> None:
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line("x" * 300, 10) == "xxxxxxx..."


def test_a_file_to_write_is_checked(tmp_path: Path) -> None:
    assert cli.output_file(str(tmp_path / "new.csv")) == tmp_path / "new.csv"
    assert cli.output_png(str(tmp_path / "new.png")) == tmp_path / "new.png"
    for function, name, message in (
        (cli.output_file, str(tmp_path), "is a folder: name a file"),
        (cli.output_file, "", "is a folder: name a file"),
        (cli.output_file, str(tmp_path / "none" / "new.csv"), "the parent folder does not exist"),
        (cli.output_png, str(tmp_path / "new.jpg"), r"name a \.png file"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            function(name)


def test_commands_are_named_as_the_user_typed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_program", "")
    assert cli.command("main") == "python -m fer_jax.main"
    cli.called_as("fer-jax")
    assert cli.command("main") == "fer-jax train"
    assert cli.command("evaluate") == "fer-jax evaluate"
    help_text = cli.parser("main", "Train.", ["--config base", "tensorboard --logdir experiments"]).format_help()
    assert help_text.endswith("examples:\n  fer-jax train --config base\n  tensorboard --logdir experiments\n")


@pytest.mark.parametrize("module", OWN)
def test_help_has_an_example_and_100_columns(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    main = __import__(f"fer_jax.{module}", fromlist=["main"]).main
    with pytest.raises(SystemExit) as exit_status:
        main(["--help"])
    assert exit_status.value.code == 0
    text = capsys.readouterr().out
    assert re.search(rf"examples:\n  python -m fer_jax\.{module} ", text)
    assert max(map(len, text.splitlines())) <= 100
    assert "==SUPPRESS==" not in text


WITHOUT_JAX = """
import contextlib, importlib, io, sys
from fer_jax.core import cli
for module, arguments, status, message in {calls}:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            got = cli.status(lambda: importlib.import_module(module).main(arguments))
        except SystemExit as exit_status:
            got = exit_status.code
    assert got == status and message in out.getvalue(), (module, arguments, got, out.getvalue())
    loaded = {{"jax", "pandas", "matplotlib"}} & set(sys.modules)
    assert not loaded, (module, arguments, loaded)
"""


def test_help_and_mistyped_arguments_do_not_wait_for_jax() -> None:
    missing, field = "no run in none", "no such field: optim.lr"
    calls = [(f"fer_jax.{module}", ["--help"], 0, "examples:") for module in OWN]
    calls += [
        ("fer_jax.main", ["--config", "base", "--config.optim.lr=1"], 1, field),
        ("fer_jax.main", ["--config", "none"], 1, "no config file none"),
        ("fer_jax.main", [], 2, "--config"),
        ("fer_jax.sweep", ["--config", "base", "--config.optim.lr=1"], 1, field),
        ("fer_jax.sweep", ["--config", "base", "--seeds", "1", "1"], 2, "the same seed is given twice"),
        ("fer_jax.tune", ["--config", "tune", "--config.optim.lr=1"], 1, field),
        ("fer_jax.tune", ["--config", "tune", "--trials", "0"], 2, "--trials must be at least 1"),
        ("fer_jax.tune", ["--config", "tune", "--study", "a/b"], 2, "--study names a folder"),
        ("fer_jax.evaluate", ["--run", "none"], 1, missing),
        ("fer_jax.evaluate", ["--run", "base", "--run", "base"], 2, "the same --run is given twice"),
        ("fer_jax.evaluate", ["--run", "none", "--ensemble"], 2, "two --run"),
        ("fer_jax.evaluate", ["--run", "none", "--split", "all"], 2, "--split"),
        ("fer_jax.predict", ["--run", "none", "face.png"], 1, missing),
        ("fer_jax.predict", ["--sheet", "face.jpg", "face.png"], 2, "name a .png file"),
        ("fer_jax.export", ["--run", "none", "--out", "none.onnx"], 1, missing),
        ("fer_jax.release", ["--run", "none", "--out", "none"], 1, missing),
        ("fer_jax.release", ["--run", "none", "--out", "docs"], 1, "holds no released network"),
    ]
    code = WITHOUT_JAX.format(calls=calls)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
