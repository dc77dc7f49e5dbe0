"""The kinds of odd input: a good one, its damage, the reader, and a reference that says what is right."""

import ast
import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from fer_generator import generate_training_data
from fer_generator.read_csv import SPLIT_FOLDERS
from fer_jax.core import config as config_lib
from fer_jax.core import run_folder
from fer_jax.core.devices import Devices
from fer_jax.data import folders
from fer_jax.inference import weights
from fer_jax.models import registry
from fer_jax.training import checkpoint, restoring
from fer_jax.training.checkpoint import Progress
from fer_jax.training.checks import check
from fer_jax.training.history import SCALARS, EpochRecord
from fer_jax.training.network import build_network
from tests import tiny_csvs
from tests.small_runs import tiny_config
from tests.torture import mutation


class WrongError(Exception):
    """A value that is silently wrong, or another fault."""


class Kind(NamedTuple):
    """A kind of input."""

    prepare: Callable[[Path], None]  # writes the good input to a folder
    change: Callable[[random.Random, Path], Any]  # damages it; returns the change
    read: Callable[[Path, Any], int | None]  # reads it as a command does; raises WrongError for a wrong value
    after_refusal: Callable[[Path, Any, str], str] = lambda folder, change, message: ""  # a problem


def _require(right: bool, problem: str) -> None:
    if not right:
        raise WrongError(problem)


# CSVs of the generator


def _prepare_csvs(folder: Path) -> None:
    tiny_csvs.write_csvs(folder, *tiny_csvs.csv_lines(tiny_csvs.ROWS))


def _change_csvs(rng: random.Random, folder: Path) -> tuple[str, str, str]:
    name = rng.choice(["fer2013.csv", "fer2013new.csv"])
    content = (folder / name).read_bytes()
    changes = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        content, change = rng.choice([mutation.edited, mutation.edited, mutation.damaged])(rng, content)
        changes.append(change)
    (folder / name).unlink()
    if rng.random() < 0.3:
        content, ending = mutation.packed(rng, content, name)
        changes.append(ending)
        if rng.random() < 0.4:
            content, change = mutation.damaged(rng, content)
            changes.append(change)
        new = name + ending if rng.random() < 0.5 else name
    else:
        new = name
    (folder / new).write_bytes(content)
    fer, ferplus = (new if name == each else each for each in ("fer2013.csv", "fer2013new.csv"))
    return fer, ferplus, " ".join(changes)


def _generate(folder: Path, change: tuple[str, str, str]) -> int:
    paths = folder / change[0], folder / change[1]
    status = generate_training_data.main(tiny_csvs.generator_arguments(paths, folder / "data"))
    if status == 0:
        _check_generated(folder / "data", *map(_table, paths))
    return status


