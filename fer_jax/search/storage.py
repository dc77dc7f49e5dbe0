"""The database of studies: locks of SQLite are waited for, heartbeats go on, and stale trials are found."""

import math
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from fer_jax.core.errors import UserError

HEARTBEAT_S, GRACE_S = 10, 60
BUSY_S = 1.0  # SQLite itself waits so long for a lock; signals are not noticed meanwhile
LOCKED_S = 600  # a database that is locked for longer is an error
NOTE_S = 30  # after which a line is printed

Retry = Callable[[optuna.Study, FrozenTrial], None]


class _Waits:
    """The waits of this process for a locked SQLite database."""

    def __init__(self) -> None:
        self.last = -math.inf  # the time of the last one
        self._noted = False

    def patiently(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of an operation, which is repeated while another program has locked the database."""
        begin = time.monotonic()
        while True:
            try:
                result = operation(*arguments)
            except sqlite3.OperationalError as error:
                self.last = time.monotonic()
                locked = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not locked or self.last - begin > LOCKED_S:
                    raise
                if self.last - begin > NOTE_S and not self._noted:
                    self._noted = True
                    print("waiting: another program has locked the database of the study", file=sys.stderr, flush=True)
                time.sleep(0.05)
            else:
                self._noted = False
                return result


class _Cursor(sqlite3.Cursor):
    connection: "_Connection"

    def execute(self, *arguments: Any) -> Any:
        return self.connection.waits.patiently(super().execute, *arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.connection.waits.patiently(super().executemany, *arguments)


class _Connection(sqlite3.Connection):
    """A connection that waits for locks as long as it takes."""

    def __init__(self, *arguments: Any, waits: _Waits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waits = waits

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def commit(self) -> None:
        self.waits.patiently(super().commit)


class _Storage(RDBStorage):
    """Optuna's storage, whose heartbeats outlive errors of the database."""

    waits: _Waits | None = None  # of SQLite

    def record_heartbeat(self, trial_id: int) -> None:
        # An error would end the thread of heartbeats, and another process would take over the trial. If the database is
        # gone for good, the trial's next report shows it.
        with suppress(StorageInternalError, SQLAlchemyError):
            super().record_heartbeat(trial_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """The trials without a heartbeat for GRACE_S, none in the GRACE_S after a lock: nobody could send one."""
        stale = super()._get_stale_trial_ids(study_id)
        if not stale or self.waits is None:
            return stale
        with self.engine.begin() as database:  # waits for a lock that lets others read
            query = "UPDATE studies SET study_name = study_name WHERE study_id = :number"
            database.execute(sqlalchemy.text(query), {"number": study_id})
        return [] if time.monotonic() - self.waits.last < GRACE_S else super()._get_stale_trial_ids(study_id)


def open_storage(url: str, retry: Retry) -> RDBStorage:
    """Open the database of a URL, and make its tables if they are missing.

    Args:
        url: as SQLAlchemy takes it.
        retry: gets each trial that has become stale.

    Raises:
        UserError: the database cannot be opened.
    """
    try:
        address = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise UserError(
            f"--storage {url!r} is no database URL: write for example sqlite:///experiments/tune.db"
        ) from None
    engine_kwargs: dict[str, Any] = {"pool_pre_ping": True}
    waits = _Waits() if address.get_backend_name() == "sqlite" else None
    if waits is not None:
        engine_kwargs = {"connect_args": {"timeout": BUSY_S, "factory": partial(_Connection, waits=waits)}}
        if address.database not in (None, "", ":memory:"):
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
            engine_kwargs["poolclass"] = sqlalchemy.pool.NullPool  # a file is closed after each transaction

    def opened() -> RDBStorage:
        storage = _Storage(
            url,
            engine_kwargs=engine_kwargs,
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=retry,
        )
        storage.waits = waits
        return storage

    try:
        try:
            return opened()
        except SQLAlchemyError:
            time.sleep(1)  # perhaps another process was creating the tables at the same moment
            return opened()
    except (SQLAlchemyError, ImportError, RuntimeError) as error:
        reason = storage_error(error) or str(error.__cause__ or error)
        driver = "; for PostgreSQL pip install 'fer_jax[tune]' and write postgresql+psycopg://..."
        shown = address.render_as_string(hide_password=True)
        missing = driver * isinstance(error, ImportError)
        raise UserError(f"--storage {shown} cannot be opened: {reason}{missing}") from None


def close(study: optuna.Study) -> None:
    """Close the study's connections to its database."""
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def address(study: optuna.Study) -> str:
    """Return the URL of the study's database, without a password."""
    return study._storage._backend.engine.url.render_as_string(hide_password=True)  # type: ignore[attr-defined]


def storage_error(error: BaseException | None) -> str:
    """Return the database's error text on one line, if a database error caused this error; else ""."""
    reason = _innermost(error)
    return f"{reason}; free some space" if reason == "database or disk is full" else reason


def _innermost(error: BaseException | None) -> str:
    reason = ""
    while error:  # Optuna wraps it
        if isinstance(error, SQLAlchemyError):
            reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        error = error.__cause__ or error.__context__
    return reason
