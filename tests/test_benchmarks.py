import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from conftest import ROOT, run_python

from benchmarks import convolutions, measure
from fer_jax.models import registry

SCRIPTS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py") if path.name != "measure.py")


def record(what: str, how: str, images_per_s: float, **more: object) -> measure.Record:
    return {"what": what, "how": how, "images_per_s": images_per_s, "spread": [1.0, 2.0]} | more


def test_all_scripts_run_by_path_from_the_root_and_explain_themselves() -> None:
    helps = {
        script: subprocess.Popen(
            [sys.executable, f"benchmarks/{script}", "--help"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for script in SCRIPTS
    }
    assert len(helps) == 10
    for script, process in helps.items():
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 0, script
        assert f"python benchmarks/{script}" in text  # an example


def test_a_script_without_what_it_needs_says_so_in_one_line(tmp_path: Path) -> None:
    for script, arguments, expected in (
        ("compare.py", ["--torch-python", str(tmp_path / "python")], ".venv-bench/installed"),
        ("torch_step.py", [], ".venv-bench/bin/python"),
        ("torch_pipeline.py", [], ".venv-bench/bin/python"),
        ("torch_epoch.py", [], ".venv-bench/bin/python"),
        ("epoch.py", ["--images", "8", "--config.train.batch_size=16"], "at least train.batch_size=16"),
        ("train_step.py", ["--config.train.batch"], "--config.field=value"),
        ("train_step.py", ["--config", str(tmp_path / "none.py")], "no config file"),
        ("start.py", ["--data", str(tmp_path / "nowhere")], "make sample"),
        ("generator.py", [str(tmp_path)], "No such file"),
    ):
        result = run_python(f"benchmarks/{script}", *arguments)
        assert result.returncode == 1
        assert expected in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_the_convolutions_are_those_of_the_network() -> None:
    params = jax.eval_shape(lambda: registry.init(registry.create_model("emotion_cnn", 0.0, "float32"), 0, 48))[
        "params"
    ]
    kernels = sorted(leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) == 4)
    assert kernels == sorted((3, 3, before, after) for _, before, after in convolutions.layers())
    assert [side for side, _, _ in convolutions.layers()] == [48, 48, 24, 24, 12, 12, 6, 6, 3, 3]


def test_figures_are_the_median_and_the_first_to_ninth_decile() -> None:
    eleven = [float(value) for value in (11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6)]
    assert measure.figures(eleven, "seconds") == {"seconds": 6.0, "spread": [2.0, 10.0], "runs": 11}
    assert measure.figures([3.0], "mib") == {"mib": 3.0, "spread": [3.0, 3.0], "runs": 1}
    assert measure.figures([1.0, 2.0], "seconds") == {"seconds": 1.5, "spread": [1.1, 1.9], "runs": 2}


def test_rates_count_images_of_each_run() -> None:
    timed = measure.Timed(wall=[0.5, 0.25, 1.0], processor=[0.6, 0.5, 0.9])
    assert measure.rates(100, timed) == {"images_per_s": 200.0, "spread": [120.0, 360.0], "runs": 3, "cpu_s": 0.6}


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123456, 0.1235), (12.3456, 12.35), (999.96, 1000.0), (1234.56, 1235), (123456.7, 123457)]
)
def test_figures_are_rounded_to_four_digits_at_least(value: float, shown: float) -> None:
    assert measure.rounded(value) == shown


def test_runs_are_timed_after_the_warm_up_and_five_times_at_least() -> None:
    calls: list[int] = []

    def run() -> None:
        calls.append(1)
        time.sleep(0.02 if len(calls) > 2 else 0.2)

    timed = measure.time_runs(run, seconds=0, warmup=2)
    assert (len(calls), len(timed.wall), len(timed.processor)) == (7, 5, 5)
    assert min(timed.wall) >= 0.02


def test_a_ratio_is_to_the_best_baseline_of_the_same_question() -> None:
    records = [
        record("step", "torch a", 80, baseline=True),
        record("step", "torch b", 100, baseline=True),
        record("step", "ours", 150),
        record("scale", "ours", 70),
    ]
    assert [each.get("ratio") for each in measure.with_ratios(records)] == [None, None, 1.5, None]


def test_fewer_seconds_are_a_ratio_above_one() -> None:
    slow = {"what": "start", "how": "a", "seconds": 6.0, "baseline": True}
    quick = {"what": "start", "how": "b", "seconds": 1.5}
    assert measure.with_ratios([slow, quick])[1]["ratio"] == 4.0


def test_rounds_are_merged_by_the_median_of_their_own_ratios() -> None:
    # The machine is at half speed in the second round: ratios 1.5, 1.4, 1.6.
    speeds = [(100, 80, 150), (50, 40, 70), (100, 90, 160)]
    rounds = [
        [record("s", "a", a, baseline=True), record("s", "b", b, baseline=True), record("s", "ours", ours)]
        for a, b, ours in speeds
    ]
    merged = {each["how"]: each for each in measure.by_rounds(rounds)}
    assert merged["a"]["images_per_s"] == 100
    assert merged["b"]["rounds"] == [80, 40, 90]
    assert "ratio" not in merged["b"]
    assert merged["ours"]["images_per_s"] == 150
    assert merged["ours"]["ratio"] == 1.5
    assert merged["ours"]["ratios"] == [1.5, 1.4, 1.6]


def test_the_table_keeps_questions_together_and_leaves_cells_empty() -> None:
    records = [
        record("step", "torch", 100.0),
        record("start", "cold", 5.0),
        record("step", "ours", 1234.0, ratio=12.34),
    ]
    assert measure.table(records, ["ratio"]).splitlines() == [
        "| what | how | median | spread | ratio |",
        "| --- | --- | --- | --- | --- |",
        "| step | torch | 100 images/s | 1 to 2 |  |",
        "| step | ours | 1234 images/s | 1 to 2 | 12.34 |",
        "| start | cold | 5 images/s | 1 to 2 |  |",
    ]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot keep a thread on a core")
def test_one_core_is_one_core_and_ends() -> None:
    before = measure.cores()
    with measure.one_core():
        assert measure.cores() == 1
    assert measure.cores() == before
