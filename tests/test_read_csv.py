"""The CSV reader: every spelling that pandas accepts too, and one clear line for every fault."""

import bz2
import gzip
import io
import lzma
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_csvs import KEPT, ROWS, check_folders, csv_lines, error_line, generator_arguments, write_csvs

from fer_generator.console import UserError
from fer_generator.generate_training_data import generate, main
from fer_generator.read_csv import FER_HEADER, FERPLUS_HEADER, SOURCE, decode_pixels

NAMES = ("fer2013.csv", "fer2013new.csv")


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("file.csv", data)
    return buffer.getvalue()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zip": zipped,
}


def compressed(csvs: tuple[Path, Path], suffix: str) -> tuple[Path, Path]:
    for path in csvs:
        Path(f"{path}{suffix}").write_bytes(COMPRESS[suffix](path.read_bytes()))
    return Path(f"{csvs[0]}{suffix}"), Path(f"{csvs[1]}{suffix}")


@pytest.mark.parametrize("suffix", COMPRESS)
def test_reads_compressed_files(tmp_path: Path, suffix: str) -> None:
    csvs = compressed(write_csvs(tmp_path, *csv_lines(ROWS)), suffix)
    generate(csvs[0], csvs[1], tmp_path / "data")
    check_folders(tmp_path / "data", KEPT)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_truncated_compressed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    csvs = compressed(write_csvs(tmp_path, *csv_lines(ROWS)), suffix)
    csvs[0].write_bytes(csvs[0].read_bytes()[:-15])
    assert re.search(
        rf"{csvs[0].name}: .*cut off.*download the file again", error_line(capsys, csvs, tmp_path / "data")
    )


@pytest.mark.parametrize("spelling", ["crlf", "bom", "quotes", "spaces", "zeros", "blank lines", "no last newline"])
def test_other_spellings_of_the_same_csv(tmp_path: Path, spelling: str) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    for path in csvs:
        text = path.read_text()
        if spelling == "crlf":
            text = text.replace("\n", "\r\n")
        elif spelling == "bom":
            text = "\ufeff" + text
        elif spelling == "quotes":
            text = "\n".join(",".join(f'"{field}"' for field in row.split(",")) for row in text.split("\n")[:-1])
        elif spelling == "spaces":
            text = text.replace(",", " , ").replace(" 7 ", "  7 ")
        elif spelling == "zeros":
            text = text.replace(" 7 ", " 007 ").replace(" 42 ", " 042 ")
        elif spelling == "blank lines":
            text = text.replace("\n", "\n\n") + "\n  \n"
        elif spelling == "no last newline":
            text = text.rstrip("\n")
        assert text != path.read_text() or spelling == "zeros"
        path.write_bytes(text.encode())
    generate(csvs[0], csvs[1], tmp_path / "data")
    check_folders(tmp_path / "data", KEPT)


def damaged_bzip2(data: bytes) -> bytes:
    """Compressed data with a wrong byte in the middle, which the bz2 module reports as an OSError."""
    content = bytearray(bz2.compress(data))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def test_damaged_bzip2_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    path = tmp_path / "fer2013.csv.bz2"
    path.write_bytes(damaged_bzip2(csvs[0].read_bytes()))
    error = error_line(capsys, (path, csvs[1]), tmp_path / "data")
    assert re.search(rf"{path.name}: damaged or cut off after row \d+ \(.+\); download the file again", error)


def replace(line: int, old: str, new: str) -> Callable[[list[str]], None]:
    """A fault: the first `old` on this line of the file (the header is 1) becomes `new`."""

    def edit(lines: list[str]) -> None:
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new, 1)

    return edit


def cut(line: int, length: int) -> Callable[[list[str]], None]:
    """A fault: the file ends in the middle of this line."""

    def edit(lines: list[str]) -> None:
        lines[line - 1 :] = [lines[line - 1][:length]]

    return edit


def delete_last(lines: list[str]) -> None:
    del lines[-1]


def duplicate_last(lines: list[str]) -> None:
    lines.append(lines[-1])


def empty(lines: list[str]) -> None:
    lines[:] = [""]


def keep_header(lines: list[str]) -> None:
    del lines[1:]


