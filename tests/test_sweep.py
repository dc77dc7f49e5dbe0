"""Sweeps: the runs in their order, the table of results, and finished runs, which are not trained again."""

import csv
import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_python
from scipy import stats

from fer_jax import inference
from fer_jax import sweep as command
from fer_jax.core import cli, run_folder
from fer_jax.core import config as config_lib
from fer_jax.core.errors import DiskError, UserError
from fer_jax.data import batching, folders
from fer_jax.evaluation.corruptions import CORRUPTIONS, corrupt
from fer_jax.reporting import document
from fer_jax.search import sweep, sweep_plan, sweep_report
from fer_jax.train import Ending

VARIANTS = """
from tests.quick import get_config

def get_variants():
    return {variants}
"""


@pytest.fixture
def config_file(tmp_path: Path):
    def write(variants: object) -> str:
        path = tmp_path / "variants.py"
        path.write_text(VARIANTS.format(variants=variants))
        return str(path)

    return write


def test_every_variant_is_run_with_one_seed_before_the_next(config_file, tmp_path: Path) -> None:
    path = config_file({"first": {}, "second": {"augment.recipe": "flip", "optim.learning_rate": 0.5}})
    runs = sweep.plan([path, "sample"], ["--config.train.epochs=7"], [3, 1], tmp_path)
    assert [(run.variant, run.seed) for run in runs] == [
        (name, seed) for seed in (3, 1) for name in ("first", "second", "sample")
    ]
    assert len({run.folder for run in runs}) == 6
    first, second, _ = (config_lib.flatten(run.config.to_dict()) for run in runs[:3])
    assert {name for name in first if first[name] != second[name]} == {"augment.recipe", "optim.learning_rate"}
    assert all(run.config.train.epochs == 7 and run.config.seed == run.seed for run in runs)


def test_variants_can_be_chosen(config_file, tmp_path: Path) -> None:
    path = config_file({"first": {}, "second": {}, "third": {}})
    runs = sweep.plan([path], [], [0, 1], tmp_path)
    some = sweep.chosen(runs, ["third", "first"])
    assert [(run.variant, run.seed) for run in some] == [("first", 0), ("third", 0), ("first", 1), ("third", 1)]
    assert sweep.chosen(runs, []) == runs
    with pytest.raises(UserError, match="no variant is called fourth; choose from: first, second, third"):
        sweep.chosen(runs, ["first", "fourth"])


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a": {"augment.recip": "flip"}}, "variant a: .*recip"),
        ({"a": {"optim.learning_rate": "fast"}}, "variant a: "),
        ({"a": {"augment.recipe": "cutmix"}}, "choose one of none"),
        *(({name: {}}, "cannot name a folder") for name in ("a/b", "..", "", 1)),
        ({"a": {"optim": {"name": "sgd"}}}, "variant a: optim: write fields by their dotted names"),
        ({"a": {"seed": 5}}, "a sets the seed, which a sweep takes from --seeds"),
        ({}, "get_variants"),
        (["a"], "get_variants"),
    ],
)
def test_variants_that_cannot_be_run_are_one_line(config_file, tmp_path: Path, variants, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        sweep.plan([config_file(variants)], [], [0], tmp_path)
    assert "\n" not in str(error.value)


def test_a_seed_among_the_overrides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--seeds"):
        sweep.plan(["sample"], ["--config.seed=5"], [0], tmp_path)


def test_two_configs_of_one_name_are_refused(config_file, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two variants are called sample"):
        sweep.plan(["sample", config_file({"sample": {}})], [], [0], tmp_path)


def test_spread_and_difference_by_hand() -> None:
    assert sweep_report.spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7.0)))
    assert math.isnan(sweep_report.spread([1.0]).deviation)
    # sums of squares 14, 2 and 0 with 2, 2 and 0 degrees of freedom: variance 4, and Student's t with 4 has its
    # 97.5 % point at 2.776
    groups = [[1.0, 2.0, 6.0], [1.0, 2.0, 3.0], [5.0]]
    pooled = sweep_report.pool(groups)
    assert pooled == pytest.approx((2.0, 4))
    value, low, high = sweep_report.difference(groups[0], groups[1], pooled)
    assert value == 1.0
    assert high - value == pytest.approx(value - low)
    assert high - value == pytest.approx(2.776 * 2 * math.sqrt(2 / 3), rel=1e-3)
    value, low, high = sweep_report.difference(groups[2], groups[1], pooled)  # one seed alone
    assert (value, high - value) == pytest.approx((3.0, 2.776 * 2 * math.sqrt(4 / 3)), rel=1e-3)
    # two variants alone: Student's test
    expected = stats.ttest_ind(groups[0], groups[1]).confidence_interval(0.95)
    two = sweep_report.difference(groups[0], groups[1], sweep_report.pool(groups[:2]))
    assert two[1:] == pytest.approx((expected.low, expected.high))
    for nothing in (
        [[1.0], [2.0]],
        [[1.0, 1.0], [2.0]],
        [[0.1] * 3, [0.7] * 3],
    ):  # equal seeds; their mean is rounded
        assert np.isnan(sweep_report.difference([1.0], [2.0], sweep_report.pool(nothing))[1:]).all()


