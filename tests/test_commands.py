"""The commands as a user gives them, on the drawn sample, from the repository's root."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_python
from PIL import Image

from fer_jax import data


@pytest.fixture(scope="module")
def trained(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of configs/sample.py, shortened."""
    run = tmp_path_factory.mktemp("runs") / "sample"
    result = train(sample_dir, run, "--config.train.epochs=6")
    assert result.returncode == 0, result.stderr
    assert f"python -m fer_jax.evaluate --run {run}" in result.stdout
    return run


def train(sample_dir: Path, run: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "fer_jax.main", "--config", "configs/sample.py", "--workdir", str(run)]
    return run_python(*command, f"--config.data.dir={sample_dir}", *overrides, **environment)


def evaluate(run: Path, *arguments: str, **environment: str) -> dict:
    result = run_python("-m", "fer_jax.evaluate", "--run", str(run), *arguments, **environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "contempt" in result.stdout
    return json.loads((run / "report" / "metrics.json").read_text())


def test_the_sample_is_learned_well_above_chance(trained: Path, sample_dir: Path) -> None:
    result = evaluate(trained)
    largest = max(row["count"] for row in result["per_class"].values()) / result["count"]
    assert result["accuracy"] > largest + 0.1
    assert result["count"] == len(data.select(data.load(sample_dir, "valid"), "majority").images)
    confusion = np.array(result["confusion"])
    assert confusion.sum() == result["count"]
    assert result["accuracy"] == pytest.approx(np.trace(confusion) / confusion.sum())
    with Image.open(trained / "report" / "confusion_matrix.png") as picture:
        assert picture.size[0] > 500


@pytest.mark.parametrize("protocol", ["majority", "clean", "argmax"])
def test_evaluation_takes_split_checkpoint_data_and_protocol(trained: Path, sample_dir: Path, protocol: str) -> None:
    arguments = ["--split", "test", "--checkpoint", "latest", "--protocol", protocol, "--data", str(sample_dir)]
    result = evaluate(trained, *arguments)
    assert (result["split"], result["checkpoint"], result["protocol"]) == ("test", "latest", protocol)
    assert result["count"] == len(data.select(data.load(sample_dir, "test"), protocol).images)


def test_figures_do_not_depend_on_the_number_of_devices(trained: Path) -> None:
    one, two = evaluate(trained), evaluate(trained, JAX_NUM_CPU_DEVICES="3")  # 3 does not divide the batch
    assert one["confusion"] == two["confusion"]
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)


def loss_of(run: Path, **environment: str) -> float:
    return evaluate(run, "--checkpoint", "latest", **environment)["loss"]


def test_two_devices_and_two_processes_train_what_one_does(sample_dir: Path, tmp_path: Path) -> None:
    short = ["--config.train.epochs=1", "--config.train.batch_size=256", "--config.optim.clip_norm=0.0"]
    assert train(sample_dir, tmp_path / "one", *short).returncode == 0
    two = train(sample_dir, tmp_path / "two", *short, JAX_NUM_CPU_DEVICES="2")
    assert "2 cpu device(s)" in two.stdout
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fer_jax.main", "--config", "configs/sample.py", "--workdir", tmp_path / "both"]
    processes = [
        subprocess.Popen(
            [*command, f"--config.data.dir={sample_dir}", *short],
            cwd=ROOT,
            env={
                **os.environ,
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(index),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "2 cpu device(s)" in outputs[0][0]
    losses = [loss_of(tmp_path / name) for name in ("one", "two", "both")]
    # the sums over a batch are taken in another order, no more
    np.testing.assert_allclose(losses, losses[0], rtol=2e-3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_exit_cleanly(sample_dir: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "fer_jax.main",
        "--config",
        "configs/sample.py",
        "--workdir",
        str(tmp_path / "run"),
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    for wait_for in ("training pictures", "resuming from step"):
        log = tmp_path / wait_for
        with open(log, "w") as file:
            process = subprocess.Popen(
                [*command, f"--config.data.dir={sample_dir}"], cwd=ROOT, stdout=file, stderr=file, env=environment
            )
        deadline = time.monotonic() + 120
        while wait_for not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=120) == 0
        assert "Traceback" not in log.read_text()
        assert f"{number.name}: saved at step" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-m", "fer_jax.main", "--config", "configs/base.py", "--config.data.dir=none"], 1, "make sample"),
        (["-m", "fer_jax.main", "--config", "configs/base.py", "--config.lr=3"], 1, "no such field"),
        (["-m", "fer_jax.main", "--config", "configs/base.py", "--config.seed", "3"], 1, "--config.field=value"),
        (["-m", "fer_jax.main"], 2, "--config"),
        (["-m", "fer_jax.evaluate", "--run", "none"], 1, "no run in none"),
        (["-m", "fer_jax.evaluate", "--run", "none", "--split", "all"], 2, "--split"),
    ],
)
def test_mistakes_get_one_line_and_no_traceback(arguments: list[str], status: int, message: str) -> None:
    result = run_python(*arguments)
    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if status == 1:
        assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "fer_jax.main"],
        ["-m", "fer_jax.evaluate"],
        ["-m", "fer_generator.synthetic"],
        ["fer_generator/generate_training_data.py"],
    ],
)
def test_every_command_explains_itself_with_an_example(command: list[str]) -> None:
    result = run_python(*command, "--help")
    assert result.returncode == 0
    assert "example" in result.stdout
    assert f"python {' '.join(command)}" in result.stdout.split("example", 1)[1]
