"""Files that are there whole or not at all, whatever ends the process that writes them."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to: at the end it takes the place of `path`, after an error it is gone.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # process numbers repeat from machine to machine
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename and str(error.filename) == str(partial):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
