"""Output that cannot be printed: closed pipes, full disks, names in any script; warnings of libraries."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from conftest import ROOT

from fer_jax.core import cli
from fer_jax.core.errors import UserError


def run(*command: str, **streams) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # Python then writes to the pipe at its end
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, text=True, timeout=60, **streams)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("-m fer_jax", 2),
        ("-m fer_jax --help", 0),
        ("-m fer_jax predict --help", 0),
        ("-m fer_jax generate --help", 0),
        ("-m fer_jax.evaluate --help", 0),
        ("fer_generator/generate_training_data.py --help", 0),
    ],
)
def test_a_closed_pipe_is_no_error(command: str, status: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(*command.split(), stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (status, "")


WORK = """
import sys
from pathlib import Path
from fer_jax.core import cli

def main():
    for number in range(3):
        print("line", "\\u2713 \\udce9", number, flush=True)
        Path(sys.argv[1], str(number)).touch()

cli.run(main)
"""


@pytest.mark.parametrize("reader", ["gone", "full disk"])
def test_without_a_reader_the_work_is_done(tmp_path: Path, reader: str) -> None:
    if reader == "gone":
        reading, writing = os.pipe()
        os.close(reading)
        expected = 0, ""
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
        expected = 1, "error: all is done, but not all is printed: No space left on device\n"
    done = run("-c", WORK, str(tmp_path), stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_a_name_that_the_encoding_lacks_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        print("\udce9.png")  # a byte of a file name that is no UTF-8
        raise UserError("\udce9.png is missing")

    assert cli.status(main) == 1
    assert capsys.readouterr() == ("\\udce9.png\n", "error: \\udce9.png is missing\n")


def test_warnings_of_libraries_have_no_source_line(capsys: pytest.CaptureFixture[str]) -> None:
    show = warnings.showwarning
    assert cli.status(lambda: warnings.warn("two\nlines", FutureWarning, stacklevel=1)) == 0
    assert capsys.readouterr().err == "warning: two lines\n"
    assert warnings.showwarning is show


ABANDONED = """
from fer_jax.core import cli

async def write(): ...

def main():
    write()
    kept.append(write())

kept = []
try:
    cli.run(main)
finally:
    kept.clear()
"""


@pytest.mark.parametrize("asked", [False, True])
def test_a_coroutine_that_a_library_gives_up_prints_nothing_unless_asked_for(asked: bool) -> None:
    """Orbax leaves some after a full disk, which Python may collect in the next command, or at its end."""
    options = ("-W", "default") if asked else ()
    done = run(*options, "-c", ABANDONED, stderr=subprocess.PIPE)
    assert done.returncode == 0
    assert done.stderr.count("coroutine 'write' was never awaited") == (2 if asked else 0)
    assert asked or done.stderr == ""


COMPILES = """
import jax
from fer_jax.core import cli

cli.run(lambda: print(jax.jit(lambda x: x + 1)(1)))
"""


@pytest.mark.slow
def test_a_compiled_program_that_is_cut_short_is_compiled_again_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may be writing it, or was killed."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    for _ in range(2):
        done = run("-c", COMPILES, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
        entries = list(tmp_path.glob("*-cache"))
        assert entries
        for entry in entries:
            entry.write_bytes(entry.read_bytes()[:100])
