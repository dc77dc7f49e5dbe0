import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import ROOT, run_python

from benchmarks import compare, convolutions, growth, measure
from fer_generator.generate_training_data import generate
from fer_generator.synthetic import write_csvs
from fer_jax.core import config as config_lib
from fer_jax.data import folders
from fer_jax.models import registry
from fer_jax.training import checks
from tests.small_runs import TINY

MODULES = {"measure.py", "scenes.py"}  # which the scripts import
SCRIPTS = sorted({path.name for path in (ROOT / "benchmarks").glob("*.py")} - MODULES)


def record(question: str, method: str, images_per_s: float, **fields: object) -> measure.Record:
    return {"what": question, "how": method, "images_per_s": images_per_s, "spread": [1.0, 2.0]} | fields


# Runs scripts one after the other as `python benchmarks/NAME` does, in one process, since each would import jax again.
BY_PATH = """
import contextlib, io, json, os, runpy, sys
root, before = os.getcwd(), list(sys.path)
for name, *arguments in json.loads(sys.argv[1]):
    sys.path[:] = [os.path.join(root, "benchmarks"), *(path for path in before if path not in ("", root))]
    for module in [module for module in sys.modules if module.split(".")[0] in ("benchmarks", "fer_jax")]:
        del sys.modules[module]
    sys.argv = [f"benchmarks/{name}", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = 0
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as exit:
            status = exit.code or 0
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def run_scripts(*commands: list[str]) -> list[tuple[int, str, str]]:
    """The exit status, output and errors of each script with its arguments."""
    result = run_python("-c", BY_PATH, json.dumps(commands), PYTHONPATH="")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
def test_all_scripts_run_by_path_from_the_root_and_have_a_help() -> None:
    assert len(SCRIPTS) == 16
    results = run_scripts(*([script, "--help"] for script in SCRIPTS))
    for script, (status, text, errors) in zip(SCRIPTS, results, strict=True):
        assert status == 0, errors
        assert f"python benchmarks/{script}" in text  # an example


@pytest.mark.slow
def test_a_script_reports_what_it_lacks_in_one_line(tmp_path: Path) -> None:
    lacking = (
        ("compare.py", ["--torch-python", str(tmp_path / "python")], ".venv-bench/installed"),
        ("torch_step.py", [], ".venv-bench/bin/python"),
        ("torch_pipeline.py", [], ".venv-bench/bin/python"),
        ("torch_epoch.py", [], ".venv-bench/bin/python"),
        ("epoch.py", ["--images", "8", "--config.train.batch_size=16"], "at least train.batch_size=16"),
        ("train_step.py", ["--config.train.batch"], "--config.field=value"),
        ("train_step.py", ["--config.optim.name=adagrad"], "optim.name='adagrad' is unknown: choose one of adam,"),
        ("train_step.py", ["--config", str(tmp_path / "none.py")], "no config file"),
        ("start.py", ["--data", str(tmp_path / "nowhere")], "make sample"),
        ("generator.py", [str(tmp_path)], "No such file"),
        ("growth.py", [str(tmp_path)], "make sample"),
        ("whole_run.py", ["--data", str(tmp_path)], "no train data in"),
        ("whole_run.py", ["--data", str(tmp_path), "--config.seeds=1"], "seeds"),
        ("compare.py", ["--only", "fast"], "--only fast needs --device cuda and --data"),
        ("compare.py", ["--device", "cuda", "--only", "start"], "--only start needs --device cpu"),
        ("growth.py", [str(tmp_path), "--multiples", "0"], "give numbers from 1 to 192"),
    )
    results = run_scripts(*([script, *arguments] for script, arguments, _ in lacking))
    for (script, _, expected), (status, _, errors) in zip(lacking, results, strict=True):
        assert status == 1, script
        assert expected in errors
        assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_copies_of_a_data_folder_are_the_same_by_csv_and_by_cache(sample_dir: Path, tmp_path: Path) -> None:
    growth.write_csvs(sample_dir, 2, tmp_path)
    generate(tmp_path / "fer2013.csv", tmp_path / "fer2013new.csv", tmp_path / "files")
    growth.write_caches(sample_dir, 2, tmp_path / "caches")
    for name in ("train", "valid", "test"):
        original = folders.load(sample_dir, name)
        by_file, by_cache = (folders.load(tmp_path / kind, name) for kind in ("files", "caches"))
        jax.tree.map(np.testing.assert_array_equal, by_file, by_cache)
        assert len({*by_file.names}) == 2 * len(original.names)
        images, moved = np.split(by_file.images, 2)
        np.testing.assert_array_equal(images, original.images)
        np.testing.assert_array_equal(moved[:, :, 4:], original.images[:, :, :-4])  # by four pixels to the right
        for votes in np.split(by_file.votes, 2):
            np.testing.assert_array_equal(votes, original.votes)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_growth_measures_each_part_in_a_process_of_its_own(tmp_path: Path) -> None:
    paths = write_csvs(tmp_path, {"Training": 100, "PublicTest": 25, "PrivateTest": 25}, seed=0)
    generate(*paths, tmp_path / "data")
    [(status, output, errors)] = run_scripts(
        ["growth.py", str(tmp_path / "data"), "--multiples", "2", "--seconds", "1"]
    )
    assert status == 0, errors
    records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [record["what"] for record in records] == [part.what for part in growth.PARTS.values()]
    assert all(record["anonymous_mib"] <= record["peak_mib"] for record in records)
    assert records[0]["how"].startswith("2 times, ")
    assert records[-1]["how"] == "2 times, 50 images"


@pytest.mark.slow
def test_whole_runs_are_timed_and_their_last_epoch_evaluated(tmp_path: Path) -> None:
    paths = write_csvs(tmp_path, {"Training": 100, "PublicTest": 25, "PrivateTest": 25}, seed=0)
    generate(*paths, tmp_path / "data")
    tiny = [f"--config.model.{field}={value}" for field, value in TINY.items()]
    small = ["--config.train.epochs=2", "--config.train.batch_size=16", "--config.optim.name=sgd", *tiny]
    arguments = ["--data", str(tmp_path / "data"), "--compiled", "--seeds", "3", *small]
    # In a process of its own, whose stderr has the lines of the trainings.
    result = run_python("benchmarks/whole_run.py", *arguments)
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [record["what"] for record in records] == 2 * ["whole run, fast, 2 epochs, batch 16"]
    assert [record["how"] for record in records] == ["sgd, nothing compiled before", "sgd, compiled before"]
    last = [line for line in result.stderr.splitlines() if line.startswith("epoch 2/2: train")]
    expected = [float(line.split("validation loss")[1].split("accuracy ")[1].split("%")[0]) for line in last]
    assert len(expected) == 2
    for record, accuracy in zip(records, expected, strict=True):
        assert record["each"] == [record["seconds"]]
        assert record["majority"] == [pytest.approx(accuracy, abs=0.01)]
        assert 0 <= record["clean"][0] <= 100


@pytest.mark.parametrize("plan", [compare.on_cpu("torch", 1, False, "sample"), compare.on_gpu("torch", 1, "data")])
def test_every_planned_command_has_a_script_and_a_config_that_can_be_used(plan: compare.Plan) -> None:
    commands = [command for part in plan for scripts in part.values() for command in scripts]
    assert all((ROOT / command[1]).is_file() for command in commands)
    configured = [command for command in commands if any(word.startswith("--config") for word in command)]
    assert configured
    for command in configured:
        names = [word.removeprefix("--config=") for word in command if word.startswith("--config=")]
        default = "fast" if "whole_run" in command[1] else "emotion_cnn"
        overrides = [word for word in command if word.startswith("--config.")]
        checks.check(config_lib.load(names[0] if names else f"configs/{default}.py", overrides))


def test_the_convolutions_are_those_of_the_network() -> None:
    model = registry.create_model("emotion_cnn", 0.0, "float32")
    params = jax.eval_shape(lambda: registry.init(model, 0, 48))["params"]
    kernels = sorted(leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) == 4)
    assert kernels == sorted((3, 3, c_in, c_out) for _, c_in, c_out in convolutions.layers())
    assert [side for side, _, _ in convolutions.layers()] == [48, 48, 24, 24, 12, 12, 6, 6, 3, 3]


def test_a_summary_is_the_median_and_the_first_to_ninth_decile() -> None:
    eleven = [float(value) for value in (11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6)]
    assert measure.summary(eleven, "seconds") == {"seconds": 6.0, "spread": [2.0, 10.0], "runs": 11}
    assert measure.summary([3.0], "mib") == {"mib": 3.0, "spread": [3.0, 3.0], "runs": 1}
    assert measure.summary([1.0, 2.0], "seconds") == {"seconds": 1.5, "spread": [1.1, 1.9], "runs": 2}


def test_rates_count_images_of_each_run() -> None:
    timed = measure.Timed(wall=[0.5, 0.25, 1.0], processor=[0.6, 0.5, 0.9])
    assert measure.rates(100, timed) == {"images_per_s": 200.0, "spread": [120.0, 360.0], "runs": 3, "cpu_s": 0.6}


@pytest.mark.parametrize(
    ("value", "expected"), [(0.123456, 0.1235), (12.3456, 12.35), (999.96, 1000.0), (1234.56, 1235), (123456.7, 123457)]
)
def test_results_are_rounded_to_at_least_four_digits(value: float, expected: float) -> None:
    assert measure.rounded(value) == expected


@pytest.mark.parametrize(
    ("seconds", "runs"),
    [(0, [3, 4, 5, 6, 7]), (20, [3, 4, 5, 6, 7]), (26, [3, 4, 5, 6, 7, 8])],  # 3 + 4 + 5 + 6 + 7 = 25
)
def test_runs_are_timed_after_the_warm_up_and_at_least_five_times(
    seconds: float, runs: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    durations: list[float] = []

    def run() -> None:
        durations.append(len(durations) + 1.0)  # 1 s, 2 s, ... by the clock below

    def clock() -> float:
        return sum(durations)

    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=clock, process_time=lambda: 2 * clock()))
    timed = measure.time_runs(run, seconds, warmup=2)
    assert timed == measure.Timed(wall=runs, processor=[2 * duration for duration in runs])


def test_a_ratio_compares_with_the_best_baseline_of_the_same_question() -> None:
    records = [
        record("step", "torch a", 80, baseline=True),
        record("step", "torch b", 100, baseline=True),
        record("step", "ours", 150),
        record("scale", "ours", 70),
    ]
    assert [record.get("ratio") for record in measure.with_ratios(records)] == [None, None, 1.5, None]


def test_fewer_seconds_make_a_ratio_above_one() -> None:
    slow = {"what": "start", "how": "a", "seconds": 6.0, "baseline": True}
    fast = {"what": "start", "how": "b", "seconds": 1.5}
    assert measure.with_ratios([slow, fast])[1]["ratio"] == 4.0


def test_rounds_are_merged_by_the_median_of_the_ratios_within_them() -> None:
    # The machine is at half speed in the second round: ratios 1.5, 1.4, 1.6.
    speeds = [(100, 80, 150), (50, 40, 70), (100, 90, 160)]
    rounds = [
        [record("s", "a", a, baseline=True), record("s", "b", b, baseline=True), record("s", "ours", ours)]
        for a, b, ours in speeds
    ]
    merged = {record["how"]: record for record in measure.by_rounds(rounds)}
    assert merged["a"]["images_per_s"] == 100
    assert merged["b"]["rounds"] == [80, 40, 90]
    assert "ratio" not in merged["b"]
    assert merged["ours"]["images_per_s"] == 150
    assert merged["ours"]["ratio"] == 1.5
    assert merged["ours"]["ratios"] == [1.5, 1.4, 1.6]


def test_a_measurement_that_failed_in_a_round_is_left_out() -> None:
    rounds = [[record("s", "a", 1), record("s", "b", 2)], [record("s", "b", 4)], [record("s", "a", 3)]]
    assert measure.by_rounds(rounds[:2]) == [measure.by_rounds([rounds[0][1:], rounds[1]])[0]]
    assert measure.by_rounds(rounds) == []


def test_a_benchmark_that_fails_does_not_stop_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "measurement.py"
    script.write_text("import sys\nif sys.argv[1] == 'bad': sys.exit('error: no data')\nprint('{\"seconds\": 1}')")
    commands = [
        (number, [sys.executable, str(script), kind]) for number, kind in ((1, "good"), (1, "bad"), (2, "good"))
    ]
    records, errors = compare.run_all(commands, tmp_path / "log.jsonl", {})
    assert records == {1: [{"seconds": 1}], 2: [{"seconds": 1}]}
    assert [str(error).endswith("bad failed: error: no data") for error in errors] == [True]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    assert "warning" in capfd.readouterr().err


def test_the_table_groups_records_by_question() -> None:
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
    cores = measure.cores()
    with measure.one_core():
        assert measure.cores() == 1
    assert measure.cores() == cores
