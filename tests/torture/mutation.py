"""Seeded damage to the bytes of files: bits, cuts, blocks, lines, cells and values that a parser may stumble over."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile

CELLS = [
    *(
        "",
        " ",
        "-1",
        "1e3",
        "0x10",
        "1_0",
        "nan",
        "inf",
        "256",
        "99999999999999999999",
        "\N{FULLWIDTH DIGIT FIVE}",
        "3.0",
    ),
    *('"', '""', "'", "=1+1", "None", "\0", "\udce9", "a\u0301", "../fer0000000.png", "/etc/passwd", "(0, 0, 48, 48)"),
    *("(0, 0, 1, 1)", "(48, 48, 0, 0)", "((((", "Training", "PrivateTest", "fer0000000.png", "x" * 5000, "9" * 5000),
]


def damaged(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Return changed bytes, and the name of the change."""
    change = rng.choice([_bits, _cut, _block, _insertion, _zeros, _overwritten])
    return change(rng, bytearray(content)), change.__name__.strip("_")


def edited(rng: random.Random, content: bytes, separator: bytes = b",") -> tuple[bytes, str]:
    """Return a table with other lines or cells, as people and spreadsheets leave it, and the name of the change."""
    change = rng.choice(
        [_line_gone, _line_twice, _lines_swapped, _cell, _cell, _column_gone, _columns_swapped, _endings]
    )
    lines = content.splitlines(keepends=True)
    return b"".join(change(rng, lines, separator)), change.__name__.strip("_")


def packed(rng: random.Random, content: bytes, name: str) -> tuple[bytes, str]:
    """Return a compressed file or an archive with the content, and the ending of its name."""
    buffer = io.BytesIO()
    ending = rng.choice([".gz", ".bz2", ".xz", ".zip", ".tar", ".tar.gz"])
    if ending in (".gz", ".bz2", ".xz"):
        return {".gz": gzip, ".bz2": bz2, ".xz": lzma}[ending].compress(content), ending  # type: ignore[attr-defined]
    if ending == ".zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        return buffer.getvalue(), ending
    with tarfile.open(fileobj=buffer, mode="w:gz" if ending == ".tar.gz" else "w") as tar:
        member = tarfile.TarInfo(f"fer2013/{name}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue(), ending


def _place(rng: random.Random, content: bytearray) -> int:
    """A position, often near the beginning, where headers are."""
    size = max(1, len(content))
    return rng.randrange(min(size, 200)) if rng.random() < 0.4 else rng.randrange(size)


def _bits(rng: random.Random, content: bytearray) -> bytes:
    for _ in range(rng.choice([1, 1, 3, 30])):
        if content:
            content[_place(rng, content)] ^= 1 << rng.randrange(8)
    return bytes(content)


def _cut(rng: random.Random, content: bytearray) -> bytes:
    return bytes(content[: _place(rng, content)])


def _block(rng: random.Random, content: bytearray) -> bytes:
    start = _place(rng, content)
    del content[start : start + rng.choice([1, 16, 500])]
    return bytes(content)


def _insertion(rng: random.Random, content: bytearray) -> bytes:
    start = _place(rng, content)
    content[start:start] = rng.choice([b"\0", b"\xff\xfe", b'"', b"\n", b"\r", b",", rng.randbytes(20)])
    return bytes(content)


def _zeros(rng: random.Random, content: bytearray) -> bytes:
    start = _place(rng, content)
    end = min(len(content), start + rng.choice([1, 16, 500]))
    content[start:end] = bytes(end - start)
    return bytes(content)


def _overwritten(rng: random.Random, content: bytearray) -> bytes:
    start = _place(rng, content)
    end = min(len(content), start + rng.choice([2, 4, 8]))
    content[start:end] = rng.choice([b"\xff", b"\x7f", b"9", b"{"]) * (end - start)
    return bytes(content)


def _line_gone(rng: random.Random, lines: list[bytes], _: bytes) -> list[bytes]:
    del lines[rng.randrange(len(lines))]
    return lines


def _line_twice(rng: random.Random, lines: list[bytes], _: bytes) -> list[bytes]:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return lines


def _lines_swapped(rng: random.Random, lines: list[bytes], _: bytes) -> list[bytes]:
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return lines


def _cells(line: bytes, separator: bytes) -> tuple[list[bytes], bytes]:
    body = line.rstrip(b"\r\n")
    return body.split(separator), line[len(body) :]


def _cell(rng: random.Random, lines: list[bytes], separator: bytes) -> list[bytes]:
    row = rng.randrange(len(lines))
    cells, end = _cells(lines[row], separator)
    cells[rng.randrange(len(cells))] = rng.choice(CELLS).encode("utf-8", "surrogateescape")
    lines[row] = separator.join(cells) + end
    return lines


def _column_gone(rng: random.Random, lines: list[bytes], separator: bytes) -> list[bytes]:
    place = rng.randrange(len(_cells(lines[0], separator)[0]))
    changed = []
    for line in lines:
        cells, end = _cells(line, separator)
        changed.append(separator.join(cells[:place] + cells[place + 1 :]) + end)
    return changed


def _columns_swapped(rng: random.Random, lines: list[bytes], separator: bytes) -> list[bytes]:
    width = len(_cells(lines[0], separator)[0])
    i, j = rng.randrange(width), rng.randrange(width)
    changed = []
    for line in lines:
        cells, end = _cells(line, separator)
        if max(i, j) < len(cells):
            cells[i], cells[j] = cells[j], cells[i]
        changed.append(separator.join(cells) + end)
    return changed


def _endings(rng: random.Random, lines: list[bytes], _: bytes) -> list[bytes]:
    end = rng.choice([b"\r\n", b"\r", b"\n\n", b"\r\r\n"])
    start = rng.choice([b"", b"\xef\xbb\xbf"])
    return [start, *(line.rstrip(b"\r\n") + end for line in lines)]