def row(variant: str, seed: int, without_duplicates: float | None = 0.5, majority: float = 0.5) -> dict:
    metrics = {"majority_without_duplicates": without_duplicates, "majority": majority}
    return {**dict.fromkeys(sweep_report.SHOWN, 0.5), "variant": variant, "seed": seed, **metrics}


ROWS = [row("a", 0, 0.80, 0.82), row("a", 1, 0.81, 0.84), row("b", 0, 0.83, 0.81), row("b", 1, 0.84, 0.83)]


def test_the_table_compares_each_accuracy_with_that_of_the_first_variant() -> None:
    # Without duplicates the standard deviation is 0.707 points with two degrees of freedom; Student's 97.5 % point is
    # 4.303.
    table = sweep_report.table(ROWS, sweep_report.TERMINAL)
    assert table.header == ["", "seeds", "without duplicates", "from a", "majority", "from a", "F1 without duplicates"]
    assert table.rows[0][2:6] == ["80.50% (0.71%)", "", "83.00% (1.41%)", ""]
    assert table.rows[1][2:6] == ["83.50% (0.71%)", "+3.00 (-0.0 to +6.0)", "82.00% (1.41%)", "-1.00 (-7.1 to +5.1)"]
    assert len(sweep_report.table(ROWS).header) == 2 + len(sweep_report.SHOWN) + 2
    single_seeds = sweep_report.table(ROWS[::2], sweep_report.TERMINAL).rows[1]
    assert single_seeds[3:6:2] == ["+3.00", "-1.00"]  # without an interval


@pytest.mark.parametrize("accuracies", [[None, None, 0.8, 0.9], [0.8, 0.9, None, None], [None] * 4])
def test_variants_whose_images_are_all_duplicates_are_compared_by_majority_alone(accuracies: list) -> None:
    rows = [{**row, "majority_without_duplicates": value} for row, value in zip(ROWS, accuracies, strict=True)]
    table = sweep_report.table(rows)
    missing = accuracies == [None] * 4
    assert ("without duplicates" in table.header) == (not missing)
    assert table.header.count("from a") == 1  # no two variants can be compared without duplicates
    column = table.header.index("from a")
    assert table.header[column - 1] == "majority"
    assert [cells[column] for cells in table.rows] == ["", "-1.00 (-7.1 to +5.1)"]
    assert not any("nan" in cell for cells in table.rows for cell in cells)
    text = sweep_report.page(rows, "latest")[0].text
    assert (" points without duplicates (" in text) == (not missing)
    assert "1.41 points by majority (2 degrees" in text


def test_one_variant_has_no_columns_of_differences() -> None:
    for rows in (ROWS[:2], ROWS[:1]):
        table = sweep_report.table(rows)
        assert table.header == ["", "seeds", *(title for title, _ in sweep_report.SHOWN.values())]
        assert all(cell for cells in table.rows for cell in cells)
        text = sweep_report.page(rows, "latest")[0].text
        assert "difference" not in text.lower() + table.caption
        assert "first variant" not in sweep_report.chart(rows).axes[0].get_xlabel()


