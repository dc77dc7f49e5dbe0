"""The commands as a user gives them, on the drawn sample, from the repository's root."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_python
from PIL import Image

from fer_jax.data import batching, folders
from fer_jax.training import checkpoint


@pytest.fixture(scope="module")
def trained(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of configs/sample.py, shortened."""
    run = tmp_path_factory.mktemp("runs") / "sample"
    result = train(sample_dir, run, "--config.train.epochs=5")
    assert result.returncode == 0, result.stderr
    assert f"python -m fer_jax.evaluate --run {run}" in result.stdout
    return run


def train(sample_dir: Path, run: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "fer_jax.main", "--config", "configs/sample.py", "--workdir", str(run)]
    return run_python(*command, f"--config.data.dir={sample_dir}", *overrides, **environment)


def evaluate(*arguments: str, **environment: str) -> str:
    result = run_python("-m", "fer_jax.evaluate", *arguments, **environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "contempt" in result.stdout
    return result.stdout


def figures(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def evaluated(trained: Path) -> dict:
    evaluate("--run", str(trained))
    return figures(trained / "report")


def test_the_sample_is_learned_well_above_chance(evaluated: dict, trained: Path, sample_dir: Path) -> None:
    largest = max(row["count"] for row in evaluated["per_class"].values()) / evaluated["count"]
    assert evaluated["accuracy"] > largest + 0.1
    valid = folders.load(sample_dir, "valid")
    for protocol in ("majority", "clean", "argmax"):
        assert evaluated["protocols"][protocol]["all"]["count"] == len(batching.select(valid, protocol).images)
    confusion = np.array(evaluated["confusion"])
    assert confusion.sum() == evaluated["count"] == evaluated["protocols"]["majority"]["all"]["count"]
    assert evaluated["accuracy"] == pytest.approx(np.trace(confusion) / confusion.sum())
    assert (trained / "report" / "report.html").read_text().count("<img") == 9
    for link in re.findall(r"!\[.*\]\((.*)\)", (trained / "report" / "report.md").read_text()):
        with Image.open(trained / "report" / link) as picture:
            assert picture.size[0] > 500


def test_training_logged_the_accuracy_that_evaluation_finds(evaluated: dict, trained: Path) -> None:
    with closing(checkpoint.open_manager(trained, read_only=True)) as manager:
        best = manager.metrics(evaluated["step"])
    assert evaluated["accuracy"] == pytest.approx(best["accuracy"])


def test_a_run_is_released_evaluated_from_its_folder_alone_and_not_trained_on(
    evaluated: dict, trained: Path, sample_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pretrained" / "sample"
    result = run_python("-m", "fer_jax.release", "--run", str(trained), "--out", str(out))
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(rf"^released: {out} \(0\.8 MB of weights", result.stdout, re.MULTILINE)
    assert f"| accuracy | {evaluated['accuracy']:.2%} (" in (out / "README.md").read_text()
    evaluate("--run", str(out))
    again = figures(out / "report")
    assert again["run"] == str(out)
    assert {**again, "run": str(trained)} == evaluated
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    refused = train(sample_dir, out)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "holds a released network, which cannot be trained on; choose another --workdir" in refused.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_runs_are_compared_on_the_split_that_is_asked_for(
    evaluated: dict, trained: Path, sample_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    asked = ["--split", "test", "--checkpoint", "latest", "--protocol", "clean", "--data", str(sample_dir)]
    runs = ["--run", str(trained), "--run", str(copy), "--ensemble", "--flip", "--out", str(tmp_path / "both")]
    said = evaluate(*runs, *asked, JAX_NUM_CPU_DEVICES="3")  # 3 does not divide the batch
    out = tmp_path / "both"
    one, other, both = (figures(out / name) for name in ("sample, flip", "copy, flip", "ensemble"))
    assert figures(trained / "report")["split"] == "valid"  # the run's own report is left alone
    assert (one["split"], one["checkpoint"], one["protocol"], one["flip"]) == ("test", "latest", "clean", True)
    assert one["count"] == len(batching.select(folders.load(sample_dir, "test"), "clean").images)
    assert one["model"] == "sample, flip"
    assert one["confusion"] == other["confusion"] == both["confusion"]  # the same network twice
    assert both["nll"] == pytest.approx(one["nll"])
    assert both["checkpoints"] == figures(tmp_path / "both")["checkpoints"] == ["latest", "latest"]
    compared = figures(tmp_path / "both")["models"]
    assert [model["model"] for model in compared] == ["sample, flip", "copy, flip", "ensemble of 2, flip"]
    assert re.search(r"sample, flip - copy, flip +\+0\.00 ", said)


def test_two_devices_and_two_processes_train_what_one_does(sample_dir: Path, tmp_path: Path) -> None:
    command = ["-m", "fer_jax.main", "--config", "tests/quick.py", f"--config.data.dir={sample_dir}", "--workdir"]
    one = run_python(*command, str(tmp_path / "one"))
    assert one.returncode == 0, one.stderr
    command[-1:-1] = ["--config.augment.renderer=device", "--config.train.steps_per_call=2"]
    two = run_python(*command, str(tmp_path / "two"), JAX_NUM_CPU_DEVICES="2")
    assert "2 cpu device(s)" in two.stdout, two.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, *command, str(tmp_path / "both")],
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
    assert "run folder" in outputs[0][0]
    assert "loss" not in outputs[1][0]  # one speaks for both
    assert "run folder" not in outputs[1][0]
    losses = [
        [float(loss) for loss in re.findall(r"loss (\S+),", said)] for said in (one.stdout, two.stdout, outputs[0][0])
    ]
    assert len(losses[0]) == 2  # training and validation
    # the sums over a batch are taken in another order, no more
    np.testing.assert_allclose(losses[1:], losses[:1] * 2, rtol=2e-3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_exit_cleanly(sample_dir: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "fer_jax.main", "--config", "tests/quick.py", "--config.train.epochs=100"]
    command += [f"--config.data.dir={sample_dir}", "--workdir", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    for wait_for in ("training pictures", "resuming from step"):
        log = tmp_path / wait_for
        with open(log, "w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=environment)
        deadline = time.monotonic() + 120
        while wait_for not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=120) == 0, log.read_text()
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
        (["-m", "fer_jax.evaluate", "--run", "none", "--ensemble"], 2, "two --run"),
        (["-m", "fer_jax.release", "--run", "none", "--out", "none"], 1, "no run in none"),
        (["-m", "fer_jax.release", "--run", "none", "--out", "docs"], 1, "holds no released network"),
        (["-m", "fer_jax.repeats", "--data", "none"], 1, "make sample"),
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
        ["-m", "fer_jax.release"],
        ["-m", "fer_jax.repeats"],
        ["-m", "fer_jax.predict"],
        ["-m", "fer_jax.export"],
        ["-m", "fer_jax.sweep"],
        ["-m", "fer_jax.tune"],
        ["-m", "fer_generator.synthetic"],
        ["fer_generator/generate_training_data.py"],
    ],
)
def test_every_command_explains_itself_with_an_example(command: list[str]) -> None:
    result = run_python(*command, "--help")
    assert result.returncode == 0
    assert "example" in result.stdout
    assert f"python {' '.join(command)}" in result.stdout.split("example", 1)[1]
