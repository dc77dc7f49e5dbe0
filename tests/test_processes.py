"""Several processes that train one network: the same steps, differences found at the start, and a death noticed."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import pytest

from fer_jax.core import config as config_lib
from fer_jax.core import supervisor
from fer_jax.train import Ending, train
from fer_jax.training import agreement
from tests.conftest import ROOT
from tests.small_runs import quiet, restored

slow = pytest.mark.slow
LIMIT_S = 180
TOLERANCE = 1e-4  # of float32 parameters after five steps; measured: 2e-5 at most


def free_port() -> int:
    """A port below those that the system gives to others meanwhile: the coordinator binds it after some seconds."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


def arguments(data: Path, run: Path, *fields: str) -> list[str]:
    return ["--config", "tests/quick.py", "--workdir", str(run), f"--config.data.dir={data}", *fields]


def start(*commands: list[str], **environment: str) -> list[subprocess.Popen[str]]:
    """Start the processes of one run, one for each command line."""
    shared = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(len(commands))}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "fer_jax.main", *command],
            cwd=ROOT,
            env={**os.environ, **(shared if len(commands) > 1 else {}), "JAX_PROCESS_ID": str(index), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, command in enumerate(commands)
    ]


def outcomes(processes: list[subprocess.Popen[str]], limit_s: float = LIMIT_S) -> list[tuple[int, str, str]]:
    """The exit status, output and errors of each process; all are killed if one is not done in time."""
    try:
        return [(process.wait(), *texts) for process in processes for texts in [process.communicate(timeout=limit_s)]]
    finally:
        for process in processes:
            process.kill()


def parameters(run: Path, *fields: str) -> list[np.ndarray]:
    saved = restored(config_lib.load("tests/quick.py", [*fields]), run)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(saved.tree["state"].params)]


def facts(**changes: object) -> dict:
    same = {
        "config": {"seed": 0, "data.dir": "/a"},
        "code": "1",
        "version": "fer_jax 1.0",
        "data": "2",
        "images": 10,
        "checkpoint": None,
    }
    return {**same, **changes}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, ""),
        (
            {"code": "3", "version": "fer_jax 2.0"},
            "has other code (fer_jax 2.0) than process 0 (fer_jax 1.0); install the same on all",
        ),
        (
            {"config": {"seed": 7, "data.dir": "/b"}, "data": "3"},
            "has another config (seed=7) than process 0 (seed=0); give all the same",
        ),
        (
            {"config": {"seed": 0, "data.dir": "/b"}, "data": "3", "images": 9},
            "has other data (data.dir=/b, 9 training images) than process 0 (data.dir=/a, 10 training images); "
            "give all the same",
        ),
        (
            {"config": {"seed": 0, "data.dir": "/b"}},
            "has another config (data.dir=/b) than process 0 (data.dir=/a); the data must have the same path on all",
        ),
        (
            {"checkpoint": 4},
            "finds step 4 in its run folder, process 0 no checkpoint; --workdir must be one folder that all share",
        ),
    ],
)
def test_a_difference_is_named(changes: dict, line: str) -> None:
    assert agreement.difference(facts(**changes), facts()) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "E1 UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\nThe tasks have",
            "process 1 ended or stopped responding",
        ),
        (
            "E1 UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\n3\nThe tasks have",
            "processes 1, 3 ended or stopped responding",
        ),
        (
            "F1 absl::Status: UNAVAILABLE: Failed to send RPC to coordination service. Either the leader",
            "process 0 ended or cannot be reached",
        ),
        (
            "F1 DEADLINE_EXCEEDED: Deadline Exceeded\n\nRPC: /xla.coordination.CoordinationService/Heartbeat",
            "process 0 ended or cannot be reached",
        ),
        (
            "F1 DEADLINE_EXCEEDED: Deadline Exceeded\n\nRPC: /xla.coordination.CoordinationService/RegisterTask",
            "not all processes have joined at 10.0.0.1:1234 within 120 s",
        ),
        ("", "this process crashed (SIGABRT); log.txt has its last messages"),
    ],
)
def test_the_end_of_another_process_is_named(monkeypatch: pytest.MonkeyPatch, text: str, line: str) -> None:
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.1:1234")
    assert supervisor._cause("SIGABRT", text, Path("log.txt"))[0].split("; start")[0] == line


