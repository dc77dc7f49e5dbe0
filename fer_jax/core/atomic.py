"""Files that are written completely or not at all, whatever ends the process."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_jax.core.errors import DISK_FAILURES, DiskError, file_error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path next to `path` to write to. It replaces `path` at the end, and is deleted after an error.

    A link stays, and the file that it names is replaced. A device or a pipe, such as /dev/stdout, is written to itself.

    Raises:
        DiskError: the disk is full; the error names `path`.
        OSError: the file cannot be written; the error names `path`.
    """
    special = path.exists() and not path.is_file() and not path.is_dir()
    target = path.resolve() if path.is_symlink() and not special else path
    # two machines may share a process number
    partial = path if special else target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        if not special:
            os.replace(partial, target)
    except OSError as error:
        if error.errno in DISK_FAILURES:
            raise DiskError(file_error(error, path)) from None
        if str(error.filename) == str(partial):
            error.filename = str(path)
        raise
    finally:
        if not special:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Name `folder` in the error of a full disk in the block: the system gives no name.

    Raises:
        DiskError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FAILURES:
            raise DiskError(file_error(error, folder)) from None
        raise
