"""The program `fer-jax`: `fer-jax train ...` is `python -m fer_jax.main ...`."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from fer_jax import __version__
from fer_jax.core import cli
from fer_jax.core.errors import one_line


class Command(NamedTuple):
    """A command of `fer-jax`."""

    module: str
    effect: str


COMMANDS = {
    "predict": Command("fer_jax.predict", "predict the expressions in photographs and films"),
    "webcam": Command("fer_jax.webcam", "show the expressions before a camera"),
    "demo": Command("fer_jax.demo", "serve a page that reads faces in the browser"),
    "train": Command("fer_jax.main", "train a network, or resume a run"),
    "evaluate": Command("fer_jax.evaluate", "evaluate runs: metrics with intervals, plots, a report"),
    "sweep": Command("fer_jax.sweep", "train several configs with several seeds, one table"),
    "tune": Command("fer_jax.tune", "search for better values of config fields"),
    "release": Command("fer_jax.release", "write a small folder of a run to ship, with a model card"),
    "export": Command("fer_jax.export", "write a network as an ONNX file"),
    "repeats": Command("fer_jax.repeats", "count and draw duplicates between the splits"),
    "import": Command("fer_jax.import_data", "make a data folder of your own images, one folder per emotion"),
    "suspects": Command("fer_jax.suspects", "list the images whose labels may be wrong"),
    "generate": Command("fer_generator.generate_training_data", "write the data folder from the two CSV files"),
    "sample": Command("fer_generator.synthetic", "draw sample faces, a substitute for the real data"),
}


def usage(program: str) -> str:
    """Return the list of all commands, as text."""
    lines = [f"  {name:<10}{command.effect}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"fer_jax {__version__}: train, evaluate and use networks that read emotion from faces",
            "",
            f"usage: {program} COMMAND ...       ({program} COMMAND --help explains one)",
            "",
            *lines,
            "",
            "examples:",
            f"  {program} predict face.png",
            f"  {program} train --config base",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names. Without one, list the commands and return 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    program = "python -m fer_jax" if Path(sys.argv[0]).name == "__main__.py" else "fer-jax"
    if arguments and arguments[0] in ("generate", "sample"):  # these have a frame of their own
        name, *rest = arguments
        return import_module(COMMANDS[name].module).main(rest, prog=f"{program} {name}")
    return cli.status(lambda: _run(program, arguments))


def _run(program: str, arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(program))
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"fer_jax {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: no command {one_line(repr(name), 60)}: choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    cli.called_as(program)
    return import_module(COMMANDS[name].module).main(rest)


if __name__ == "__main__":
    sys.exit(main())