def _table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV or archive by column, read with the csv module."""
    content = _unpacked(path.read_bytes())
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding, "surrogateescape")
    if "\n" in text:
        text = text.replace("\r", " ")  # within a line it is white space, as for the generator
    for separator in ",;\t":
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(row)]
        if len(rows[0]) > 1:
            break
    names = [name.strip().strip("\ufeff") for name in rows[0]]
    return [dict(zip(names, row, strict=True)) for row in rows[1:]]


def _unpacked(content: bytes) -> bytes:
    if content[:2] == b"\x1f\x8b":
        return _unpacked(gzip.decompress(content))
    if content[:3] == b"BZh":
        return _unpacked(bz2.decompress(content))
    if content[:6] == b"\xfd7zXZ\0":
        return _unpacked(lzma.decompress(content))
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(archive.namelist()[0])
    if content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            file = tar.extractfile(tar.getmembers()[0])
            assert file is not None
            return file.read()
    return content


def _check_generated(data: Path, pixels: list[dict[str, str]], votes: list[dict[str, str]]) -> None:
    expected: dict[str, dict[str, tuple[list[int], list[int]]]] = {}
    seen = set()
    for image, label in zip(pixels, votes, strict=True):
        name = label["Image name"].strip()
        _require(image["Usage"].strip() == label["Usage"].strip(), "another Usage is accepted")
        if name and name not in seen:
            seen.add(name)
            counts = [int(label[column]) for column in tiny_csvs.FERPLUS_HEADER[2:]]
            folder = SPLIT_FOLDERS[label["Usage"].strip()]
            expected.setdefault(folder, {})[name] = [int(value) for value in image["pixels"].split()], counts
    _require(sorted(expected) == sorted(path.name for path in data.iterdir()), "other split folders")
    for folder, images in expected.items():
        with open(data / folder / "label.csv", newline="") as file:
            rows = {row[0]: [*map(int, row[2:])] for row in csv.reader(file)}
        _require(rows == {name: counts for name, (_, counts) in images.items()}, f"{folder}: other votes")
        for name, (values, _) in images.items():
            with Image.open(data / folder / name) as image:
                _require(np.asarray(image).ravel().tolist() == values, f"{name}: other pixels")


def _no_data(folder: Path, change: Any, message: str) -> str:
    return "something is left in the data folder" if (folder / "data").exists() else ""


# label.csv and images of a data folder

RAMP = np.add.outer(np.arange(0, 96, 2), np.arange(0, 144, 3)).astype(np.uint8)


def _prepare_folder(folder: Path) -> None:
    split = folder / "FER2013Valid"
    split.mkdir()
    rows = []
    for number in range(6):
        Image.fromarray(RAMP + np.uint8(number)).save(split / f"fer{number:07}.png")
        rows.append(f'fer{number:07}.png,"(0, 0, 48, 48)",{10 - number},{number},0,0,0,0,0,0,0,0\n')
    (split / "label.csv").write_text("".join(rows))


def _change_labels(rng: random.Random, folder: Path) -> str:
    path = folder / "FER2013Valid/label.csv"
    content, change = rng.choice([mutation.edited, mutation.edited, mutation.damaged])(rng, path.read_bytes())
    path.write_bytes(content)
    return change


def _read_labels(folder: Path, change: str) -> None:
    path = folder / "FER2013Valid/label.csv"
    split = folders.load(folder, "valid")
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    _require(split.names.tolist() == [row[0].rstrip("\0") for row in rows], "other names")
    _require(split.votes.tolist() == [[int(cell) for cell in row[2:]] for row in rows], "other votes")
    for row, image in zip(rows, split.images, strict=True):
        box = [int(number) for number in re.findall(r"-?\w+", row[1])]
        with Image.open(path.with_name(row[0].rstrip("\0"))) as whole:
            face = whole.crop((box[0], box[1], box[2], box[3]))
        if face.size != (48, 48):
            face = face.resize((48, 48), Image.Resampling.BILINEAR)
        _require(np.array_equal(np.asarray(face), image), f"{row[0]}: other pixels")


FORMATS = {"PNG": "L", "TIFF": "L", "JPEG": "RGB", "GIF": "P", "BMP": "RGB", "WEBP": "RGB", "PPM": "L", "TGA": "RGB"}


def _change_image(rng: random.Random, folder: Path) -> str:
    path = folder / "FER2013Valid/fer0000002.png"
    form = rng.choice(["PNG", *FORMATS])
    with Image.open(path) as image:
        image.convert(FORMATS[form]).save(path.with_suffix(".good"), form)
    content, change = mutation.damaged(rng, path.with_suffix(".good").read_bytes())
    path.with_suffix(".good").unlink()
    path.write_bytes(content)
    return f"{form} {change}"


def _read_image(folder: Path, change: str) -> None:
    image = folders.load(folder, "valid").images[2]
    _require(image.shape == (48, 48) and image.dtype == np.uint8, "another shape")
    if change.startswith("PNG"):  # the other formats have no check sums
        _require(np.array_equal(image, RAMP + np.uint8(2)), "other pixels")


# Configs: config.json of a run, overrides, Python files

JSON = ["null", "true", "-1", "0", "1e400", "NaN", "1e30", "9" * 400, '"text"', '""', "[]", "[1, 2]", "{}", '{"a": 1}']
JSON += ['"' + "x" * 5000 + '"', "[" * 500 + "]" * 500, "1.5", '["a", null]']
TEXTS = [
    "",
    "text",
    "-1",
    "0",
    "1e3",
    "1e30",
    "nan",
    "inf",
    "1.5",
    "1_0",
    "True",
    "None",
    "[]",
    "(1, 2)",
    "(1, 'a')",
    "(((",
]
TEXTS += [
    "x" * 5000,
    "9" * 5000,
    "\udce9",
    "two\nlines",
    "'quoted'",
    "(1,)" * 50,
    "__import__('os')",
    "()",
    "0x10",
    " 3 ",
]
PYTHON = ["1e30", "1e400", "float('nan')", "10**5000", "'text'", "None", "[1, 2]", "{'a': 1}", "object()", "lambda: 0"]
PYTHON += [
    "True",
    "-1",
    "0",
    "b'x'",
    "(1,) * 100_000",
    "'x' * 10_000",
    "1.5",
    "{1, 2}",
    "3 + 0j",
    "__import__('pathlib').Path('a')",
]
PYTHON += [
    "__import__('numpy').float32(3)",
    "__import__('numpy').arange(3)",
    "eval('[' * 80 + ']' * 80)",
    "'\\ud800'",
    "'a\\nb'",
]
LINES = [
    "del config.train",
    "config.train = 3",
    "config.new = 1",
    "config.optim['a.b'] = 1",
    "config[3] = 1",
    "config.seed = {}",
]
LINES += [
    "raise SystemExit(3)",
    "raise KeyError('x' * 900)",
    "1 +",
    "\0",
    "import sys; sys.exit('x')",
    "return 3",
    "return None",
]
LINES += [
    "config.lock(); config.zzz = 1",
    "a = 3\n    for _ in range(100_000): a = [a]\n    config.seed = a",
    "config.unknown()",
]
LINES += [
    "config.optim.learning_rte = 1",
    "config.data.dir = None; config.data = config",
    "import no_such_module",
    "raise RecursionError",
]


class ConfigChange(NamedTuple):
    """A changed config."""

    form: str  # "json", "override" or "python"
    field: str  # dotted name, "" for other changes
    value: str


def _fields() -> dict[str, Any]:
    return config_lib.flatten(tiny_config().to_dict())


def _prepare_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config_lib.as_json(tiny_config())))


def _change_config(rng: random.Random, folder: Path) -> ConfigChange:
    form, field = rng.choice(["json", "override", "python", "python"]), rng.choice([*_fields()])
    path = folder / "config.json"
    if form == "override":
        return ConfigChange(form, field, rng.choice(TEXTS))
    if form == "python":
        line = rng.random() < 0.3
        value = rng.choice(LINES if line else PYTHON)
        body = value if line else f"config.{field} = {value}"
        start = "import fer_jax\ndef get_config():\n    config = fer_jax.load_config('sample')\n"
        (folder / "odd.py").write_text(f"{start}    {body}\n    return config\n")
        return ConfigChange(form, "" if line else field, value)
    if rng.random() < 0.4:
        content, change = mutation.damaged(rng, path.read_bytes())
        path.write_bytes(content)
        return ConfigChange(form, "", change)
    tree = json.loads(path.read_text())
    section, _, last = field.rpartition(".")
    (tree[section] if section else tree)[last] = "VALUE"
    value = rng.choice(JSON)
    path.write_text(json.dumps(tree).replace('"VALUE"', value))
    return ConfigChange(form, field, value)


def _read_config(folder: Path, change: ConfigChange) -> None:
    form, field, value = change
    if form == "json":
        config = run_folder.read_config(folder)
    elif form == "override":
        config = config_lib.load("sample", [f"--config.{field}={value}"])
    else:
        config = config_lib.load(str(folder / "odd.py"))
    check(config)
    if not field and form == "json":  # a changed bit may give another value, which is all that there is
        return
    _require(bool(field), f"{value} is accepted")
    expected, found = _expected(change), config_lib.flatten(config.to_dict())[field]
    if isinstance(found, tuple):
        expected = tuple(expected)
    _require(found == expected or str(found) == str(expected), f"{field}={found!r} instead of {expected!r}"[:200])


def _expected(change: ConfigChange) -> Any:
    """The value that the change should give its field."""
    if change.form == "python":
        return eval(change.value)
    if change.form == "json":
        return json.loads(change.value)
    default = _fields()[change.field]
    if isinstance(default, str):
        return change.value
    try:
        value = ast.literal_eval(change.value.strip())
    except (ValueError, SyntaxError):
        value = change.value  # one name in a tuple
    return (value,) if isinstance(default, tuple) and isinstance(value, str) else value


def _names_field(folder: Path, change: ConfigChange, message: str) -> str:
    named = change.field.rpartition(".")[2] in message
    in_line = change.form == "python" and "odd.py, line " in message  # Python itself refuses the value
    return "" if named or in_line else "the field is not named"


# Checkpoints and released networks


def _tree(value: float) -> dict[str, Any]:
    return {
        "w": np.full((2, 3), value, np.float32),
        "large": np.full((200, 50), value, np.float32),
        "step": np.int32(value),
    }


def _record(epoch: int) -> EpochRecord:
    scalars = dict.fromkeys(SCALARS, 0.5)
    return EpochRecord(epoch, epoch, scalars, scalars, learning_rate=0.1)


def _prepare_checkpoint(folder: Path) -> None:
    with closing(checkpoint.open_manager(folder)) as manager:
        for step, accuracy in ((1, 0.9), (2, 0.5)):
            progress = Progress([_record(number + 1) for number in range(step)], 4)
            checkpoint.save(manager, step, jax.tree.map(jax.numpy.asarray, _tree(step)), progress, accuracy)


def _change_checkpoint(rng: random.Random, folder: Path) -> str:
    paths = [path for path in sorted((folder / "checkpoints").rglob("*")) if path.is_file()]
    path = rng.choice(paths)
    if rng.random() < 0.2:
        path.unlink()
        return f"{path.relative_to(folder)} deleted"
    content, change = mutation.damaged(rng, path.read_bytes())
    path.write_bytes(content)
    return f"{path.relative_to(folder)} {change}"


def _read_checkpoint(folder: Path, change: str) -> None:
    lines: list[str] = []
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), _tree(0))
    manager, saved = restoring.resume(folder, like, Devices().replicated, lines.append)
    manager.close()
    for line in lines:
        _require(len(line) <= 300 and "\n" not in line, f"a long line: {line}")
    if saved is None:
        _require(len(lines) == 2, "both checkpoints are gone without a line")
        return
    _require(saved.step == 2 or bool(lines), "the latest is gone without a line")
    equal = jax.tree.map(np.array_equal, saved.tree, _tree(saved.step))
    _require(all(jax.tree.leaves(equal)), f"other arrays: {equal}")
    _require(len(saved.progress.history) == saved.step, "another history")


@cache
def _variables() -> Any:
    variables = registry.init(build_network(tiny_config()).model, 0, 48)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.25), variables)


def _prepare_weights(folder: Path) -> None:
    weights.save(folder, weights.Weights(_variables(), "best", 8, 0, [_record(1), _record(2)]))


def _change_weights(rng: random.Random, folder: Path) -> str:
    path = folder / run_folder.WEIGHTS
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    if rng.random() < 0.5:
        changed, change = mutation.damaged(rng, content[:header])
        path.write_bytes(changed + content[header:])
        return f"header {change}"
    changed, change = mutation.damaged(rng, content)
    path.write_bytes(changed)
    return change


def _read_weights(folder: Path, change: str) -> None:
    like = jax.eval_shape(partial(registry.init, build_network(tiny_config()).model, 0, 48))
    stored = weights.load(folder, like)
    equal = jax.tree.map(np.array_equal, stored.variables, _variables())
    _require(all(jax.tree.leaves(equal)), "other weights")
    _require((stored.step, stored.seed, stored.checkpoint) == (8, 0, "best"), "another step, seed or checkpoint")
    _require(stored.history == [_record(1), _record(2)], "another history")


KINDS = {
    "csv": Kind(_prepare_csvs, _change_csvs, _generate, _no_data),
    "label.csv": Kind(_prepare_folder, _change_labels, _read_labels),
    "image": Kind(_prepare_folder, _change_image, _read_image),
    "config": Kind(_prepare_config, _change_config, _read_config, _names_field),
    "checkpoint": Kind(_prepare_checkpoint, _change_checkpoint, _read_checkpoint),
    "weights": Kind(_prepare_weights, _change_weights, _read_weights),
}