FER_FAULTS = {
    "column missing": (
        replace(1, "pixels,", ""),
        "row 1: expected the columns emotion,pixels,Usage, .*'emotion,Usage'",
    ),
    "column twice": (replace(1, "emotion", "pixels"), "row 1: expected the columns .*'pixels,pixels,Usage'"),
    "no Usage": (replace(1, ",Usage", ""), "has no column Usage, like train.csv; take icml_face_data.csv or fer2013"),
    "other file": (replace(1, "pixels", "x" * 1000), "row 1: expected the columns"),
    "empty": (empty, "row 1: .*found nothing"),
    "value above 255": (replace(4, "0,", "0,256 "), "row 4 .*'256'"),
    "value of many digits": (replace(4, "0,", "0," + "1" * 5000 + " "), "row 4 .*'1111"),
    "value with a point": (replace(5, " ", ".0 "), r"row 5 .*'\d+\.0'"),
    "not UTF-8": (replace(9, "255 255 255", "255 \udcff 255"), "row 9 .*'\N{REPLACEMENT CHARACTER}'"),
    "pixel too many": (replace(9, "255 255", "255 255 255"), "row 9 .*expected 2,304 pixel values, found 2,305"),
    "pixel too few": (replace(9, "255 255", "255"), "row 9 .*expected 2,304 pixel values, found 2,303"),
    "no pixels": (replace(9, " ".join(["255"] * 2304), ""), "row 9 .*found 0"),
    "nameless row wrong": (replace(3, "0,", "0,x "), "row 3 .*'x'"),
    "unknown Usage": (
        replace(7, "PrivateTest", "Private"),
        "row 7 .*expected one of Training, PublicTest, PrivateTest as Usage, found 'Private'",
    ),
    "other Usage": (
        replace(7, "PrivateTest", "Training"),
        "row 7 .*is Training, but row 7 of .*new.csv is PrivateTest",
    ),
    "column too many": (replace(8, "Training", "Training,1"), "row 8 .*expected 3 columns, found 4"),
    "cut off in the pixels": (cut(9, 3000), "row 9 .*expected 3 columns, found 2; .*cut off"),
    "cut off in the Usage": (cut(9, -4), "row 9 .*found 'Public'"),
    "a row short": (delete_last, "have 7 and 8 rows: .*cut off"),
    "a row more": (duplicate_last, "have 9 and 8 rows: .*cut off"),
}
FERPLUS_FAULTS = {
    "column of another name": (replace(1, "neutral,happiness", "neutral,joy"), "row 1: expected the columns"),
    "line without a name": (replace(1, "Usage,", "Usage"), "row 1: expected the columns"),
    "negative votes": (replace(2, "4", "-4"), "row 2 .*vote count for neutral.*'-4'"),
    "huge votes": (replace(4, ",9", "," + "9" * 5000), "row 4 .*vote count for happiness"),
    "no votes": (replace(4, ",9", ","), "row 4 .*vote count for happiness.*''"),
    "superscript votes": (replace(4, ",9", ",\N{SUPERSCRIPT TWO}"), "row 4 .*vote count for happiness"),
    "nameless row wrong": (replace(3, "10", "ten"), "row 3 .*vote count for NF.*'ten'"),
    "unknown Usage": (replace(8, "Training", "training"), "row 8 .*Usage, found 'training'"),
    "name with another path": (replace(9, "fer0000006", "../fer0000006"), "row 9 .*Image name"),
    "name of another form": (replace(9, "png", "jpg"), "row 9 .*Image name such as fer0000000.png.*'fer0000006.jpg'"),
    "cut off": (cut(9, 20), "row 9 .*expected 12 columns, found 2; .*cut off"),
    "header alone": (keep_header, "no row has an image name"),
    "open quote": (replace(5, "PublicTest", '"PublicTest'), "row 5 "),
}


@pytest.mark.parametrize(
    ("which", "fault", "message"),
    [pytest.param(0, *case, id=f"fer2013: {name}") for name, case in FER_FAULTS.items()]
    + [pytest.param(1, *case, id=f"fer2013new: {name}") for name, case in FERPLUS_FAULTS.items()],
)
def test_wrong_input_gives_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    which: int,
    fault: Callable[[list[str]], None],
    message: str,
) -> None:
    lines = csv_lines(ROWS)
    fault(lines[which])
    csvs = write_csvs(tmp_path, *lines)
    error = error_line(capsys, csvs, tmp_path / "new" / "data")
    assert re.search(message, error)
    assert csvs[which].name in error
    assert SOURCE[(FER_HEADER, FERPLUS_HEADER)[which]] in error
    assert not (tmp_path / "new").exists()
    csvs = write_csvs(tmp_path / ("long" * 50), *lines)  # the remedy stays, and the start of the path goes
    assert main(generator_arguments(csvs, tmp_path / "new")) == 1
    error = capsys.readouterr().err
    assert len(error) <= 301
    assert SOURCE[(FER_HEADER, FERPLUS_HEADER)[which]] in error


@pytest.mark.parametrize("which", [0, 1])
def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], which: int) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    csvs[which].unlink()
    error = error_line(capsys, csvs, tmp_path / "data")
    assert f"{csvs[which].name}: No such file" in error
    assert f"download the file from {SOURCE[(FER_HEADER, FERPLUS_HEADER)[which]]}" in error