@pytest.mark.parametrize(
    ("reference", "name", "metrics"),
    [("a", "b", 3), ("reference", "logit_adjustment", 2), ("a_reference", "a_variant_with_a_name_of_36_characters", 1)],
)
def test_the_terminal_shows_as_many_metrics_as_fit(reference: str, name: str, metrics: int) -> None:
    names = {"a": reference, "b": name}
    text = sweep_report.terminal_text([{**row, "variant": names[row["variant"]]} for row in ROWS])
    assert max(map(len, text.splitlines())) <= document.TERMINAL
    assert name in text
    assert "+3.00 (-0.0 to +6.0)" in text
    titles = [sweep_report.SHOWN[field][0] for field in sweep_report.TERMINAL]
    assert [title in text for title in titles] == [place < metrics for place in range(3)]


def test_an_older_row_that_lacks_metrics_is_kept(config_file, tmp_path: Path) -> None:
    run, other = sweep.plan([config_file({"a": {}, "b": {}})], [], [0], tmp_path)
    for planned in (run, other):
        finish(planned)
    older = json.loads((run.folder / run_folder.RESULT).read_text())
    del older["macro_f1_without_duplicates"]
    (run.folder / run_folder.RESULT).write_text(json.dumps(older))
    assert sweep._stored_row(run, "latest")  # there is no checkpoint to evaluate
    assert [row["macro_f1_without_duplicates"] for row in sweep.gather([run], "latest", tmp_path)] == [None, 0.5]
    (run.folder / "checkpoints" / "step_4").mkdir(parents=True)
    assert sweep._stored_row(run, "latest") is None  # it is evaluated again
    assert sweep._stored_row(other, "latest")


def test_an_older_row_has_its_metrics_under_their_names_today(config_file, tmp_path: Path) -> None:
    run, _ = sweep.plan([config_file({"a": {}, "b": {}})], [], [0], tmp_path)
    finish(run, majority=0.25)
    former = {new: old for old, new in sweep.RENAMED.items()}
    older = json.loads((run.folder / run_folder.RESULT).read_text())
    older = {former.get(name, name): value for name, value in older.items()}
    assert {"majority_unseen", "macro_f1_unseen"} <= older.keys()
    (run.folder / run_folder.RESULT).write_text(json.dumps(older))
    (run.folder / "checkpoints" / "step_4").mkdir(parents=True)
    assert sweep._stored_row(run, "latest")  # it lacks nothing: it is not evaluated again
    sweep.gather([run], "latest", tmp_path)
    (line,) = csv.DictReader((tmp_path / "results.csv").open())
    assert line["majority_without_duplicates"] == line["macro_f1_without_duplicates"] == "0.25"
    assert not any("unseen" in name for name in line)


