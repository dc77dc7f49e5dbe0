"""The frame of all commands: arguments, errors on one line, exit status, help."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fer_jax import __main__ as program
from fer_jax.core import cli, run_folder
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
    if sys.platform != "win32":
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        assert cli.status(lambda: signal.raise_signal(signal.SIGHUP)) == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert cli.status(lambda: signal.raise_signal(signal.SIGHUP)) == 0
        signal.signal(signal.SIGHUP, before)
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
    table = cli.output_file(".csv")
    assert table(str(tmp_path / "new.csv")) == tmp_path / "new.csv"
    assert cli.output_file(".onnx", ".stablehlo")(str(tmp_path / "a.onnx")) == tmp_path / "a.onnx"
    assert cli.output_folder(str(tmp_path / "new")) == tmp_path / "new"
    assert not any(tmp_path.iterdir())
    for device in ("/dev/stdout", "/dev/null"):
        assert table(device) == Path(device)
    (tmp_path / "photo.jpg").write_bytes(b"pixels")
    for function, name, message in (
        (table, str(tmp_path), "is a folder: name a file"),
        (table, "", "is a folder: name a file"),
        (table, str(tmp_path / "none" / "new.csv"), "the parent folder does not exist"),
        (table, str(tmp_path / "photo.jpg"), r"name a \.csv file"),
        (cli.output_file(".onnx", ".stablehlo"), str(tmp_path / "a"), r"name a \.onnx or \.stablehlo file"),
        (cli.output_folder, str(tmp_path / "photo.jpg"), "is a file: name a folder"),
        (cli.output_folder, str(tmp_path / "none" / "new"), "the parent folder does not exist"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            function(name)


PROBE = """
import argparse, os, sys
from pathlib import Path
from fer_jax.core import cli
from fer_jax.core.errors import file_error

path = Path(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anywhere
for name in ("own", "own/new", "closed", "closed/new", "new", "own/new/deep", "closed/new/deep"):
    for check in (cli.output_folder, cli.deep_output_folder):
        try:
            check(str(path / name))
            print(name, check.__name__, "may be written")
        except argparse.ArgumentTypeError as error:
            print(name, check.__name__, str(error).removeprefix(repr(str(path / name))))
try:
    (path / "new").touch()
except PermissionError as error:
    print(file_error(error))
"""


@pytest.mark.skipif(os.name != "posix", reason="folders have no such permissions")
def test_a_folder_may_be_writable_where_its_parent_is_not() -> None:
    path = Path(tempfile.mkdtemp())  # tmp_path is in a folder that others than root may not enter
    own, closed = path / "own", path / "closed"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    closed.mkdir(mode=0o555)
    path.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    finally:
        path.chmod(0o755)
        shutil.rmtree(path)
    closed_line, missing = ": no file can be written in this folder: name another", ": the parent folder does not exist"
    either = [("own", "may be written"), ("own/new", "may be written")]
    either += [(name, closed_line) for name in ("closed", "closed/new", "new")]
    expected = [f"{name} {check} {line}" for name, line in either for check in ("output_folder", "deep_output_folder")]
    for name, line in (("own/new/deep", "may be written"), ("closed/new/deep", closed_line)):
        expected += [f"{name} output_folder {missing}", f"{name} deep_output_folder {line}"]
    expected.append(f"{path}/new: Permission denied; change its permissions, or name another")
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")


def test_an_output_is_no_input_and_no_other_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.parser("predict", "Predict.", [])
    photo, link, new = tmp_path / "photo.png", tmp_path / "link.png", tmp_path / "new.png"
    photo.write_bytes(b"pixels")
    link.symlink_to(photo)
    roundabout = tmp_path / "none" / ".." / "new.png"
    for outputs, message in (
        ({"--sheet": photo}, "--sheet .*photo.png is an input too"),
        ({"--sheet": link}, "--sheet .*link.png is an input too"),
        ({"--timeline": new, "--sheet": new}, "--sheet .*new.png is the file of --timeline too"),
        ({"--timeline": new, "--sheet": roundabout}, "--sheet .*new.png is the file of --timeline too"),
    ):
        with pytest.raises(SystemExit) as exit_status:
            cli.check_outputs(parser, outputs, [photo])
        assert exit_status.value.code == 2
        assert re.search(message, capsys.readouterr().err)
    device = Path("/dev/null")
    cli.check_outputs(parser, {"--csv": device, "--json": device, "--sheet": new, "--timeline": None}, [photo, device])


# For each command that writes named files: arguments that would replace a photograph, a film or a table.
CARELESS = [
    ("predict", ["--csv", "a.jpg", "b.jpg"], "name a .csv file"),  # --csv *.jpg
    ("predict", ["a.jpg", "--json", "clip.mp4"], "name a .json file"),
    ("predict", ["z.png", "--sheet", "z.png"], "is an input too"),
    ("predict", [".", "--timeline", "./z.png"], "is an input too"),
    ("predict", ["a.jpg", "--timeline", "y.png", "--sheet", "y.png"], "is the file of --"),
    ("predict", ["a.jpg", "--annotate", "clip.mp4"], "is a file: name a folder"),
    ("webcam", ["--source", "clip.mp4", "--csv", "clip.mp4"], "name a .csv file"),
    ("webcam", ["--source", "film.csv", "--csv", "film.csv"], "is an input too"),
    ("repeats", ["--sheet", "a.jpg"], "name a .png file"),
    ("suspects", ["--csv", "a.jpg"], "name a .csv file"),
    ("suspects", ["--sheet", "a.jpg"], "name a .png file"),
    ("evaluate", ["--run", "base", "--out", "a.jpg"], "is a file: name a folder"),
    ("export", ["--run", "base", "--out", "a.jpg"], "name a .onnx or .stablehlo file"),
    ("export", ["--run", "base", "--out", "a.stablehlo"], "--format onnx writes a .onnx file"),
    pytest.param(
        *("export", ["--run", "base", "--out", "/proc/a.onnx"], "no file can be written in this folder"),
        marks=pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder that nobody can write to"),
    ),
    ("export", ["--run", "mine", "--out", "mine/network.onnx"], "is an input too"),
    ("demo", ["--write", "none/page"], "the parent folder does not exist"),
    ("demo", ["--write", "a.jpg"], "is a file: name a folder"),
]


@pytest.mark.parametrize(("module", "arguments", "message"), CARELESS)
def test_no_command_replaces_a_file_that_was_named_by_mistake(
    module: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / name for name in ("a.jpg", "b.jpg", "z.png", "clip.mp4", "film.csv")]
    files += [tmp_path / "mine" / name for name in (run_folder.WEIGHTS, run_folder.GRAPH)]  # a released network
    (tmp_path / "mine").mkdir()
    for file in files:
        file.write_bytes(b"my only copy")
    main = __import__(f"fer_jax.{module}", fromlist=["main"]).main
    with pytest.raises(SystemExit) as exit_status:
        main(arguments)
    line = capsys.readouterr().err
    assert (exit_status.value.code, line.count("\n")) == (2, 1)
    assert message in line
    assert {file.read_bytes() for file in files} == {b"my only copy"}
    assert len([*tmp_path.rglob("*")]) == len(files) + 1


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
from fer_jax.core import cli, run_folder
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
