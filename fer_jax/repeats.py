"""Count and draw the images that are in several splits of FER2013: duplicates and near-duplicates.

A duplicate has the same pixels. A near-duplicate is another copy of the same photograph: the
correlation of the two images is at least 0.92 in the best of 18 alignments (mirrored or not,
shifted by up to one pixel each way). Brightness and contrast do not change the correlation. Other
crops, sizes and angles of a photograph are often below 0.92 and are not counted: the counts are
too low rather than too high.
"""

from collections.abc import Sequence

from fer_jax.core import cli

SHEET = 120  # pairs on the sheet at most
EXAMPLES = ["--data data --sheet experiments/near_duplicates.png"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, print the table and draw the sheet."""
    parser = cli.parser("repeats", __doc__, EXAMPLES)
    parser.add_argument("--data", default="data", metavar="DIR", help="the data folder (default: data)")
    parser.add_argument(
        "--sheet",
        type=cli.output_file(".png"),
        metavar="FILE",
        help=f"draw up to {SHEET} near-duplicates, the lowest correlations first",
    )
    args = parser.parse_args(argv)

    from fer_jax.reporting import duplicates_report

    duplicates_report.write(args.data, args.sheet, SHEET)
    return 0


if __name__ == "__main__":
    cli.run(main)
