"""All split folders of a data folder, or none of them.

The split folders are built in a hidden staging folder and then moved to their place, the training folder last. So
all of them are complete where a training folder exists. Each carries `generated.json`, the record of the run that
made it. A run that is killed leaves at most the staging folder, or some moved folders without the training folder.
The next run repairs both.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fer_generator.console import UserError, signals_deferred
from fer_generator.read_csv import SPLIT_FOLDERS

if sys.platform != "win32":
    import fcntl

RECORD = "generated.json"
STAGING = ".generate_training_data.unfinished"
FOLDERS = tuple(SPLIT_FOLDERS.values())  # the training folder first


@contextmanager
def staging_folder(out_dir: Path) -> Iterator[Path]:
    """Lock `out_dir` against other runs and yield the path of its staging folder, free of leftovers.

    Afterwards the staging folder is gone. So is `out_dir`, if it was made here and is still empty.

    Raises:
        UserError: another run is writing to `out_dir`.
        OSError: `out_dir` cannot be written.
    """
    new_folders = [folder for folder in (out_dir, *out_dir.parents) if not folder.exists()]
    staging = out_dir / STAGING
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with _lock(out_dir):
            if staging.exists():
                shutil.rmtree(staging)
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    finally:
        for folder in new_folders:
            with suppress(OSError):  # not empty
                folder.rmdir()


def read_record(out_dir: Path) -> dict[str, Any] | None:
    """Return the record of the folders in `out_dir`; None unless all are complete and from one run."""
    paths = {name: out_dir / name / RECORD for name in FOLDERS if (out_dir / name / RECORD).is_file()}
    texts = {path.read_text() for path in paths.values()}
    if len(texts) != 1:
        return None
    try:
        record = json.loads(texts.pop())
        complete = record["pictures"].keys() == paths.keys() and all(
            (out_dir / name / "label.csv").is_file()
            and sum(entry.endswith(".png") for entry in os.listdir(out_dir / name)) == image_count
            for name, image_count in record["pictures"].items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):  # an edited record
        return None
    return record if complete else None


def refuse_foreign(out_dir: Path) -> None:
    """Raise UserError if `out_dir` has a split folder that is not empty and carries no record."""
    for name in FOLDERS:
        folder = out_dir / name
        if folder.exists() and not (folder / RECORD).exists() and not (folder.is_dir() and not os.listdir(folder)):
            raise UserError(f"{folder} was not made by this command and is left unchanged: {_foreign(folder)}")


def _foreign(folder: Path) -> str:
    """Return the content of a split folder of another origin, and the remedy."""
    if not (folder / "label.csv").is_file():
        return f"it has no {RECORD}; move it away or choose another folder with -d"
    with os.scandir(folder) as entries:
        if any(entry.name.endswith(".png") for entry in entries):
            return "it has images and a label.csv; train from it as it is, or choose another folder with -d"
    return "it has a label.csv without images, as in a clone of FERPlus; choose another folder with -d"


def publish(staging: Path, out_dir: Path, record: dict[str, Any]) -> None:
    """Write the record into the folders in record["pictures"] (name -> number of PNGs) and move them to `out_dir`.

    Folders of an earlier run are removed first, so a training folder is never next to folders of another run.
    """
    for name in record["pictures"]:
        (staging / name / RECORD).write_text(json.dumps(record))
    replaced = staging / "replaced"
    replaced.mkdir()
    with signals_deferred():
        for name in FOLDERS:
            if (out_dir / name / RECORD).exists():
                os.rename(out_dir / name, replaced / name)
        for name in reversed(FOLDERS):
            if name in record["pictures"]:
                os.rename(staging / name, out_dir / name)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another run is writing to this folder; wait until it ends or choose another folder with -d"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