def test_folder_instead_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    assert "error: .: Is a directory" in error_line(capsys, (tmp_path, csvs[1]), tmp_path / "data")


def test_git_lfs_pointer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    csvs[0].write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 301072766\n")
    error = error_line(capsys, csvs, tmp_path / "data")
    assert "fer2013.csv: a Git LFS pointer" in error
    assert "run in its folder: git lfs install, then git lfs pull" in error


def test_zip_of_both_files(tmp_path: Path) -> None:
    write_csvs(tmp_path, *csv_lines(ROWS))
    both = zip_of(tmp_path / "both.zip", {name: (tmp_path / name).read_bytes() for name in NAMES})
    generate(both, both, tmp_path / "data")
    check_folders(tmp_path / "data", KEPT)


def test_zip_of_two_files_of_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    path = zip_of(tmp_path / "both.zip", {"a.csv": csvs[0].read_bytes(), "b.csv": b""})
    error = error_line(capsys, (path, csvs[1]), tmp_path / "data")
    assert (
        "both.zip: no fer2013.csv among the 2 files in it, such as 'a.csv'; fer2013.csv is in fer2013.tar.gz at http"
        in error
    )


def packed(folder: Path, kind: str) -> tuple[Path, Path]:
    """The two CSVs as people have them."""
    fer, ferplus = csvs = write_csvs(folder, *csv_lines(ROWS))
    macos = {"__MACOSX/._x.csv": b"\0", ".DS_Store": b"\0", "x/": b""}
    kaggle = {"test.csv": b"pixels", "train.csv": b"emotion,pixels", "example_submission.csv": b"\n"}
    if kind == "Kaggle's tar.gz":
        return tar_of(folder / "fer2013.tar.gz", {"fer2013/fer2013.csv": fer, "fer2013/README": ferplus}, "gz"), ferplus
    if kind == "tar.gz named .csv":
        return tar_of(folder / "images.csv", {"fer2013/fer2013.csv": fer, "fer2013/README": ferplus}, "gz"), ferplus
    if kind == "tar named .csv":
        return tar_of(folder / "images.csv", {"./fer2013.csv": fer}, ""), ferplus
    if kind == "Kaggle's zip":
        return zip_of(folder / "a.zip", kaggle | {"icml_face_data.csv": icml_lines().encode()}), ferplus
    if kind == "zip made by macOS":
        return tuple(zip_of(folder / f"{path.stem}.zip", macos | {"x/a.csv": path.read_bytes()}) for path in csvs)
    if kind == "tar.gz in a zip":
        inner = tar_of(folder / "fer2013.tar.gz", {"fer2013/fer2013.csv": fer}, "gz")
        return zip_of(folder / "a.zip", {"fer2013.tar.gz": inner.read_bytes()}), ferplus
    if kind == ".GZ":
        return tuple(written(folder / f"{path.name}.GZ", gzip.compress(path.read_bytes())) for path in csvs)
    if kind == "plain, but named .gz":
        return tuple(path.rename(f"{path}.gz") for path in csvs)
    assert kind == "UTF-16"
    return tuple(written(path, path.read_text().encode("utf-16")) for path in csvs)


def icml_lines() -> str:
    """The rows as Kaggle's icml_face_data.csv has them."""
    fields = [line.split(",") for line in csv_lines(ROWS)[0][1:]]
    return "emotion, Usage, pixels\n" + "".join(f"{fields[0]},{fields[2]},{fields[1]}\n" for fields in fields)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, files: dict[str, Path], compression: str) -> Path:
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, file in files.items():
            archive.add(file, name)
    return path


PACKED = (
    "Kaggle's tar.gz",
    "tar.gz named .csv",
    "tar named .csv",
    "Kaggle's zip",
    "zip made by macOS",
    "tar.gz in a zip",
    ".GZ",
    "plain, but named .gz",
    "UTF-16",
)


@pytest.mark.parametrize("kind", PACKED)
def test_reads_files_as_people_have_them(tmp_path: Path, kind: str) -> None:
    fer, ferplus = packed(tmp_path, kind)
    generate(fer, ferplus, tmp_path / "data")
    check_folders(tmp_path / "data", KEPT)


