"""What all commands share: errors as one line."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right; its text is one line: what, where, what to do."""


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
