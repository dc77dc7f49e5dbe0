"""The frame of all commands: parser, errors on one line, exit status."""

import argparse
import errno
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fer_jax.core import extras
from fer_jax.core.errors import DISK_FAILURES, UserError, file_error, shortened
from fer_jax.core.output import is_closed_pipe, outliving_reader
from fer_jax.core.termination import TerminatedError, termination

WIDTH = 100  # columns of --help at most

_program = ""  # "fer-jax" if the user started that, and not `python -m fer_jax.<module>`
_NAMES = {"main": "train", "import_data": "import"}  # of the commands of `fer-jax`, if they differ from the module's


def called_as(program: str) -> None:
    """Name the commands `<program> <name>` in help and hints, instead of `python -m fer_jax.<module>`."""
    global _program
    _program = program


def command(module: str) -> str:
    """Return the start of a command line that runs a command module, in the form that the user typed."""
    return f"{_program} {_NAMES.get(module, module)}" if _program else f"python -m fer_jax.{module}"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse's formatter with lines of at most `WIDTH` columns on a wider terminal too."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(WIDTH, shutil.get_terminal_size().columns - 2))


class _Parser(argparse.ArgumentParser):
    """argparse's parser with errors on one line, and no usage before them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {shortened(f'{message}; {self.prog} --help explains the arguments')}\n")


def parser(module: str, description: str | None, examples: Sequence[str], **options: Any) -> argparse.ArgumentParser:
    """Return the parser of a command.

    Args:
        module: the module of the command, for example "evaluate".
        description: the module's docstring.
        examples: arguments of the command, or a command line of tensorboard.
        options: options of argparse.ArgumentParser, for example `allow_abbrev=False`.
    """
    lines = [line if line.startswith("tensorboard") else f"{command(module)} {line}" for line in examples]
    return _Parser(
        prog=command(module),
        description=description,
        epilog="\n".join(["examples:", *(f"  {line}" for line in lines)]),
        formatter_class=_Formatter,
        **options,
    )


def add_overrides(parser: argparse.ArgumentParser, effect: str) -> None:
    """Describe `--config.field=value` in the help of a command; argparse leaves such arguments to the config."""
    parser.add_argument_group("overrides", f"--config.field=value {effect}")


def output_file(*endings: str) -> Callable[[str], Path]:
    """Return the type of an argument: the path of a file to write or replace.

    The endings keep an image that was named by mistake. A device or a pipe, such as /dev/stdout, has any name.

    Args:
        endings: the endings that the file's name may have, for example ".csv".
    """

    def path_of(text: str) -> Path:
        path = Path(text)
        if not path.name or path.is_dir():
            raise argparse.ArgumentTypeError(f"{text!r} is a folder: name a file")
        if is_device(path):
            return path
        if path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"{text!r}: name a {' or '.join(endings)} file")
        _check_writable(_parent(path), text)
        return path

    return path_of


def output_folder(text: str) -> Path:
    """Return the path of a folder to write to, which is made if needed; the type of an argument."""
    path = _folder(text)
    _check_writable(path if path.is_dir() else _parent(path), text)
    return path


def deep_output_folder(text: str) -> Path:
    """Return the path of a folder to write to; it and the folders above it are made if needed."""
    path = _folder(text)
    _check_writable(next((folder for folder in (path, *path.parents) if folder.is_dir()), Path()), text)
    return path


def is_device(path: Path) -> bool:
    """Return True for a device or a pipe; /dev/stdout is one too if the shell sends it to a file."""
    return path.is_relative_to("/dev") or (path.exists() and not path.is_file() and not path.is_dir())


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file: name a folder")
    return path


def _parent(path: Path) -> Path:
    """The folder that a path is in. Of a link the target counts."""
    return path.resolve().parent if path.is_symlink() else path.parent


def _check_writable(folder: Path, text: str) -> None:
    """Raise ArgumentTypeError, about the argument `text`, unless a file can be made in a folder."""
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: the parent folder does not exist")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in DISK_FAILURES and error.errno != errno.EROFS:
            return  # the command says what to do with a full disk
        raise argparse.ArgumentTypeError(f"{text!r}: no file can be written in this folder: name another") from None


def check_outputs(
    parser: argparse.ArgumentParser, outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()
) -> None:
    """Exit with an error if an output is an input, or two outputs are one file. Devices are left out.

    Args:
        parser: the command's parser.
        outputs: the files to write by option; None for those that are not written.
        inputs: the files that are read.
    """
    taken = {_identity(path): "an input" for path in inputs}
    for option, path in outputs.items():
        if path is None or is_device(path):
            continue
        identity = _identity(path)
        if identity in taken:
            parser.error(f"{option} {path} is {taken[identity]} too: name another file")
        taken[identity] = f"the file of {option}"


def _identity(path: Path) -> tuple[int, int] | Path:
    """The same for two paths of one file, through links too."""
    try:
        facts = path.stat()
    except OSError:
        return path.resolve()
    return facts.st_dev, facts.st_ino


def status(main: Callable[[], int | None]) -> int:
    """Return the exit status of a command, and print errors that the user can correct as one line on stderr.

    The status is 1 after a UserError, an OSError (a full disk, a folder that cannot be written), a missing extra, or
    output that could not be printed. It is 130 after Ctrl-C, 143 after SIGTERM, and 129 after SIGHUP of a closed
    terminal. A closed pipe, as in `| head -1`, is no error: the command does all its work.
    """
    with outliving_reader() as stdout:
        code = _status(main)
        stdout.flush()
        if code == 0 and stdout.failure and not is_closed_pipe(stdout.failure):
            print(f"error: all is done, but not all is printed: {stdout.failure.strerror}", file=sys.stderr)
            return 1
        return code


def _status(main: Callable[[], int | None]) -> int:
    try:
        with termination():
            return main() or 0
    except UserError as error:
        line = str(error)
    except ModuleNotFoundError as error:
        if not (line := extras.advice(error)):
            raise
    except OSError as error:
        line = file_error(error)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, TerminatedError) else signal.SIGINT
        word = "interrupted" if number == signal.SIGINT else "terminated"
        print(f"{word}: run the same command again", file=sys.stderr)
        return 128 + number
    print(f"error: {shortened(line)}", file=sys.stderr)
    return 1


def run(main: Callable[[], int | None]) -> None:
    """Exit with the `status` of a command."""
    sys.exit(status(main))
