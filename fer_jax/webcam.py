"""Show the expressions of the people before a camera: boxes, and bars of the eight emotions.

The window is closed by q, Esc or its button. --csv writes a row for each face and frame at once,
with the time in seconds; --no-window writes them without a window, until Ctrl-C. --source takes a
film for the camera. Probabilities are averaged over half a second, unless --smooth says otherwise.

The emotions are the names that people would give the expression, not what the person feels. The
network's model card says how often it is wrong and what it must not be used for.
"""

from collections.abc import Sequence
from pathlib import Path

from fer_jax.core import cli
from fer_jax.faces import options

EXAMPLES = ["--run base", "--csv faces.csv --no-window", "--source clip.mp4 --run base"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and show the faces."""
    parser = cli.parser("webcam", __doc__, EXAMPLES)
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument("--camera", type=int, default=0, metavar="N", help="the number of the camera (default: 0)")
    sources.add_argument("--source", type=Path, metavar="FILE", help="a film instead of a camera")
    options.add_network(parser)
    parser.add_argument(
        "--csv", type=cli.output_file(".csv"), metavar="FILE", help="write a row for each face and frame"
    )
    parser.add_argument("--no-window", action="store_true", help="only write the table")
    parser.add_argument(
        "--every", type=options.seconds, default=0.0, metavar="S", help="seconds between frames (default: 0, all)"
    )
    parser.add_argument(
        "--smooth", type=options.seconds, default=0.5, metavar="S", help="average over some seconds (default: 0.5)"
    )
    args = parser.parse_args(argv)
    if args.no_window and not args.csv:
        parser.error("--no-window needs --csv FILE: else nothing would be seen")
    if args.camera < 0:
        parser.error("--camera must be 0 or more")
    cli.check_outputs(parser, {"--csv": args.csv}, [args.source] if args.source else [])
    networks = options.load_reader(args)

    from fer_jax.faces import live

    source = args.camera if args.source is None else args.source
    live.watch(networks, source, args.csv, not args.no_window, args.every, args.smooth, args.prior)
    return 0


if __name__ == "__main__":
    cli.run(main)
