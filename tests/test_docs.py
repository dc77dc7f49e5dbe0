"""The pages: links lead somewhere, named files exist, commands parse, Python runs and prints what its page shows."""

import argparse
import io
import re
import runpy
import shlex
import shutil
import subprocess
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

from fer_jax.__main__ import COMMANDS
from fer_jax.core import config
from fer_jax.core.errors import UserError

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("pretrained/*/README.md"), ROOT / "experiments/README.md"]
)
LANGUAGES = {"sh", "bash", "powershell", "python", "cpp", "js", "text", "yaml", "bibtex"}
PROGRAMS = {"pip", "make", "tensorboard", "source", "python3", "py", "ruff", "mypy", "createdb", "git", "cd", "docker"}
HISTORY = {"CHANGELOG.md"}  # names files of older versions


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def fences(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[str]:
    """The command lines of the shell blocks, without comments."""
    lines = []
    for language, text in fences(page):
        if language in ("sh", "bash", "powershell"):
            joined = text.replace("\\\n", " ")
            lines += [line.split("   #")[0].strip() for line in joined.splitlines() if not line.startswith("#")]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(file), f"{target}: no such heading"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in HISTORY], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_named_file_of_the_repository_exists(page: Path) -> None:
    pattern = r"`((?:fer_jax|fer_generator|configs|tests|docs|benchmarks|pretrained)/[\w./]+|[\w/]+\.py)`"
    for name in set(re.findall(pattern, page.read_text())):
        if "yours" in name or name.endswith("tuned.py") or name == "utils.py":
            continue
        assert (ROOT / name).exists() or (ROOT / "fer_jax" / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_block_has_a_language_and_shell_blocks_are_valid(page: Path) -> None:
    for language, text in fences(page):
        assert language in LANGUAGES or page.parent.parent.name == "pretrained", f"{language!r}: {text[:60]!r}"
        if language in ("sh", "bash"):
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


class Parsed(Exception):  # noqa: N818
    """Stops a command after its arguments are parsed."""


def parse(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse the arguments of a command by its own parser, and load its config with the overrides."""
    original = argparse.ArgumentParser.parse_known_args

    def stop(parser: argparse.ArgumentParser, args=None, namespace=None):
        raise Parsed(*original(parser, args, namespace))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        with pytest.raises(Parsed) as parsed:
            import_module(module).main(arguments)
    options, rest = parsed.value.args
    chosen = getattr(options, "config", None)
    if chosen is None:
        assert rest == []
        return
    for name in [chosen] if isinstance(chosen, str) else chosen:
        if "experiments/" not in name and "yours" not in name and name != "my_config.py":
            config.load(name, rest)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_parses(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "released").mkdir()
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "fer_generator", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    modules = {f"fer-jax {name}": command.module for name, command in COMMANDS.items()}
    modules |= {f"python -m {command.module}": command.module for command in COMMANDS.values()}
    modules["python fer_generator/generate_training_data.py"] = "fer_generator.generate_training_data"
    for line in commands(page):
        if line.startswith(("for ", "done", "do ", "}", "if ", "fi")) or "$" in line or "{" in line or "=(" in line:
            continue  # a loop of docs/results.md: `bash -n` has read it
        words = [word for word in shlex.split(line) if not re.match(r"[A-Z_0-9]+=", word)]
        start = next((start for start in modules if shlex.join(words).startswith(start)), None)
        if start is not None:
            parse(modules[start], words[len(start.split()) :], monkeypatch)
        elif words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in targets)
        elif words[0] == "python":
            script = next((word for word in words if word.endswith(".py")), None)
            assert script is None or (ROOT / script).is_file(), line
        else:
            assert words[0] in PROGRAMS or words[0].startswith((".venv", "Set-", "xcode-select")), line


PYTHON = [(page, text) for page in PAGES for language, text in fences(page) if language == "python"]


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=lambda value: getattr(value, "name", None))
def test_every_python_block_is_valid(page: Path, text: str) -> None:
    compile(text, str(page), "exec")


@pytest.mark.slow
def test_the_python_of_the_readme_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = fences(ROOT / "README.md")
    place = next(i for i, (language, _) in enumerate(blocks) if language == "python")
    script = tmp_path / "readme.py"
    script.write_text(blocks[place][1])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "docs" / "photo.jpg", tmp_path / "docs" / "photo.jpg")
    printed = io.StringIO()
    with redirect_stdout(printed):
        runpy.run_path(str(script))
    (box, emotion, probability), (shown_box, shown_emotion, shown_probability) = (
        re.fullmatch(r"\((.*)\) (\w+) ([\d.]+)\n", text).groups() for text in (printed.getvalue(), blocks[place + 1][1])
    )
    assert [*map(int, box.split(","))] == pytest.approx([*map(int, shown_box.split(","))], abs=2)
    assert emotion == shown_emotion
    assert float(probability) == pytest.approx(float(shown_probability), abs=0.02)
    assert (tmp_path / "experiments" / "photo.png").is_file()


def test_readme_is_one_screen_and_a_half() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1100


def test_unknown_fields_in_a_page_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such field"):
        parse("fer_jax.main", ["--config", "base", "--config.optim.rate=1"], monkeypatch)
