"""What a run promises when its process is killed or its files are lost; see docs/reliability.md."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_jax import evaluate, export, import_data, inference, predict, release, repeats, tune
from fer_jax.core import cli
from fer_jax.core.errors import UserError
from fer_jax.reporting.event_log import PLOT, _read
from fer_jax.train import Ending, train
from tests.small_runs import interrupt, quiet, restored

FOLDERS = ("", "train", "valid")

pytestmark = pytest.mark.slow


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def files(run: Path) -> list[Path]:
    return [path for folder in FOLDERS for path in (run / folder).glob("events.out.tfevents.*")]


def tags(run: Path) -> Counter:
    """The number of times that each folder, tag and step is in the event files, as bytes on the disk."""
    values: Iterator = (
        (path.parent.relative_to(run).name, value.tag, event.step)
        for path in files(run)
        for event in _read(path)
        for value in event.summary.value
    )
    return Counter(values)


def without_file_of(run: Path) -> None:
    for path in files(run):
        path.unlink()


def cut(run: Path) -> None:
    """As a process leaves them that was killed after the checkpoint and before the events."""
    for path in files(run):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def twice(run: Path) -> None:
    """As an older version leaves them that resumed from a checkpoint after which it had logged."""
    for path in files(run):
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [without_file_of, cut, twice])
def test_a_start_completes_the_events_each_step_once(config, finished_run: Path, run: Path, damage) -> None:
    complete = tags(finished_run)
    assert set(complete.values()) == {1}
    steps = [record.step for record in restored(config, run).progress.history]
    damage(run)
    assert train(config, run, quiet) == Ending("complete")
    after = tags(run)
    assert len(files(run)) == 3
    # Plots between the first and the last epoch depend on the clock, and cannot be drawn again.
    drawn = {key for key in complete if key[1] == PLOT and key[2] != steps[-1]}
    assert after.keys() - drawn == complete.keys() - drawn
    assert set(after.values()) == {1}


def test_without_config_json_another_config_is_refused_by_its_field(config, run: Path) -> None:
    (run / "config.json").unlink()
    config.optim.learning_rate = 0.5
    with pytest.raises(UserError, match=r"another config \(optim\.learning_rate: 0\.003 there, 0\.5 now\)"):
        train(config, run, quiet)
    assert not (run / "config.json").exists()


def test_a_config_json_that_was_edited_is_refused_too(config, run: Path) -> None:
    path = run / "config.json"
    path.write_text(path.read_text().replace("0.003", "0.5"))
    config.optim.learning_rate = 0.5
    with pytest.raises(UserError, match=r"another config \(optim\.learning_rate: 0\.003 there, 0\.5 now\)"):
        train(config, run, quiet)


def test_a_missing_config_json_is_written_again(config, finished_run: Path, run: Path) -> None:
    (run / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing; the command that trained this run writes it again$"):
        inference.restore(run)
    lines: list[str] = []
    assert train(config, run, lines.append) == Ending("complete")
    assert lines[0] == "config.json was missing and is written again"
    assert (run / "config.json").read_bytes() == (finished_run / "config.json").read_bytes()


def test_an_older_run_without_config_json_goes_on_with_a_line(config, run: Path) -> None:
    (run / "config.json").unlink()
    for path in (run / "checkpoints").glob("step_*/progress/metadata"):
        stored = json.loads(path.read_text())
        for name in ("arrays", "digest", "config"):
            del stored[name]
        path.write_text(json.dumps(stored))
    lines: list[str] = []
    assert train(config, run, lines.append) == Ending("complete")
    assert lines[0].endswith("; this older checkpoint cannot tell if it is the same config")


@pytest.mark.slow
def test_a_run_with_a_damaged_latest_checkpoint_ends_like_another_and_completes_its_events(
    config, finished_run: Path, tmp_path: Path
) -> None:
    assert train(config, tmp_path, interrupt("epoch 2")) == Ending("interrupted", "SIGTERM")
    (folder,) = (tmp_path / "checkpoints").glob(f"step_{restored(config, tmp_path).step}")
    shutil.rmtree(folder / "progress")
    cut(tmp_path)
    lines: list[str] = []
    assert train(config, tmp_path, lines.append) == Ending("complete")
    assert lines[0].startswith(f"checkpoint {folder.name} is damaged (")
    best = ("resuming from step 9 ", "resuming from step 18 ")  # nine steps an epoch
    assert any(line.startswith(best) for line in lines)
    whole, again = (restored(config, run) for run in (finished_run, tmp_path))
    assert again.step == whole.step
    losses = [[record.valid["loss"] for record in saved.progress.history] for saved in (whole, again)]
    assert losses[0] == losses[1]
    scalars = {key for key in tags(finished_run) if key[1] != PLOT}
    assert {key for key in tags(tmp_path) if key[1] != PLOT} == scalars
    assert set(tags(tmp_path).values()) == {1}


def test_another_checkpoint_does_not_pass_for_the_best(config, finished_run: Path, run: Path) -> None:
    best, latest = (restored(config, finished_run, which).step for which in ("best", "latest"))
    shutil.rmtree(run / "checkpoints" / f"step_{best}" / "metrics")
    with pytest.raises(
        UserError, match="has no best checkpoint" if best == latest else r", step \d+, is missing or has lost"
    ):
        inference.restore(run, "best")
    if best != latest:
        shutil.rmtree(run / "checkpoints" / f"step_{best}")
        lines: list[str] = []
        assert train(config, run, lines.append) == Ending("complete")
        assert lines[0].startswith(f"the best checkpoint so far, step {best}, is missing; ")


@pytest.mark.slow
def test_a_run_that_cannot_be_used_does_not_end_the_evaluation_of_the_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")  # commands change it
    damaged, out = Path(shutil.copytree(run, tmp_path / "damaged")), tmp_path / "out"
    shutil.rmtree(next((damaged / "checkpoints").glob("step_*/metrics")))
    missing = tmp_path / "missing"
    arguments = [text for each in (missing, damaged, run) for text in ("--run", str(each))]
    assert cli.status(lambda: evaluate.main([*arguments, "--out", str(out)])) == 1
    printed = capsys.readouterr()
    problems = printed.err.splitlines()
    assert problems[0].startswith(f"problem: no run in {missing}: ")
    assert problems[1].startswith("problem: ")
    assert str(damaged) in problems[1]
    assert problems[2].startswith("error: 2 of 3 runs were not evaluated; the first: no run in ")
    assert len(problems) == 3
    assert "run: accuracy" in printed.out
    assert json.loads((out / "run" / "metrics.json").read_text())["run"] == str(run)
    assert cli.status(lambda: evaluate.main(arguments[:4])) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: no run can be used; the first: no run in ")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 540 KB. A run takes 456 with its first checkpoint, and a second one takes 190 more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.name == "posix" and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=540k", "none", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system needs the right to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_gets_one_line_and_the_run_goes_on_with_more_space(
    config, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = small_disk / "run"
    assert cli.status(lambda: train(config, run, quiet)) == 1
    assert capfd.readouterr().err == (
        f"error: cannot write to {run}: No space left on device; step 9 is saved; "
        "free some space, then the same command resumes from there\n"
    )
    subprocess.run(["mount", "-o", "remount,size=9m", small_disk], check=True)
    lines: list[str] = []
    assert train(config, run, lines.append) == Ending("complete")
    assert any(line.startswith("resuming from step 9 ") for line in lines)
    assert set(tags(run).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "export", "release", "predict", "repeats", "import", "tune"])
def test_a_full_disk_gets_one_line_in_every_command(
    command: str,
    small_disk: Path,
    finished_run: Path,
    sample_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    out, data = small_disk / "out", str(sample_dir)
    storage = f"sqlite:///{out}.db"
    for number, image in enumerate(sorted((sample_dir / "FER2013Valid").glob("*.png"))[:40]):
        copy = tmp_path / "own" / ("happy", "sad")[number % 2] / image.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, copy)
    main, *arguments = {
        "evaluate": (evaluate.main, "--run", str(finished_run), "--out", str(out)),
        "export": (export.main, "--run", str(finished_run), "--out", f"{out}.onnx"),
        "release": (release.main, "--run", str(finished_run), "--out", str(out)),
        "predict": (predict.main, "--run", str(finished_run), str(tmp_path / "own" / "happy"), "--csv", f"{out}.csv"),
        "repeats": (repeats.main, "--data", data, "--sheet", str(out.with_suffix(".png"))),
        "import": (import_data.main, str(tmp_path / "own"), "--out", str(out)),
        "tune": (tune.main, "--config", "tests/quick_tune.py", f"--config.data.dir={data}", "--storage", storage),
    }[command]
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))
    (small_disk / "last").write_bytes(b"x")  # takes the last page
    assert cli.status(lambda: main(arguments)) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert len(line) <= 300
    assert str(out) in line
    assert re.search("No space left on device; no file is half-written; free some space|disk is full; free some", line)
    assert not out.exists() or not any(out.iterdir())
