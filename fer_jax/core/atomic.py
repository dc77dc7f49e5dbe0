"""Files that are written completely or not at all, whatever ends the process."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fer_jax.core.errors import DISK_FAILURES


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path next to `path` to write to. It replaces `path` at the end, and is deleted after an error.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # two machines may share a process number
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        # A write to a full disk gives no name.
        if str(error.filename) == str(partial) or (error.filename is None and error.errno in DISK_FAILURES):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
