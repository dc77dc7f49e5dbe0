"""Predict the expressions in photographs and films: a probability for each of the eight emotions.

The faces are found first. An image of 48x48 pixels is a cut-out face already, as in FER2013. With
--faces cropped every image is one, and its middle square counts. A folder stands for the images and
films in it. Files that cannot be read are named and skipped, and the exit status is 1. The
predictions of several --run are averaged.

The command prints the two likeliest emotions of each face, and of each face of a film on average.
--csv and --json have all eight, with boxes and times. --annotate writes copies with boxes.
--timeline draws the emotions of a film over time. --sheet shows the faces as the network sees them.

The emotions are the names that people would give the expression, not what the person feels. The
network's model card says how often it is wrong and what it must not be used for.
"""

from collections.abc import Sequence
from pathlib import Path

from fer_jax.core import cli
from fer_jax.faces import inputs, options

EXAMPLES = [
    "photo.jpg",
    "photos/ --recursive --csv faces.csv --annotate annotated",
    "clip.mp4 --timeline timeline.png --smooth 0.5",
    "faces/ --faces cropped --sheet faces.png",
    "--run base --run best --faces cropped face.png",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and predict."""
    parser = cli.parser("predict", __doc__, EXAMPLES)
    parser.add_argument("paths", type=Path, nargs="+", metavar="FILE", help="images and films, or folders of them")
    options.add_network(parser)
    parser.add_argument(
        "--faces",
        choices=("found", "cropped"),
        default="found",
        help="find the faces in each image (default), or take each image for one cut-out face",
    )
    parser.add_argument("--recursive", action="store_true", help="read the sub-folders of folders too")
    parser.add_argument(
        "--csv", type=cli.output_file(".csv"), metavar="FILE", help="write a row for each face to a .csv file"
    )
    parser.add_argument(
        "--json", type=cli.output_file(".json"), metavar="FILE", help="write the faces of each image and frame"
    )
    parser.add_argument("--annotate", type=cli.output_folder, metavar="DIR", help="write images and films with boxes")
    parser.add_argument(
        "--sheet", type=cli.output_file(".png"), metavar="FILE", help="draw the first 48 faces to a .png file"
    )
    films = parser.add_argument_group("films")
    films.add_argument(
        "--timeline", type=cli.output_file(".png"), metavar="FILE", help="draw a film's emotions to a .png file"
    )
    films.add_argument(
        "--every",
        type=options.seconds,
        default=0.2,
        metavar="S",
        help="seconds between frames; 0 for all (default: 0.2)",
    )
    films.add_argument(
        "--smooth",
        type=options.seconds,
        default=0.0,
        metavar="S",
        help="average each face over some seconds (default: 0)",
    )
    args = parser.parse_args(argv)
    files = {"--csv": args.csv, "--json": args.json, "--sheet": args.sheet, "--timeline": args.timeline}
    cli.check_outputs(parser, files, [file.path for file in inputs.find(args.paths, args.recursive).files])
    networks = options.load_reader(args)

    from fer_jax.faces import prediction_files

    title = f"{' and '.join(args.run or ['best'])}{', flip' * args.flip}"
    settings = prediction_files.Settings(
        args.faces == "cropped", args.recursive, args.every, args.smooth, args.prior, title
    )
    outputs = prediction_files.Outputs(args.csv, args.json, args.annotate, args.timeline, args.sheet)
    return prediction_files.predict_files(args.paths, networks, settings, outputs)


if __name__ == "__main__":
    cli.run(main)
