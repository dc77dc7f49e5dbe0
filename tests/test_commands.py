"""The commands on the drawn sample: training, evaluation, release, prediction, signals, several processes."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_python
from PIL import Image

from fer_jax import evaluate, main, predict, release, repeats
from fer_jax.core import cli
from fer_jax.data import batching, folders
from fer_jax.training import checkpoint
from tests.small_runs import TINY

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of configs/sample.py with the tiny network, which learns enough of the unchanged images in 20 epochs."""
    run = tmp_path_factory.mktemp("runs") / "sample"
    command = ["-m", "fer_jax.main", "--config", "configs/sample.py", "--workdir", str(run)]
    command += [f"--config.data.dir={sample_dir}", "--config.train.epochs=20", "--config.train.eval_batch_size=100"]
    command += [f"--config.model.width={TINY['width']}", f"--config.model.depth={TINY['depth']}"]
    command += ["--config.model.dropout=0", "--config.augment.recipe=none"]
    command += ["--config.optim.learning_rate=0.02", "--config.optim.ema_decay=0.9"]
    result = run_python(*command, JAX_NUM_CPU_DEVICES="2")
    assert result.returncode == 0, result.stderr
    assert f"python -m fer_jax.evaluate --run {run}" in result.stdout
    return run


@pytest.fixture(scope="module")
def evaluated(trained: Path) -> dict:
    """The metrics of `trained`, with its report in the run folder."""
    assert evaluate.main(["--run", str(trained)]) == 0
    return metrics(trained / "report")


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@slow
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
        with Image.open(trained / "report" / link) as image:
            assert image.size[0] > 500


@slow
def test_training_logs_the_accuracy_that_the_evaluation_computes(evaluated: dict, trained: Path) -> None:
    with closing(checkpoint.open_manager(trained, read_only=True)) as manager:
        best = manager.metrics(evaluated["step"])
    assert evaluated["accuracy"] == pytest.approx(best["accuracy"])


@slow
def test_a_released_network_is_evaluated_outside_its_folder_and_cannot_be_trained_on(
    evaluated: dict, trained: Path, sample_dir: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "released" / "sample"
    assert release.main(["--run", str(trained), "--out", str(out)]) == 0
    size = (out / "weights.safetensors").stat().st_size
    assert re.search(rf"^released: {out} \({size / 1e6:.1f} MB of weights", capsys.readouterr().out, re.MULTILINE)
    assert f"| accuracy | {evaluated['accuracy']:.2%} (" in (out / "README.md").read_text()
    files = {path.name: path.read_bytes() for path in out.iterdir()}

    assert evaluate.main(["--run", str(out)]) == 0
    assert "report: experiments/reports/sample/report.html" in capsys.readouterr().out
    again = metrics(tmp_path / "experiments" / "reports" / "sample")
    assert again["run"] == str(out)
    assert {**again, "run": str(trained)} == evaluated

    arguments = ["--config", "sample", "--workdir", str(out), f"--config.data.dir={sample_dir}"]
    assert cli.status(lambda: main.main(arguments)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds a released network, which cannot be trained on; choose another --workdir" in error
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


@slow
def test_the_report_of_one_run_goes_to_out(evaluated: dict, trained: Path, tmp_path: Path, capsys) -> None:
    before = (trained / "report" / "metrics.json").read_bytes()
    out = tmp_path / "reports" / "clean"
    assert evaluate.main(["--run", str(trained), "--protocol", "clean", "--out", str(out)]) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out
    assert metrics(out)["protocol"] == "clean"
    assert (trained / "report" / "metrics.json").read_bytes() == before


@slow
def test_runs_are_compared_on_the_split_of_the_arguments(
    evaluated: dict, trained: Path, sample_dir: Path, tmp_path: Path
) -> None:
    copy, out = tmp_path / "copy", tmp_path / "both"
    shutil.copytree(trained, copy)
    arguments = ["--split", "test", "--checkpoint", "latest", "--protocol", "clean", "--data", str(sample_dir)]
    arguments += ["--run", str(trained), "--run", str(copy), "--ensemble", "--flip", "--out", str(out)]
    result = run_python("-m", "fer_jax.evaluate", *arguments, JAX_NUM_CPU_DEVICES="3")  # 3 does not divide the batch
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["sample, flip", "copy, flip", "ensemble of 2, flip"]
    assert lines[4].startswith("Most accurate: ")
    assert len(lines) <= 60
    assert "| contempt | " in (out / "copy, flip" / "report.md").read_text()  # the full tables are in the reports
    one, other, both = (metrics(out / name) for name in ("sample, flip", "copy, flip", "ensemble"))
    assert metrics(trained / "report")["split"] == "valid"  # the run's own report is unchanged
    assert (one["split"], one["checkpoint"], one["protocol"], one["flip"]) == ("test", "latest", "clean", True)
    assert one["count"] == len(batching.select(folders.load(sample_dir, "test"), "clean").images)
    assert one["model"] == "sample, flip"
    assert one["confusion"] == other["confusion"] == both["confusion"]  # the same network twice
    assert both["nll"] == pytest.approx(one["nll"])
    assert both["checkpoints"] == metrics(out)["checkpoints"] == ["latest", "latest"]
    models = metrics(out)["models"]
    assert [model["model"] for model in models] == ["sample, flip", "copy, flip", "ensemble of 2, flip"]
    assert re.search(r"sample, flip - copy, flip +\+0\.00 ", result.stdout)


def test_predictions_for_a_folder_print_40_rows(tmp_path: Path, capsys) -> None:
    for index in range(42):
        Image.new("L", (48, 48), 5 * index).save(tmp_path / f"face{index}.png")
    assert predict.main(["--run", "base", str(tmp_path), "--csv", str(tmp_path / "faces.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("face" in line and ".png" in line for line in lines) == 40
    assert "... and 2 more rows" in lines
    assert len((tmp_path / "faces.csv").read_text().splitlines()) == 43


@slow
def test_signals_save_and_exit_cleanly(sample_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fer_jax.main", "--config", "tests/quick.py", "--config.train.epochs=100"]
    command += [f"--config.data.dir={sample_dir}", "--workdir", str(tmp_path / "run")]
    for number, line_before in ((signal.SIGTERM, "training images"), (signal.SIGINT, "resuming from step")):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        lines = []
        watchdog = threading.Timer(240, process.kill)  # a hung process must not hang the tests
        watchdog.start()
        for line in process.stdout:
            lines.append(line)
            if line_before in line:
                process.send_signal(number)
        watchdog.cancel()
        output = "".join(lines)
        assert process.wait(timeout=60) == 128 + number, output
        assert "Traceback" not in output
        assert f"{number.name}: saved at step" in output


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(main, ["--config", "base", "--config.data.dir=none"]), (repeats, ["--data", "none"])],
)
def test_a_missing_data_folder_gets_one_line(
    command, arguments: list[str], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.status(lambda: command.main(arguments)) == 1
    error = capsys.readouterr().err
    assert "no train data in" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
