"""What trained networks say of pictures of faces: a probability for each of the eight emotions.

A picture should show one face, cut out as in FER2013: from the forehead to the chin, and not much beside it. None is
searched for. Colours are made grey, what is transparent too, what is not square is cut to its middle, and the rest is
scaled to 48x48 pixels. Of folders every picture is taken: write the sheet elsewhere. Several --run are averaged. Prints
the two likeliest emotions of each picture; --csv keeps all eight, --sheet shows the pictures as the network sees them.

The emotions are what people would call the expression, not what the person feels; see the network's README.md for how
often it is wrong and what it must not be used for.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fer_jax import cli
from fer_jax.cli import UserError
from fer_jax.data import SIDE
from fer_jax.labels import EMOTIONS

EXAMPLE = """examples:
  python -m fer_jax.predict --run pretrained/base face.jpg
  python -m fer_jax.predict --run pretrained/base faces/ --csv said.csv --sheet said.png
  python -m fer_jax.predict --run experiments/base --run pretrained/best --flip face.jpg
"""
SHEET = 48  # pictures on it at most
KINDS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # in folders
GREY = (128, 128, 128, 255)  # what shows through


def find(given: Sequence[Path]) -> list[Path]:
    """The files that are meant: of folders all pictures in them, by name.

    Raises:
        UserError: there is no such file, or no picture in a folder.
    """
    found = []
    for path in given:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix.lower() in KINDS and _is_shown(each))
            if not inside:
                raise UserError(f"no picture in {path}: name a file, or a folder with pictures in it")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no picture {path}: name a file, or a folder with pictures in it")
    return found


def _is_shown(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")  # macOS leaves ._face.png beside face.png


def _text(path: Path) -> str:
    """A path for people and CSV files, whatever bytes are in it."""
    return str(path).encode(errors="surrogateescape").decode(errors="replace").replace("\n", " ")


def read(path: Path) -> np.ndarray:
    """A picture file as the networks expect faces: grey, its middle square, u8[48, 48].

    Raises:
        UserError: it cannot be read as a picture of 8 bits a channel.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode[0] in "IF":  # Pillow would cut the brighter half off
                raise UserError(f"{path} has more than 8 bits a pixel (mode {picture.mode}); convert it")
            upright = ImageOps.exif_transpose(picture)
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, GREY), upright.convert("RGBA"))
            upright = upright.convert("L")
    except UserError:
        raise
    except Exception as error:  # a damaged file may be anything to Pillow
        raise UserError(f"{_text(path)} cannot be read as a picture: {' '.join(str(error).split())}") from None
    if upright.size == (SIDE, SIDE):
        return np.asarray(upright)
    return np.asarray(ImageOps.fit(upright, (SIDE, SIDE), Image.Resampling.LANCZOS))


def as_csv(files: Sequence[Path], probabilities: np.ndarray) -> list[list[str]]:
    """A header, and a row for each picture: its file and f[N, 8] to four digits."""
    rows = [[_text(file), *(f"{value:.4f}" for value in row)] for file, row in zip(files, probabilities, strict=True)]
    return [["file", *EMOTIONS], *rows]


def main() -> int:
    """Parse the command line, read the pictures, predict, tell."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.predict",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="picture files, or folders of them")
    parser.add_argument(
        "--run", type=Path, required=True, action="append", metavar="DIR", help="a run folder; repeat it to average"
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--flip", action="store_true", help="average in what is said of the mirrored picture")
    parser.add_argument("--csv", type=cli.new_file, metavar="FILE", help="write all probabilities")
    parser.add_argument("--sheet", type=cli.new_png, metavar="FILE", help=f"draw the first {SHEET} pictures, as a .png")
    args = parser.parse_args()
    files = find(args.pictures)
    images = np.stack([read(file) for file in files])

    from fer_jax import atomic, calibration, devices, document, inference

    devices.tune_cpu()
    devices.cache_compilations()
    networks = [inference.restore(run, args.checkpoint) for run in args.run]
    said = [inference.log_probabilities(network, images, args.flip) for network in networks]
    probabilities = np.exp(calibration.average(said))

    rows = []
    for file, row in zip(files, probabilities, strict=True):
        first, second = np.argsort(-row)[:2]
        rows.append([_text(file), EMOTIONS[first], f"{row[first]:.1%}", EMOTIONS[second], f"{row[second]:.1%}"])
    print(document.to_text(document.Table(["picture", "likeliest", "", "then", ""], rows)))
    if args.csv is not None:
        with atomic.replacing(args.csv) as partial, open(partial, "w", newline="", encoding="utf-8") as out_file:
            csv.writer(out_file).writerows(as_csv(files, probabilities))
        print(f"probabilities: {args.csv}")
    if args.sheet is not None:
        from fer_jax import figures, galleries

        shown, title = slice(SHEET), f"{' and '.join(map(str, args.run))}{', flip' * args.flip}"
        names = [_text(Path(file.name)) for file in files[shown]]
        drawn = figures.png(galleries.predictions(images[shown], probabilities[shown], names, title))
        with atomic.replacing(args.sheet) as partial:
            partial.write_bytes(drawn)
        print(f"pictures: {args.sheet}, {min(SHEET, len(files))} of {len(files)}")
    return 0


if __name__ == "__main__":
    cli.run(main)
