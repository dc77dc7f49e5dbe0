"""The frame of all commands: their parser, their errors as one line, their exit status."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fer_jax.core.errors import UserError, one_line

# Packages that the base install lacks, with the extra that brings each.
EXTRAS = {
    "filelock": "train",
    "optax": "train",
    "orbax": "train",
    "pandas": "train",
    "tensorboardX": "train",
    "threadpoolctl": "train",
    "matplotlib": "report",
    "sklearn": "report",
    "optuna": "tune",
    "psycopg": "tune",
    "sqlalchemy": "tune",
    "onnx": "export",
}

# Set by `fer-jax`, which dispatches to the same commands as `python -m fer_jax.<module>`.
_prefix = "python -m fer_jax."
_NAMES = {"main": "train"}  # of `fer-jax`, where they differ from the module's


def called_as_program() -> None:
    """Name commands `fer-jax <name>` in what follows, instead of `python -m fer_jax.<module>`."""
    global _prefix
    _prefix = "fer-jax "


def command(module: str) -> str:
    """The start of a command line that runs a command module, in the form that the user has typed."""
    return _prefix + (_NAMES.get(module, module) if _prefix == "fer-jax " else module)


def parser(module: str, description: str | None, examples: Sequence[str], **options: Any) -> argparse.ArgumentParser:
    """The parser of a command.

    Args:
        module: the command's module, for example "evaluate".
        description: its docstring.
        examples: arguments of the command, or a command line of tensorboard.
        options: of argparse.ArgumentParser, for example `allow_abbrev=False`.
    """
    lines = [
        line if line.startswith(("tensorboard", "python", "fer-jax")) else f"{command(module)} {line}"
        for line in examples
    ]
    return argparse.ArgumentParser(
        prog=command(module),
        description=description,
        epilog="\n".join(["examples:", *(f"  {line}" for line in lines)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def add_overrides(parser: argparse.ArgumentParser, effect: str) -> None:
    """List `--config.field=value` in the help of a command that reads a config; argparse itself only passes it on."""
    parser.add_argument_group("overrides", f"--config.field=value {effect}")


def output_file(text: str) -> Path:
    """The type of an argument that names a file to write, or to replace."""
    path = Path(text)
    if not path.name or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: the parent folder does not exist")
    return path


def output_png(text: str) -> Path:
    """The type of an argument that names a PNG image to write, or to replace."""
    path = output_file(text)
    if path.suffix != ".png":
        raise argparse.ArgumentTypeError(f"{text!r}: name a .png file")
    return path


def status(main: Callable[[], int | None]) -> int:
    """The exit status of `main`, with one line on stderr for what a user can put right.

    Returns 1 after a UserError, an OSError (a full disk, a folder that cannot be written) or a missing extra, and 130
    after Ctrl-C.
    """
    try:
        return main() or 0
    except UserError as error:
        line = str(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        line = f"this needs {package}, which is not installed: pip install 'fer_jax[{EXTRAS[package]}]'"
    except OSError as error:
        line = f"{error.filename}: {error.strerror}" if error.filename else one_line(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"error: {line}", file=sys.stderr)
    return 1


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its `status`."""
    sys.exit(status(main))
