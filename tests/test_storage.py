"""The SQLite database of a study while another program has locked it."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from fer_jax.core.errors import UserError
from fer_jax.search import storage
from fer_jax.search import study as study_lib
from tests.test_study import age_heartbeats, open_study

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[optuna.Study]:
    monkeypatch.setattr(storage, "BUSY_S", 0.0)
    study = open_study(tmp_path)
    yield study
    storage.close(study)


class Lock:
    """A lock of another program, which it releases when it has been waited for three times."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.waits = 0

    def take(self, kind: str) -> None:
        self.waits = 0
        self._database.execute(f"BEGIN {kind}")

    def wait(self, seconds: float) -> None:
        self.waits += 1
        if self.waits == 3:
            self._database.execute("ROLLBACK")


@pytest.fixture
def lock(study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lock]:
    with closing(sqlite3.connect(tmp_path / "new" / "study.db", isolation_level=None)) as database:
        lock = Lock(database)
        monkeypatch.setattr(storage.time, "sleep", lock.wait)
        yield lock


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])  # others may read, or may not
def test_reports_and_heartbeats_wait_for_a_lock(study: optuna.Study, lock: Lock, kind: str) -> None:
    trial = study.ask()
    lock.take(kind)
    trial.report(0.25, 1)
    assert lock.waits == 3
    lock.take(kind)
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    assert lock.waits == 3
    lock.take(kind)
    study.tell(trial, 0.5)
    assert lock.waits == 3
    assert (study.trials[0].intermediate_values, study.trials[0].value) == ({1: 0.25}, 0.5)


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
def test_after_a_lock_no_trial_is_stale_before_its_process_could_send_a_heartbeat(
    study: optuna.Study, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    trial = study.ask()
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    assert age_heartbeats(tmp_path, storage.GRACE_S + 1) == 1
    lock.take(kind)
    assert study_lib.next_step(study, 1) == "wait"
    assert lock.waits == 3
    assert study_lib.next_step(study, 1) == "wait"
    waits = study._storage._backend.waits  # type: ignore[attr-defined]
    monkeypatch.setattr(waits, "last", waits.last - storage.GRACE_S)
    assert study_lib.next_step(study, 1) == "train"


def test_a_database_that_stays_locked_is_an_error_and_no_heartbeat_ends_its_thread(
    study: optuna.Study, lock: Lock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = study.ask()
    monkeypatch.setattr(storage, "LOCKED_S", -math.inf)
    monkeypatch.setattr(storage, "NOTE_S", -math.inf)
    lock.take("EXCLUSIVE")
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    with pytest.raises(optuna.exceptions.StorageInternalError) as error:
        trial.report(0.25, 1)
    assert storage.storage_error(error.value) == "database is locked"
    monkeypatch.setattr(storage, "LOCKED_S", math.inf)
    trial.report(0.25, 1)
    assert capsys.readouterr().err == "waiting: another program has locked the database of the study\n"


def test_a_heartbeat_without_a_database_is_dropped(study: optuna.Study, tmp_path: Path) -> None:
    trial = study.ask()
    (tmp_path / "new" / "study.db").write_bytes(b"no database " * 1000)
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="cannot be opened: file is not a database"):
        open_study(tmp_path)
