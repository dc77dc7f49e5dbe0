"""List the commands, or run one: `fer-jax train ...` is `python -m fer_jax.main ...`."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from fer_jax import __version__
from fer_jax.core import cli


class Command(NamedTuple):
    """A command of `fer-jax`."""

    module: str
    effect: str


COMMANDS = {
    "predict": Command("fer_jax.predict", "predict the expressions in images of faces"),
    "train": Command("fer_jax.main", "train a network, or resume a run"),
    "evaluate": Command("fer_jax.evaluate", "evaluate runs: metrics with intervals, plots, a report"),
    "sweep": Command("fer_jax.sweep", "train several configs with several seeds, one table"),
    "tune": Command("fer_jax.tune", "search for better values of config fields"),
    "release": Command("fer_jax.release", "make a small folder of a run to ship, with a model card"),
    "export": Command("fer_jax.export", "write a network as an ONNX file"),
    "repeats": Command("fer_jax.repeats", "count and draw duplicates between the splits"),
    "generate": Command("fer_generator.generate_training_data", "make the data folder from the two CSV files"),
    "sample": Command("fer_generator.synthetic", "draw sample faces in place of the real data"),
}


def usage() -> str:
    """The list of all commands."""
    lines = [f"  {name:<10}{command.effect}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"fer_jax {__version__}: train, evaluate and use networks that read emotion from faces",
            "",
            "usage: fer-jax COMMAND ...       (fer-jax COMMAND --help explains one)",
            "",
            *lines,
            "",
            "examples:",
            "  fer-jax predict face.png",
            "  fer-jax train --config base",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; 2 where it names none."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"fer_jax {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: no command {name!r}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    cli.called_as_program()
    function: Callable[..., int] = import_module(COMMANDS[name].module).main
    if name in ("generate", "sample"):
        return cli.status(lambda: function(rest, prog=f"fer-jax {name}"))
    return cli.status(lambda: function(rest))


if __name__ == "__main__":
    sys.exit(main())
