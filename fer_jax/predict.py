"""Predict the expressions in images of faces: a probability for each of the eight emotions.

An image should show one face, cut out as in FER2013: from the forehead to below the chin, with
little around it. Faces are not detected. Colours and transparent areas become grey. An image that
is not square is cropped to its middle, then scaled to 48x48 pixels. A folder stands for all images
in it, so write the sheet to another folder. The predictions of several --run are averaged. The
command prints the two likeliest emotions of each image, for the first 40 images. --csv has all
eight for all images. --sheet shows the images as the network sees them.

The emotions are the names that people would give the expression, not what the person feels. The
network's model card says how often it is wrong and what it must not be used for.
"""

from collections.abc import Sequence
from pathlib import Path

from fer_jax.core import cli, run_folder

EXAMPLES = [
    "face.jpg",
    "faces/ --csv experiments/faces.csv --sheet experiments/faces.png",
    "--run experiments/base --run best --flip face.jpg",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and predict."""
    parser = cli.parser("predict", __doc__, EXAMPLES)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument(
        "--run",
        action="append",
        metavar="RUN",
        help="a run folder, or the name of a shipped network (default: best); repeat it to average several",
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument(
        "--flip", action="store_true", help="average the predictions for each image and its mirror image"
    )
    parser.add_argument("--csv", type=cli.output_file, metavar="FILE", help="write all probabilities to a .csv file")
    parser.add_argument("--sheet", type=cli.output_png, metavar="FILE", help="draw the first 48 images to a .png file")
    args = parser.parse_args(argv)
    runs = [run_folder.find(run) for run in args.run or ["best"]]
    for run in runs:
        run_folder.read_config(run)  # a missing run is reported before jax is imported

    from fer_jax.core import runtime
    from fer_jax.faces.prediction_files import predict_files

    runtime.start()
    predict_files(args.images, runs, args.checkpoint, args.flip, args.csv, args.sheet)
    return 0


if __name__ == "__main__":
    cli.run(main)
