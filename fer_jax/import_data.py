"""Make a data folder of images of your own: one folder per emotion, or a CSV of file and emotion.

Folders and emotions go by their usual names: happy, angry, sad, surprised, afraid, disgusted,
contempt, calm. Each image shows one face, cut out as in FER2013; --faces find takes photographs of
one person and cuts the face out. The images are split into training, validation and, with --test,
test. A person, a photograph and its near-duplicates are always in one split. The folder has the
form of FER+; each image has ten votes for its emotion. sources.csv in each split names your files,
left_out.csv in FER2013Train those that were left out. Nothing is written before all is read.
The exit status is 1 if a file cannot be read; the others are imported.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fer_jax.core import cli

EXAMPLES = [
    "faces/ --out data",
    "photographs.csv --faces find --person name --test 0.2 --out data",
]


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0 and below 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, import, and print the images by class and split, and those left out."""
    parser = cli.parser("import_data", __doc__, EXAMPLES)
    parser.add_argument(
        "source", type=Path, metavar="FOLDER|CSV", help="a folder with one folder per emotion, or a CSV"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data folder to write")
    parser.add_argument(
        "--faces",
        choices=("cropped", "find"),
        default="cropped",
        help="the images are faces cut out already, or photographs in which to find them (default: cropped)",
    )
    parser.add_argument(
        "--person",
        metavar="COLUMN|folder",
        help="the CSV's column with the person (default: person, if it exists); 'folder' if each emotion has a "
        "folder for each person",
    )
    parser.add_argument("--valid", type=_fraction, default=0.2, metavar="PART", help="for validation (default: 0.2)")
    parser.add_argument("--test", type=_fraction, default=0.0, metavar="PART", help="for test (default: 0, no test)")
    parser.add_argument("--seed", type=int, default=0, help="of the random split (default: 0)")
    args = parser.parse_args(argv)
    if not 0 < args.valid < 1 - args.test:
        parser.error("--valid must be above 0, and --valid and --test together below 1")
    if args.seed < 0:
        parser.error("--seed must be at least 0")

    from fer_jax.curation import import_report, own_data

    result = own_data.import_data(
        args.source,
        args.out,
        find_faces=args.faces == "find",
        person=args.person,
        valid=args.valid,
        test=args.test,
        seed=args.seed,
    )
    import_report.show(result, args.out)
    return 1 if result.unreadable else 0


if __name__ == "__main__":
    cli.run(main)
