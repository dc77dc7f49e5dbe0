"""Run folders: their config, the lock of the process that trains in them, names of shipped networks."""

import errno
import fcntl
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import fer_jax
from fer_jax.core import config, run_folder, shipped
from fer_jax.core.errors import UserError

SECTIONS = ("augment", "data", "image", "model", "optim", "schedule", "train")
HOLDER = """
import sys
from pathlib import Path
from fer_jax.core import run_folder
lock = run_folder.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
NO_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


def base(**fields) -> ConfigDict:
    """The config base with values of some sections' fields: `optim={"b1": 0.5}`."""
    flat = {f"{section}.{name}": value for section, values in fields.items() for name, value in values.items()}
    return config.with_values(config.load("base"), flat)


def train_a_little(run: Path) -> None:
    (run / run_folder.CHECKPOINTS / "step_3").mkdir(parents=True)


def test_a_run_folder_belongs_to_one_process_until_it_ends(tmp_path: Path) -> None:
    run, fields = tmp_path / "run", base()
    command = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            for refused in (lambda: run_folder.claim(run, fields), lambda: run_folder.hold(run)):
                message = r"another process is training in .*run; wait for it"
                with pytest.raises(run_folder.BusyError, match=message) as error:
                    refused()
                assert "\n" not in str(error.value)
            assert not (run / "config.json").exists()
            with run_folder.claim(run, fields, lock=False):  # the other processes of a run do not lock
                pass
        finally:
            other.kill()
    with run_folder.hold(run), run_folder.claim(run, fields):  # free again; one process may hold it twice
        pass


