"""A sweep in several processes: their lines, the end of the time, failures, and a real sweep of two runs."""

import csv
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fer_jax import sweep
from fer_jax.core.errors import UserError
from fer_jax.search import parallel
from tests.conftest import ROOT

# os.write, not print: a print in the handler fails where the signal comes while another one writes.
SAVES = """
import os, signal, sys, time
from fer_jax.core import parent
out = os.open(sys.argv[1], os.O_WRONLY) if sys.argv[1:] else 1
def save(*_):
    os.write(out, b"saved\\n")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
parent.follow()
os.write(out, b"training\\n")
time.sleep(600)
"""


def supervised(code: str, processes: int, minutes: float = 0) -> list[str]:
    lines: list[str] = []
    assert parallel.supervise([sys.executable, "-c", code], processes, minutes, lines.append) == ""
    return lines


def test_lines_have_the_number_of_their_process_and_the_gpu_is_shared() -> None:
    code = f"import os; print(os.environ[{parallel.MEMORY!r}])"
    assert sorted(supervised(code, 3)) == ["1: 0.300", "2: 0.300", "3: 0.300"]
    assert supervised(code, 1) == ["0.900"]


@pytest.mark.slow
def test_processes_save_when_the_time_is_over() -> None:
    lines = supervised(SAVES, 2, minutes=0.1)
    assert sorted(lines[:2]) == ["1: training", "2: training"]
    assert lines[2] == "0.1 minutes are over: the runs are saved"
    assert sorted(lines[3:]) == ["1: saved", "2: saved"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in the file system")
def test_processes_save_when_their_parent_is_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    supervise = f"parallel.supervise([sys.executable, '-c', {SAVES!r}, {str(pipe)!r}], 2, 0, print)"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import sys; from fer_jax.search import parallel; {supervise}"], cwd=ROOT
    )
    watchdog = threading.Timer(120, pipe.write_text, [""])  # without a writer, open waits for ever
    watchdog.start()
    with pipe.open() as file:  # it ends when both have ended
        watchdog.cancel()
        assert [file.readline() for _ in range(2)] == ["training\n"] * 2
        parent.kill()
        assert file.read() == "saved\n" * 2
    parent.wait()


def test_a_process_that_fails_is_an_error() -> None:
    with pytest.raises(UserError, match="2 of 2 processes failed"):
        supervised("print('error: no data'); raise SystemExit(1)", 2)


@pytest.mark.slow
def test_two_runs_at_once_end_in_one_table(
    sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")  # as in this process: they share compiled programs
    override = f"--config.data.dir={sample_dir}"
    arguments = ["--config", "tests/quick.py", "--seeds", "0", "1", "--workdir", str(tmp_path), override]
    assert sweep.main([*arguments, "--parallel", "2"]) == 0
    with (tmp_path / "results.csv").open() as file:
        assert sorted(row["seed"] for row in csv.DictReader(file)) == ["0", "1"]
    lines = capsys.readouterr().out.splitlines()
    # Not all train: a process that starts late may find one run finished and the other one taken.
    assert {line[:3] for line in lines if ": run " in line} == {"1: ", "2: "}
    assert any("epoch 1/1" in line for line in lines)
