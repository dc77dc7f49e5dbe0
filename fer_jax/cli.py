"""What all commands share: errors as one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


class UserError(Exception):
    """Something the user can put right; its text is one line: what, where, what to do."""


def new_file(text: str) -> Path:
    """The type of an argument that names a file to write, or to replace."""
    path = Path(text)
    if not path.name or path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: name a file in a folder that is there")
    return path


def new_png(text: str) -> Path:
    """The same for a picture."""
    path = new_file(text)
    if path.suffix != ".png":
        raise argparse.ArgumentTypeError(f"{text!r}: name a .png file")
    return path


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its status: 1 and one line on stderr after a UserError or an
    OSError (a disk that is full, a folder that cannot be written), 130 after Ctrl-C.
    """
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else " ".join(str(error).split())
        print(f"error: {what}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