@pytest.mark.skipif(sys.platform == "win32", reason="the child is a shell script")
@pytest.mark.parametrize(("written", "status", "lines"), [("fer_jax: reported, status 3", 3, 0), ("else", 1, 1)])
def test_a_child_that_aborts_after_its_error_has_no_second_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    written: str,
    status: int,
    lines: int,
) -> None:
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\necho '{written}' >> \"${supervisor.NATIVE_LOG}\"\nkill -ABRT $$\n")
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    monkeypatch.setattr(supervisor.tempfile, "tempdir", str(tmp_path))  # the log of an unknown end is kept
    assert supervisor.supervise("main", []) == status
    assert capsys.readouterr().err.count("\n") == lines


@slow
def test_processes_with_other_votes_or_without_data_end_with_one_line_each(sample_dir: Path, tmp_path: Path) -> None:
    other, run = tmp_path / "other", tmp_path / "run"
    shutil.copytree(sample_dir, other)
    label = other / "FER2013Train" / "label.csv"
    rows = label.read_text().splitlines(keepends=True)
    label.write_text("".join(rows[:-40]))
    differ = outcomes(start(arguments(sample_dir, run), arguments(other, run)))
    for status, _, errors in differ:
        assert (status, errors.count("\n")) == (1, 1), errors
        assert errors.startswith(f"error: process 1 has other data (data.dir={other}, ")
    missing = outcomes(start(arguments(sample_dir, run), arguments(tmp_path / "none", run)))
    for (status, _, errors), beginning in zip(
        missing, ("process 1 ended: no train data", "no train data"), strict=True
    ):
        assert (status, errors.count("\n")) == (1, 1), errors
        assert errors.startswith(f"error: {beginning} in {tmp_path / 'none'}")
    assert not run.exists()


@slow
def test_a_killed_process_ends_the_other_and_other_numbers_of_devices_resume(sample_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fields = ["--config.train.epochs=200", "--config.train.batch_size=124"]  # a multiple of 1, 2 and 4 devices
    processes = start(*[arguments(sample_dir, run, *fields)] * 2)
    assert processes[0].stdout is not None
    watchdog = threading.Timer(LIMIT_S, processes[0].kill)  # a hung process must not hang the tests
    watchdog.start()
    for line in processes[0].stdout:
        if line.startswith("epoch 2/200"):
            processes[0].kill()
    watchdog.cancel()
    (first, _, _), (second, _, errors) = outcomes(processes)
    assert (first, second) == (-signal.SIGKILL, 1)
    assert errors == f"error: process 0 ended or cannot be reached; {supervisor.AGAIN}\n"

    more = start(arguments(sample_dir, run, *fields), JAX_NUM_CPU_DEVICES="4")[0]
    watchdog = threading.Timer(LIMIT_S, more.kill)
    watchdog.start()
    assert more.stdout is not None
    lines = []
    for line in more.stdout:
        lines.append(line)
        if re.match(r"epoch \d+/200: train loss", line):
            more.send_signal(signal.SIGTERM)
    watchdog.cancel()
    assert more.wait(timeout=60) == 128 + signal.SIGTERM, lines
    assert "4 cpu device(s)" in lines[0]
    assert lines[1].startswith("resuming from step ")

    config = config_lib.load("tests/quick.py", [*fields, f"--config.data.dir={sample_dir}"])
    fewer: list[str] = []
    assert train(config, run, fewer.append, stop_after=lambda record: True) == Ending("pruned")  # after one epoch
    assert "2 cpu device(s)" in fewer[0]
    assert fewer[1].startswith("resuming from step ")


@slow
def test_two_processes_take_the_steps_of_one(sample_dir: Path, tmp_path: Path) -> None:
    """Five steps with everything that is drawn or summed over the batch, without a preemption service asked for."""
    fields = ["--config.data.label_mode=probability", "--config.augment.mixup=0.2", "--config.model.dropout=0.3"]
    fields += ["--config.optim.name=muon", "--config.train.batch_size=226"]
    fields += ["--config.augment.renderer=device", "--config.train.steps_per_call=5"]
    both = start(*[arguments(sample_dir, tmp_path / "both", *fields)] * 2, JAX_ENABLE_PREEMPTION_SERVICE="0")
    (first, printed, first_errors), (second, silent, second_errors) = outcomes(both)
    assert (first, first_errors, second, second_errors) == (0, "", 0, "")
    assert "2 cpu device(s)" in printed
    assert "run folder" in printed
    assert "loss" not in silent  # the first process prints for both
    assert "run folder" not in silent
    config = config_lib.load("tests/quick.py", [*fields, f"--config.data.dir={sample_dir}"])
    assert train(config, tmp_path / "one", quiet) == Ending("complete")
    for mine, theirs in zip(*(parameters(tmp_path / name, *fields) for name in ("one", "both")), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=TOLERANCE)
