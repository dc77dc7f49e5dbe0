"""The notebook docs/tutorial.ipynb: it runs, and its stored outputs are those of its code."""

import io
import re
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?%?")
# Lines and values that depend on the time that a step takes, and the mark of the best epoch.
TIMED = re.compile(r"^epoch \d+/\d+: (?:compiling|\d+/\d+ images.*)\n|; \d+ images/s(?: \*)?", re.MULTILINE)


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> tuple[list[str], str, list[tuple[int, int]]]:
    """The kinds of a cell's outputs, their text, and the sizes of their images."""
    kinds, text, sizes = [], "", []
    for output in cell.outputs:
        if output.output_type == "stream":
            kinds += [output.name] * (output.name not in kinds)
            text += output.text
            continue
        kinds.append(output.output_type)
        data = output.get("data", {})
        images = [data[kind] for kind in ("image/jpeg", "image/png") if kind in data]
        sizes += [Image.open(io.BytesIO(b64decode(image))).size for image in images[:1]]
        text += "" if images else data.get("text/plain", "")
    return kinds, TIMED.sub("", text), sizes


def compare(text: str, stored: str) -> None:
    """Assert that both texts are equal, up to the chance of another processor: 3 of a count, 20 points, 0.4."""
    assert NUMBER.sub("0", text).split() == NUMBER.sub("0", stored).split()
    for number, expected in zip(NUMBER.findall(text), NUMBER.findall(stored), strict=True):
        tolerance = 20 if number.endswith("%") else 0.4 if "." in number else 3
        values = [float(value.rstrip("%").replace(",", "")) for value in (number, expected)]
        assert values[0] == pytest.approx(values[1], abs=tolerance), f"{number}, not {expected}, in {text}"


def update(notebook: Any) -> None:
    """Store the executed notebook: of two copies of an image the smaller one, and no times."""
    for cell in code(notebook):
        cell.metadata.clear()
        for output in cell.outputs:
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("image/png", None)
    nbformat.write(notebook, NOTEBOOK)


@pytest.mark.slow
def test_the_notebook_runs_and_its_stored_outputs_are_those_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))  # not the settings of whoever runs the tests
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copy(ROOT / "docs" / "photo.jpg", tmp_path)
    notebook = read()
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "tutorial" / "run" / "report" / "report.html").is_file()
    if request.config.getoption("--update-golden"):
        update(notebook)
    for cell, stored in zip(code(notebook), code(read()), strict=True):
        kinds, text, sizes = shown(cell)
        stored_kinds, stored_text, stored_sizes = shown(stored)
        assert (kinds, len(sizes)) == (stored_kinds, len(stored_sizes)), cell.source
        assert sizes == [pytest.approx(size, rel=0.1) for size in stored_sizes]
        compare(text, stored_text)


def test_the_stored_notebook_is_complete_and_small() -> None:
    nbformat.validate(read())
    cells = code(read())
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert {kind for cell in cells for kind in shown(cell)[0]} == {"stdout", "execute_result"}  # no error, no warning
    text = NOTEBOOK.read_text()
    assert len(text) < 200_000
    links = re.findall(
        r"\]\((?!http)([^)\s]+)\)", "\n".join(c.source for c in read().cells if c.cell_type == "markdown")
    )
    assert links
    assert all((NOTEBOOK.parent / link).exists() for link in links if not link.startswith("tutorial/"))  # its own files
    assert not re.search(r"/(?:home|root|tmp|Users|work)/", text)


def test_outputs_of_other_code_would_be_noticed() -> None:
    compare("run: 80.1% of 240 images\nloss 0.71", "run: 76% of 241 images\nloss 0.8")
    for other in ("run: 80% of 400 images", "run: 50% of 240 images", "walk: 80% of 240 images", "run: 80% of images"):
        with pytest.raises(AssertionError):
            compare("run: 80% of 240 images", other)
