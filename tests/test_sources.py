"""The networks that a run starts from and learns from, checked before it writes a file."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

import fer_jax
from fer_jax.core import config as config_lib
from fer_jax.core import run_folder
from fer_jax.core.errors import UserError
from fer_jax.inference import sources
from fer_jax.train import train
from tests.small_runs import quiet, with_epochs_left


def base_with(fields: dict) -> ConfigDict:
    return config_lib.with_values(fer_jax.load_config("base"), fields)


@pytest.mark.parametrize("fields", [{"data.teachers": ("none",)}, {"train.init_from": "none"}])
def test_a_missing_teacher_or_start_gets_one_line(
    fields: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run in none") as error:
        sources.check(base_with(fields))
    assert "\n" not in str(error.value)
    sources.check(base_with({"data.teachers": ("best", "base"), "train.init_from": "base"}))
    with pytest.raises(UserError, match=r"no file of predictions none/taught\.npz; name the taught\.npz of a run"):
        sources.check(base_with({"data.teachers": ("none/taught.npz",)}))
    (tmp_path / "best").mkdir()
    with pytest.raises(UserError, match="no run in"):  # ./best is the folder here
        sources.check(base_with({"train.init_from": "./best"}))


@pytest.mark.parametrize("field", ["train.init_from", "data.teachers"])
@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        (3, "trained 3 of its 9 epochs; let it finish, or release it as it is"),
        (0, "trained 0 of its 9 epochs; let it finish$"),
    ],
)
def test_a_run_that_has_not_finished_is_named_before_the_folder_is_made(
    config, finished_run: Path, tmp_path: Path, field: str, epochs: int, message: str
) -> None:
    unfinished = with_epochs_left(finished_run, tmp_path / "unfinished")
    if not epochs:
        shutil.rmtree(unfinished / run_folder.CHECKPOINTS)
    value: Any = str(unfinished) if field == "train.init_from" else (str(finished_run), str(unfinished))
    with pytest.raises(UserError, match=f"^{field}: .*unfinished has {message}") as error:
        train(config_lib.with_values(config, {field: value}), tmp_path / "run", quiet)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
