"""Serve a page that finds faces and names their expressions in the browser, on this computer.

The page reads photographs and the webcam. The browser computes everything: no image leaves the
page, and no connection to the internet is needed. --write copies the page to a folder for any
static host.

The emotions are the names that people would give the expression, not what the person feels. The
network's model card says how often it is wrong and what it must not be used for.
"""

import argparse
from collections.abc import Sequence

from fer_jax.core import cli
from fer_jax.web import server

EXAMPLES = ["--open", "--port 8080", "--write site"]


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: name a number from 0 to 65535")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and serve the page, or write it."""
    parser = cli.parser("demo", __doc__, EXAMPLES)
    parser.add_argument("--port", type=_port, default=8000, help="the port (default: 8000); 0 takes any free one")
    parser.add_argument("--open", action="store_true", help="open the page in the default browser")
    parser.add_argument(
        "--write", type=cli.output_folder, metavar="DIR", help="write the page to a new folder, and serve nothing"
    )
    args = parser.parse_args(argv)
    if args.write:
        server.write(args.write)
    else:
        server.serve(args.port, args.open)
    return 0


if __name__ == "__main__":
    cli.run(main)