def test_the_published_ablations_have_the_columns_of_results_csv() -> None:
    rows = list(csv.DictReader((ROOT / "docs" / "ablations.csv").open()))
    assert rows[0].keys() >= sweep_report.SHOWN.keys() - {"corrupted"}  # which is measured where asked for
    assert len(rows) == 68


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"variant": 3}', '{"variant": "a", "seed": 0, "checkpoint": 3}', "\udcff", "[" * 100_000]
)
def test_a_damaged_result_does_not_end_the_table_of_the_others(
    config_file, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    run, other = sweep.plan([config_file({"a": {}, "b": {}})], [], [0], tmp_path)
    for planned in (run, other):
        finish(planned)
    (run.folder / run_folder.RESULT).write_text(text, errors="surrogateescape")
    assert sweep._stored_row(run, "latest") is None  # it is evaluated again
    assert [row["variant"] for row in sweep.gather([run, other], "latest", tmp_path)] == ["b"]
    problem = capsys.readouterr().err
    assert f"problem: {run.folder / run_folder.RESULT} is damaged" in problem
    assert problem.count("\n") == 1


def test_a_damaged_config_does_not_end_the_table_of_the_others(
    config_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = sweep.plan([config_file({"a": {}, "b": {}})], [], [0], tmp_path)
    for planned in (run, other):
        finish(planned)
    (run.folder / run_folder.CONFIG).write_text("{")
    assert [row["variant"] for row in sweep.gather([run, other], "latest", tmp_path)] == ["b"]
    assert capsys.readouterr().err.startswith(f"  problem: {run.folder / run_folder.CONFIG} cannot be read")


@pytest.mark.slow
def test_missing_data_end_a_sweep_unless_other_runs_have_other_data(sample_dir: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(UserError, match="no train data in"):
        sweep._check_data({missing})
    sweep._check_data({missing, str(sample_dir)})


def test_the_result_of_a_run_is_dropped_when_another_config_takes_its_folder(config_file, tmp_path: Path) -> None:
    (run,) = sweep.plan([config_file({"a": {}})], [], [0], tmp_path)
    finish(run)  # without checkpoints, as if they had been deleted
    (changed,) = sweep.plan([config_file({"a": {"train.epochs": 7}})], [], [0], tmp_path)
    with run_folder.claim(changed.folder, changed.config):
        assert sweep._stored_row(changed, "latest") is None
    assert sweep.gather([changed], "latest", tmp_path) == []


def test_the_shipped_variants_load_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert next(iter(sweep_plan.variants("ablation", config_lib.load("ablation")))) == "reference"


def test_the_95_percent_interval_covers_the_difference_in_95_percent_of_samples() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        groups = [rng.normal(mean, 3, size) for mean, size in ((2, 3), (1, 2), (5, 1), (0, 3))]
        _, low, high = sweep_report.difference(groups[0], groups[1], sweep_report.pool(groups))
        covered += low <= 1 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.slow
def test_a_sweep_resumes(config_file, sample_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = config_file({"plain": {}, "bad": {"optim.learning_rate": 1e30}}), tmp_path / "out"
    data = tmp_path / "data"
    shutil.copytree(sample_dir, data)
    label = data / "FER2013Valid" / "label.csv"
    label.write_text("".join(label.read_text().splitlines(keepends=True)[:60]))  # each is corrupted in 55 ways
    given = ["--config", path, "--workdir", str(out), f"--config.data.dir={data}"]

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.status(lambda: command.main([*given, *arguments]))
        return (status, *capsys.readouterr())

    status, _, errors = run("--seeds", "0")
    assert status == 1
    assert "1 of 2 runs failed" in errors
    stamp = (out / "plain" / "seed0" / "result.json").stat().st_mtime_ns
    status, output, _ = run("--variants", "plain", "--seeds", "0", "1")
    assert status == 0
    assert (out / "plain" / "seed0" / "result.json").stat().st_mtime_ns == stamp
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [(row["variant"], row["seed"]) for row in rows] == [("plain", "0"), ("plain", "1")]
    result = json.loads((out / "plain" / "seed1" / "result.json").read_text())
    assert float(rows[1]["majority"]) == result["majority"]
    assert f"{np.mean([float(row['majority']) for row in rows]):.2%}" in output
    assert "plain" in (out / "report.md").read_text()
    assert (out / "accuracy.png").stat().st_size > 5000
    status, output, _ = run("--variants", "plain", "--seeds", "0", "--checkpoint", "best", "--robustness")
    assert (status, "epoch 1/1:" in output) == (0, False)  # evaluated, not trained
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["checkpoint"].split(",")[0] for row in rows] == ["best"]  # the latest checkpoint is not among them
    network = inference.restore(out / "plain" / "seed0", "best")
    examples = batching.select(folders.load(data, "valid"), "majority")
    correct = [
        inference.log_probabilities(network, corrupt(np.asarray(examples.images), name, strength)).argmax(axis=1)
        == examples.target.argmax(axis=1)
        for name in CORRUPTIONS
        for strength in range(1, 6)
    ]
    assert float(rows[0]["corrupted"]) == pytest.approx(np.mean(correct))


def finish(run: sweep.Run, majority: float = 0.5, checkpoint: str = "latest, step 4") -> None:
    """Write the folder of a finished run."""
    metrics = dict.fromkeys(sweep_report.SHOWN, majority)
    with run_folder.claim(run.folder, run.config):
        result = {"variant": run.variant, "seed": run.seed, **metrics, "checkpoint": checkpoint}
        (run.folder / run_folder.RESULT).write_text(json.dumps(result))


def test_the_table_has_all_finished_runs_of_the_folder(config_file, tmp_path: Path) -> None:
    planned = sweep.plan([config_file({"b": {}, "a": {}, "c": {}})], [], [1, 0, 10], tmp_path)
    for run in planned:
        if (run.variant, run.seed) not in (("b", 10), ("c", 0)):
            finish(run)
    older = sweep.plan([config_file({"another": {"train.epochs": 7}})], [], [4], tmp_path)[0]
    finish(older)
    os.utime(older.folder / run_folder.RESULT, ns=(0, 0))  # or both may be of one tick of the clock
    finish(sweep.plan([config_file({"another": {}})], [], [3], tmp_path)[0])
    finish(sweep.plan([config_file({"best": {}})], [], [3], tmp_path)[0], checkpoint="best, step 2")
    assert len({run.folder for run in planned}) == 9
    rows = sweep.gather([run for run in planned if run.seed == 1], "latest", tmp_path)
    assert [(row["variant"], row["seed"]) for row in rows] == [
        *(("b", seed) for seed in (0, 1)),
        *(("a", seed) for seed in (0, 1, 10)),
        *(("c", seed) for seed in (1, 10)),
        ("another", 3),
    ]
    with (tmp_path / "results.csv").open() as file:
        assert [(row["variant"], int(row["seed"])) for row in csv.DictReader(file)] == [
            (row["variant"], row["seed"]) for row in rows
        ]
    # runs of another config than the planned one of that name are not mixed in
    other = sweep.plan([config_file({"b": {}, "a": {"train.epochs": 9}})], [], [1], tmp_path)
    rows = sweep.gather(other, "latest", tmp_path)
    assert [(row["variant"], row["seed"]) for row in rows if row["variant"] in ("a", "b")] == [("b", 0), ("b", 1)]


def test_an_interrupted_sweep_ends_without_an_error(
    config_file, sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config, run: Path, say) -> Ending:
        started.append(run)
        return Ending("interrupted", "SIGTERM")

    started: list[Path] = []
    monkeypatch.setattr(sweep, "train", interrupt)
    path = config_file({"left_out": {}, "plain": {}})
    given = ["--config", path, "--workdir", str(tmp_path), f"--config.data.dir={sample_dir}", "--variants", "plain"]
    assert command.main(given) == 143
    assert started == [tmp_path / "plain" / "seed0"]
    assert not (tmp_path / "results.csv").exists()


def test_a_full_disk_ends_a_sweep(
    config_file, sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def full(config, run: Path, say) -> Ending:
        started.append(run)
        raise DiskError("no space")

    started: list[Path] = []
    monkeypatch.setattr(sweep, "train", full)
    overrides = [f"--config.data.dir={sample_dir}"]
    with pytest.raises(DiskError, match=r"^no space$"):
        sweep.sweep([config_file({"a": {}, "b": {}})], overrides, [0, 1], [], tmp_path, "latest")
    assert len(started) == 1  # the others would fail too


def test_a_signal_at_the_end_of_a_run_ends_the_sweep(
    config_file, sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finished(config, run: Path, say) -> Ending:
        with run_folder.claim(run, config):
            return Ending("complete", "SIGINT")

    monkeypatch.setattr(sweep, "train", finished)
    monkeypatch.setattr(
        sweep, "outcome", lambda run, *_: {**row(run.variant, run.seed), "checkpoint": "latest, step 4"}
    )
    monkeypatch.setattr(sweep.evaluator, "load_data", lambda *_: None)
    given = ["--config", config_file({"a": {}, "b": {}}), "--workdir", str(tmp_path), f"--config.data.dir={sample_dir}"]
    assert command.main(given) == 130
    assert (tmp_path / "a" / "seed0" / "result.json").exists()
    assert not (tmp_path / "b").exists()
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_two_sweeps_of_one_folder_train_each_run_once(config_file, sample_dir: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", config_file({"plain": {}})
    given = ["--config", path, "--seeds", "0", "1", "--workdir", str(out), f"--config.data.dir={sample_dir}"]

    def run(_: int):
        return run_python("-m", "fer_jax.sweep", *given, JAX_NUM_CPU_DEVICES="2")

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(run, range(2)))
    assert [done.returncode for done in both] == [0, 0], both
    # Not "epoch 1/1:" alone: where compilation is slow, "epoch 1/1: compiling" is printed before.
    trained = "".join(done.stdout for done in both).count("epoch 1/1: train loss")
    assert trained == 2
    for seed in (0, 1):
        assert len(list((out / "plain" / f"seed{seed}").glob("events.*"))) == 1
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert len(json.loads((out / "metrics.json").read_text())["runs"]) == 2