@pytest.mark.parametrize(
    "layout", ["icml_face_data.csv", "index", "no emotion", "votes reordered", "semicolons", "tabs"]
)
def test_reads_columns_by_their_names(tmp_path: Path, layout: str) -> None:
    fer, ferplus = csv_lines(ROWS)
    if layout == "icml_face_data.csv":
        fer = icml_lines().splitlines()
    elif layout == "index":  # as pandas writes it
        fer, ferplus = (
            [f"{number - 1 if number else ''},{line}" for number, line in enumerate(lines)] for lines in (fer, ferplus)
        )
    elif layout == "no emotion":
        fer = [line.split(",", 1)[1] for line in fer]
    elif layout == "votes reordered":
        columns = [0, 1, *range(11, 1, -1)]
        ferplus = [",".join(line.split(",")[column] for column in columns) for line in ferplus]
    else:
        separator = ";" if layout == "semicolons" else "\t"
        fer, ferplus = ([line.replace(",", separator) for line in lines] for lines in (fer, ferplus))
    csvs = write_csvs(tmp_path, fer, ferplus)
    generate(csvs[0], csvs[1], tmp_path / "data")
    check_folders(tmp_path / "data", KEPT)


LABEL_CSV = 'fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0\n'
OTHER_FILES = {
    "web page": (
        0,
        "\n<!DOCTYPE html><html>",
        "a web page instead of the data, perhaps a login; fer2013.csv is in fer2013.tar",
    ),
    "7-Zip": (0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    "no line ends": (0, "0" * 2_000_000, "row 1 has more than 1,000,000 bytes: this is no CSV"),
    "label.csv": (
        1,
        LABEL_CSV,
        "the label.csv of one split, and not the votes of all images; fer2013new.csv is at the top of",
    ),
    "no header": (0, f"0,{'7 ' * 2304},Training", "no header; put the line emotion,pixels,Usage above the first row"),
    "votes as images": (0, "\n".join(csv_lines(ROWS)[1]), "fer2013.csv: holds the votes: give it as -ferplus"),
    "images as votes": (1, "\n".join(csv_lines(ROWS)[0]), "fer2013new.csv: holds the images: give it as -fer"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    which, content, message = OTHER_FILES[name]
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    csvs[which].write_bytes(content.encode("latin-1"))
    assert message in error_line(capsys, csvs, tmp_path / "data")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/angry/1.jpg", "test/sad/2.jpg"],
            "no fer2013.csv among the 2 files in it, such as 'train/angry/1.jpg'",
        ),
        (["[Content_Types].xml", "xl/workbook.xml"], "an Excel workbook; save the table as CSV"),
        ([], "no fer2013.csv among the 0 files in it; "),
    ],
)
def test_archives_of_other_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], message: str
) -> None:
    csvs = write_csvs(tmp_path, *csv_lines(ROWS))
    path = zip_of(tmp_path / "archive.zip", dict.fromkeys(names, b"x"))
    assert message in error_line(capsys, (path, csvs[1]), tmp_path / "data")


def test_damaged_pixels_are_refused_or_read_as_by_python() -> None:
    """One random character of a random text is changed, inserted or deleted, 200 times."""
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(200):
        text = bytearray(b" ".join(b"%d" % value for value in rng.integers(0, 256, 2304)))
        place, character = rng.integers(len(text)), rng.choice(list(b"0123456789  -.,x\t\x00"))
        text[place : place + rng.integers(2)] = bytes([character]) * rng.integers(2)
        values = bytes(text).split()
        valid = len(values) == 2304 and all(re.fullmatch(rb"\d{1,3}", v) and int(v) < 256 for v in values)
        neighbour = b" ".join([b"17"] * 2304)  # a fault must not reach into the next image
        try:
            decoded = decode_pixels(Path("a.csv"), [7, 8, 9], [neighbour, bytes(text), neighbour])
            message = ""
        except UserError as error:
            message = str(error)
        assert bool(message) != valid
        if valid:
            np.testing.assert_array_equal(decoded[1].ravel(), [int(value) for value in values])
            assert (decoded[[0, 2]] == 17).all()
        else:
            assert message.startswith("a.csv: row 8 ")
        outcomes.add(valid)
    assert outcomes == {True, False}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one to twenty bytes or stretches changed, deleted, inserted or doubled."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 3, 20])):
        start, length = rng.integers(min(len(data), rng.choice([600, 100_000])) + 1), rng.integers(1, 100)
        stretch = rng.choice(
            [b"", rng.bytes(length), bytes(data[start : start + length]) * 2, b",", b"\n", b'"', b"\0", b"9"]
        )
        data[start : start + rng.choice([0, 1, length])] = stretch
    return bytes(data)


@pytest.mark.parametrize("kind", PACKED)
def test_mutated_files_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    files = packed(tmp_path, kind)
    rng = np.random.default_rng(PACKED.index(kind))
    for index in range(40):
        csvs = list(files)
        csvs[index % 2] = written(tmp_path / "mutated", mutated(files[index % 2].read_bytes(), rng))
        try:
            generate(*csvs, tmp_path / "data")
        except UserError:
            assert not (tmp_path / "data").exists()
        else:
            shutil.rmtree(tmp_path / "data")
