"""Reading the CSVs: every spelling that pandas reads too, and one clear line for every fault."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_csvs import KEPT, ROWS, check_output, fails_with, lines_of, write

from fer_generator.generate_training_data import generate
from fer_generator.read_csv import UserError, decode_pixels


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
    csvs = compressed(write(tmp_path, *lines_of(ROWS)), suffix)
    generate(csvs[0], csvs[1], tmp_path / "data")
    check_output(tmp_path / "data", KEPT)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("which", [0, 1])
def test_cut_compressed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, which: int) -> None:
    csvs = compressed(write(tmp_path, *lines_of(ROWS)), suffix)
    csvs[which].write_bytes(csvs[which].read_bytes()[:-15])
    assert re.search(rf"{csvs[which]}: .*cut off.*get the file", fails_with(capsys, csvs, tmp_path / "data"))


@pytest.mark.parametrize("spelling", ["crlf", "bom", "quotes", "spaces", "zeros", "blank lines", "no last newline"])
def test_other_spellings_of_the_same_csv(tmp_path: Path, spelling: str) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
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
    check_output(tmp_path / "data", KEPT)


def put(line: int, old: str, new: str, count: int = 1) -> Callable[[list[str]], None]:
    """A fault: `old` on this line of the file (the header is 1) becomes `new`."""

    def edit(lines: list[str]) -> None:
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new, count)

    return edit


def cut(line: int, keep: int) -> Callable[[list[str]], None]:
    """A fault: the file ends in the middle of this line."""

    def edit(lines: list[str]) -> None:
        lines[line - 1 :] = [lines[line - 1][:keep]]

    return edit


def drop(line: int) -> Callable[[list[str]], None]:
    def edit(lines: list[str]) -> None:
        del lines[line - 1]

    return edit


def empty(lines: list[str]) -> None:
    lines[:] = [""]


def keep_header(lines: list[str]) -> None:
    del lines[1:]


FER_FAULTS = {
    "column missing": (put(1, "emotion,", ""), "row 1 .*emotion,pixels,Usage must"),
    "columns reordered": (put(1, "emotion,pixels,Usage", "emotion,Usage,pixels"), "row 1 .*'emotion,Usage,pix"),
    "other file": (put(1, "emotion", "x" * 1000), "row 1 "),
    "empty": (empty, "row 1 holds nothing"),
    "value above 255": (put(4, "0,", "0,256 "), "row 4 .*'256'"),
    "value of many digits": (put(4, "0,", "0," + "1" * 5000 + " "), "row 4 .*'1111"),
    "negative value": (put(5, " ", " -"), "row 5 .*'-"),
    "value with a point": (put(5, " ", ".0 "), r"row 5 .*'\d+\.0'"),
    "word": (put(9, "255 255 255", "255 nan 255"), "row 9 .*'nan'"),
    "not UTF-8": (put(9, "255 255 255", "255 \udcff 255"), "row 9 .*'\N{REPLACEMENT CHARACTER}'"),
    "pixel too many": (put(9, "255 255", "255 255 255"), "row 9 .*2,305 pixel values"),
    "pixel too few": (put(3, " ", ""), "row 3 "),
    "no pixels": (put(9, " ".join(["255"] * 2304), ""), "row 9 .*0 pixel values"),
    "nameless row wrong": (put(3, "0,", "0,x "), "row 3 .*'x'"),
    "unknown Usage": (put(7, "PrivateTest", "Private"), "row 7 .*unknown Usage 'Private'"),
    "other Usage": (put(7, "PrivateTest", "Training"), "row 7 .*is Training but row 7 of .*new.csv is PrivateTest"),
    "column too many": (put(8, "Training", "Training,1"), "row 8 .*4 columns where the header has 3"),
    "cut off in the pixels": (cut(9, 3000), "row 9 .*2 columns.*cut off"),
    "cut off in the Usage": (cut(9, -4), "row 9 .*unknown Usage 'Public'"),
    "a row short": (drop(9), "has 7 rows .*has 8.*cut off"),
    "a row more": (lambda lines: lines.append(lines[-1]), "has 9 rows .*has 8.*cut off"),
    "header alone": (keep_header, "has 0 rows .*has 8"),
}
FERPLUS_FAULTS = {
    "column missing": (put(1, ",NF", ""), "row 1 .*unknown,NF must"),
    "columns reordered": (put(1, "neutral,happiness", "happiness,neutral"), "row 1 "),
    "empty": (empty, "row 1 holds nothing"),
    "negative votes": (put(2, "4", "-4"), "row 2 .*'-4' votes for neutral"),
    "votes with a point": (put(4, ",9", ",9.0"), "row 4 .*'9.0' votes for happiness"),
    "huge votes": (put(4, ",9", "," + "9" * 5000), "row 4 .*votes for happiness"),
    "no votes": (put(4, ",9", ","), "row 4 .*'' votes for happiness"),
    "superscript votes": (put(4, ",9", ",\N{SUPERSCRIPT TWO}"), "row 4 .*votes for happiness"),
    "nameless row wrong": (put(3, "10", "ten"), "row 3 .*'ten' votes for NF"),
    "unknown Usage": (put(8, "Training", "training"), "row 8 .*unknown Usage 'training'"),
    "name that leads elsewhere": (put(9, "fer0000006", "../fer0000006"), "row 9 .*Image name"),
    "name of another form": (put(9, "png", "jpg"), "row 9 .*Image name"),
    "column too few": (put(9, ",5,5", ",5"), "row 9 .*11 columns where the header has 12"),
    "cut off": (cut(9, 20), "row 9 .*2 columns .*cut off"),
    "a row short": (drop(9), "has 8 rows .*has 7"),
    "a row more": (lambda lines: lines.append(lines[-1].replace("6.png", "9.png")), "has 8 rows .*has 9"),
    "header alone": (keep_header, "no row names a picture"),
    "quote that is open": (put(5, "PublicTest", '"PublicTest'), "row 5 "),
}


@pytest.mark.parametrize(
    ("which", "fault", "message"),
    [pytest.param(0, *case, id=f"fer2013: {name}") for name, case in FER_FAULTS.items()]
    + [pytest.param(1, *case, id=f"fer2013new: {name}") for name, case in FERPLUS_FAULTS.items()],
)
def test_wrong_input_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    which: int,
    fault: Callable[[list[str]], None],
    message: str,
) -> None:
    both = lines_of(ROWS)
    fault(both[which])
    csvs = write(tmp_path, *both)
    error = fails_with(capsys, csvs, tmp_path / "new" / "data")
    assert re.search(message, error)
    assert str(csvs[which]) in error
    assert "http" in error  # where to get it
    assert len(error) < 900
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], which: int) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    csvs[which].unlink()
    assert f"{csvs[which]}: No such file" in fails_with(capsys, csvs, tmp_path / "data")


def test_folder_instead_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    assert f"{tmp_path}: Is a directory" in fails_with(capsys, (tmp_path, csvs[1]), tmp_path / "data")


@pytest.mark.parametrize("which", [0, 1])
def test_git_lfs_pointer(tmp_path: Path, capsys: pytest.CaptureFixture[str], which: int) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 301072766\n"
    csvs[which].write_text(pointer)
    error = fails_with(capsys, csvs, tmp_path / "data")
    assert f"{csvs[which]}: a Git LFS pointer" in error
    assert "git lfs pull" in error


def test_zip_of_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csvs = write(tmp_path, *lines_of(ROWS))
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for path in csvs:
            archive.write(path, path.name)
    error = fails_with(capsys, (tmp_path / "both.zip", csvs[1]), tmp_path / "data")
    assert "both.zip: holds 2 files" in error


def test_damaged_pixels_are_refused_or_read_as_python_does() -> None:
    """One random character of a random text is changed, put in or taken out, 200 times."""
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(200):
        text = bytearray(b" ".join(b"%d" % value for value in rng.integers(0, 256, 2304)))
        place, character = rng.integers(len(text)), rng.choice(list(b"0123456789  -.,x\t\x00"))
        text[place : place + rng.integers(2)] = bytes([character]) * rng.integers(2)
        values = bytes(text).split()
        right = len(values) == 2304 and all(re.fullmatch(rb"\d{1,3}", v) and int(v) < 256 for v in values)
        clean = b" ".join([b"17"] * 2304)  # a fault must not reach into the picture beside it
        try:
            decoded = decode_pixels(Path("a.csv"), [7, 8, 9], [clean, bytes(text), clean])
            message = ""
        except UserError as error:
            message = str(error)
        assert bool(message) != right
        if right:
            np.testing.assert_array_equal(decoded[1].ravel(), [int(value) for value in values])
            assert (decoded[[0, 2]] == 17).all()
        else:
            assert message.startswith("a.csv: row 8 ")
        outcomes.add(right)
    assert outcomes == {True, False}
