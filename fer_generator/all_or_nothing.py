"""Puts split folders into a data folder, all of them or none, and knows those that it put there.

They are made in a hidden folder beside their place and then moved, the training folder last: where it is, all
are. Each carries `generated.json`, which marks it as made here. A run killed at any time leaves at most the
hidden folder, or moved folders without the training folder; the next run mends both.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fer_generator.read_csv import SPLIT_FOLDERS, UserError

if sys.platform != "win32":
    import fcntl

MARK = "generated.json"
UNFINISHED = ".generate_training_data.unfinished"
FOLDERS = tuple(SPLIT_FOLDERS.values())  # the training folder first


@contextmanager
def reserved(out_dir: Path) -> Iterator[Path]:
    """Yields the path for unfinished folders in `out_dir`, locked against other runs and free of leftovers.

    Afterwards that path is gone, and so is `out_dir` if it was made here and nothing was moved into it.

    Raises:
        UserError: another run is writing to `out_dir`.
        OSError: it cannot be written.
    """
    made = [folder for folder in (out_dir, *out_dir.parents) if not folder.exists()]
    work = out_dir / UNFINISHED
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with _locked(out_dir):
            if work.exists():
                shutil.rmtree(work)
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
    finally:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def finished_record(out_dir: Path) -> dict[str, Any] | None:
    """What `move_in` was told of the folders in `out_dir`; None unless they are all there and of one run."""
    marks = {name: out_dir / name / MARK for name in FOLDERS if (out_dir / name / MARK).is_file()}
    texts = {mark.read_text() for mark in marks.values()}
    if len(texts) != 1:
        return None
    try:
        record = json.loads(texts.pop())
        whole = record["pictures"].keys() == marks.keys() and all(
            (out_dir / name / "label.csv").is_file()
            and sum(entry.endswith(".png") for entry in os.listdir(out_dir / name)) == pictures
            for name, pictures in record["pictures"].items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):  # an edited mark
        return None
    return record if whole else None


def refuse_foreign(out_dir: Path) -> None:
    """Raises UserError if a folder with the name of a split is there, holds something and has no mark."""
    for name in FOLDERS:
        folder = out_dir / name
        if folder.exists() and not (folder / MARK).exists() and not (folder.is_dir() and not os.listdir(folder)):
            raise UserError(
                f"{folder} was not made by this command (it has no {MARK}) and stays as it is: move it away "
                f"or choose another folder with -d"
            )


def move_in(work: Path, out_dir: Path, record: dict[str, Any]) -> None:
    """Marks the folders named in record["pictures"] (name -> number of PNGs) and moves them to `out_dir`.

    Folders of an earlier run go first, so a training folder never stands beside folders of another run.
    """
    for name in record["pictures"]:
        (work / name / MARK).write_text(json.dumps(record))
    replaced = work / "replaced"
    replaced.mkdir()
    for name in FOLDERS:
        if (out_dir / name / MARK).exists():
            os.rename(out_dir / name, replaced / name)
    for name in reversed(FOLDERS):
        if name in record["pictures"]:
            os.rename(work / name, out_dir / name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another run is writing here; wait until it ends") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