def test_a_first_checkpoint_that_a_killed_process_left_incomplete_is_none(tmp_path: Path) -> None:
    with run_folder.claim(tmp_path, base()):
        pass
    (tmp_path / run_folder.CHECKPOINTS / "step_3.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not run_folder.has_checkpoint(tmp_path)
    with run_folder.claim(tmp_path, base(optim={"b1": 0.5})):  # there is nothing to keep
        assert run_folder.read_config(tmp_path).optim.b1 == 0.5
    train_a_little(tmp_path)
    assert list(run_folder.checkpoints(tmp_path)) == [3]


def test_a_file_system_without_locks_is_used_too_and_a_killed_process_leaves_it_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    command = [sys.executable, "-c", NO_LOCKS + HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(run_folder.BusyError, match=r"is training in .*; if none is, delete .*\.lock\.held$"):
                run_folder.hold(tmp_path)
        finally:
            other.kill()
    assert (tmp_path / ".lock.held").exists()
    for _ in range(2):
        with run_folder.hold(tmp_path), run_folder.claim(tmp_path, base()):
            pass
    assert not (tmp_path / ".lock.held").exists()


def test_a_refused_claim_releases_the_folder_and_an_inner_claim_does_not(tmp_path: Path) -> None:
    def error_of_another_process() -> str:
        command = [sys.executable, "-c", HOLDER, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False, input="").stderr

    with run_folder.hold(tmp_path):
        with run_folder.claim(tmp_path, base()):
            pass
        assert "BusyError" in error_of_another_process()
    train_a_little(tmp_path)
    with pytest.raises(UserError, match="another config"):
        run_folder.claim(tmp_path, base(optim={"b1": 0.5}))
    assert error_of_another_process() == ""


def test_a_run_folder_belongs_to_its_config(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    first = base(optim={"b1": 0.5}, schedule={"boundaries": (1, 2)})
    for _ in range(2):
        with run_folder.claim(run, first):
            pass
    train_a_little(run)
    assert config.as_json(run_folder.read_config(run)) == config.as_json(first)
    with pytest.raises(UserError) as error:
        run_folder.claim(run, base(optim={"b1": 0.6}, schedule={"boundaries": (1, 3)}))
    differing = "optim.b1: 0.5 there, 0.6 now, schedule.boundaries: [1, 2] there, [1, 3] now"
    assert f"another config ({differing}); choose another --workdir" in str(error.value)
    assert run_folder.read_config(run).optim.b1 == 0.5


def test_a_config_older_than_some_fields_is_completed(tmp_path: Path) -> None:
    today = config.with_values(config.load("base"), config.LATER_FIELDS)
    fields = config.as_json(today)
    for field in config.LATER_FIELDS:
        section, name = field.split(".")
        del fields[section][name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    assert config.as_json(run_folder.read_config(tmp_path)) == config.as_json(today)
    train_a_little(tmp_path)
    with run_folder.claim(tmp_path, today):  # so the run can resume
        pass
    with pytest.raises(UserError, match=r"\(model\.antialias: False there, True now\)"):
        run_folder.claim(tmp_path, config.with_values(today, {"model.antialias": True}))
    assert json.loads(path.read_text()) == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        ("3", "cannot be read"),
        ("[" * 100_000 + "]" * 100_000, "cannot be read"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "cannot be read"),
        ('{"a":' * 300 + "1" + "}" * 300, "cannot be read"),
        ("{}", r"config\.json cannot be read: the section augment is missing"),
        ('{"data": 3}', r"config\.json cannot be read: "),
        (json.dumps({name: {"a": {"b": 1}} for name in SECTIONS}), r"augment\.a must be a field, not a section"),
        ("\udcff", "cannot be read"),
    ],
)
def test_an_unreadable_config_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    train_a_little(tmp_path)
    for refused in (lambda: run_folder.read_config(tmp_path), lambda: run_folder.claim(tmp_path, base())):
        with pytest.raises(UserError, match=message) as error:
            refused()
        assert "\n" not in str(error.value)
        assert len(str(error.value).replace(str(tmp_path), "")) < 300


def test_a_folder_without_a_run_gets_one_line(tmp_path: Path) -> None:
    message = (
        r"config\.json is missing; train one with python -m fer_jax\.main, or name a shipped network \(base, best\)"
    )
    with pytest.raises(UserError, match=message):
        run_folder.read_config(tmp_path / "none")


def test_a_recipe_that_has_not_been_trained_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"; train it first with python -m fer_jax\.main --config taught, or name a "):
        run_folder.read_config(Path(fer_jax.load_config("best").train.init_from))


def test_a_damaged_config_before_the_first_checkpoint_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with run_folder.claim(tmp_path, base()):
        assert config.as_json(run_folder.read_config(tmp_path)) == config.as_json(base())


def test_a_folder_that_cannot_be_made_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*run: .*; choose another --workdir"):
        run_folder.claim(tmp_path / "file" / "run", base())


def test_a_process_without_the_lock_makes_the_folder_and_writes_nothing(tmp_path: Path) -> None:
    run, first, second = tmp_path / "new" / "run", base(), base(optim={"b1": 0.5})
    with run_folder.claim(run, first, lock=False):
        assert list(run.iterdir()) == []
    with run_folder.claim(run, second):
        (run / run_folder.RESULT).write_text("{}")
        with run_folder.claim(run, first, lock=False):
            assert run_folder.read_config(run).optim.b1 == 0.5
            assert (run / run_folder.RESULT).exists()
    train_a_little(run)
    with pytest.raises(UserError, match=r"another config \(optim\.b1: 0\.5 there, 0\.9 now\)"):
        run_folder.claim(run, first, lock=False)


def test_a_network_is_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    best = shipped.networks()["best"]
    assert run_folder.find("best") == best
    assert run_folder.is_released(run_folder.find("best"))
    assert run_folder.find("./best") == Path("best")
    assert run_folder.find("runs/best") == Path("runs/best")
    assert run_folder.find("~/best") == Path.home() / "best"
    assert run_folder.find(best) == best
    (tmp_path / "best").mkdir()
    assert run_folder.find("best") == best  # the folder here holds no run
    monkeypatch.chdir(best.parent)
    assert run_folder.find("best").samefile(best)


def test_predictions_of_a_shipped_network_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of_best = shipped.networks()["best"] / "taught.npz"
    assert run_folder.find_predictions("best/taught.npz") == of_best
    assert run_folder.find_predictions(str(of_best)) == of_best
    for name in ("best/other.npz", "./best/taught.npz", "base/taught.npz"):
        with pytest.raises(UserError, match=f"no file of predictions {re.escape(name)}"):
            run_folder.find_predictions(name)
    for folder in ("best", "base"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "taught.npz").touch()
    assert run_folder.find_predictions("./best/taught.npz") == Path("best/taught.npz")
    assert run_folder.find_predictions("base/taught.npz") == Path("base/taught.npz")  # base has none
    with pytest.raises(UserError) as error:
        run_folder.find_predictions("best/taught.npz")
    assert str(error.value) == (
        f"best/taught.npz is of a shipped network and of a folder here: write ./best/taught.npz or {of_best}"
    )
    monkeypatch.chdir(of_best.parents[1])
    assert run_folder.find_predictions("best/taught.npz").samefile(of_best)


def test_a_name_of_a_network_and_of_a_run_here_is_ambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with run_folder.claim(Path("best"), base()), pytest.raises(UserError) as error:
        run_folder.find("best")
    assert str(error.value) == (
        f"best is a shipped network and a run folder here: write ./best or {shipped.networks()['best']}"
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["weights.safetensors", "config.json", "README.md"], ""),
        ([], ""),
        (["notes.txt"], "exists and holds no released network"),
        (["weights.safetensors", "notes.txt"], "would be replaced, but also holds notes.txt"),
    ],
)
def test_only_released_networks_are_replaced(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).write_text("")
    if not message:
        run_folder.check_replaceable(tmp_path)
        return
    with pytest.raises(UserError, match=message):
        run_folder.check_replaceable(tmp_path)


def test_a_file_is_no_folder_to_replace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run_folder.check_replaceable(tmp_path / "new")
    with pytest.raises(UserError, match="is not a folder; choose another --out"):
        run_folder.check_replaceable(tmp_path / "file")


@pytest.mark.parametrize("exists", [True, False])
def test_an_exported_file_is_no_run_folder(tmp_path: Path, exists: bool) -> None:
    for name, message in (("a.onnx", "is exported already"), ("a.stablehlo", "StableHLO file, which fer_jax does not")):
        if exists:
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match=f"{name} .*{message}.*: name the run folder that it was exported from"):
            run_folder.read_config(tmp_path / name)
