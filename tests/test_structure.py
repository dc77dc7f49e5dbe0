"""The layers of the package, and rules for its modules, functions and docstrings."""

import ast
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import fer_jax
from fer_jax.__main__ import COMMANDS
from fer_jax.core.extras import EXTRAS

ROOT = Path(__file__).parent.parent
# An import may only point upwards. The three of one line do not import each other.
LAYERS = [
    {"core"},
    {"data"},
    {"models"},
    {"training"},
    {"inference"},
    {"evaluation"},
    {"reporting"},
    {"train"},
    {"search", "deploy", "faces"},
    {"curation", "web"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ALIASES = {"search_space": {"search"}}  # public names of old: what they may import
MODULES_OF_COMMANDS = {
    module.removeprefix("fer_jax.") for module, _ in COMMANDS.values() if module.startswith("fer_jax.")
}
MAX_LINES = 60  # of a function


def sources(*folders: str) -> list[Path]:
    """The Python files in folders of the repository."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the dotted name of each import, also of those inside functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def unit(path: Path) -> str:
    """The part of fer_jax that a file belongs to: the name of a package, or of a module beside them."""
    first = path.relative_to(ROOT / "fer_jax").parts[0]
    return first.removesuffix(".py")


def imported_units(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the part of fer_jax of each import; "" for a public name of fer_jax itself."""
    for line, name in imports(path):
        top, *rest = name.split(".")
        if top == "fer_jax":
            known = rest and (rest[0] in LEVEL or (ROOT / "fer_jax" / f"{rest[0]}.py").is_file())
            yield line, rest[0] if known else ""


def allowed(importer: str, imported: str) -> bool:
    """True where a part of fer_jax may import another."""
    if imported == "":  # lazy public names
        return importer in (*MODULES_OF_COMMANDS, "__main__", "core")
    if imported in ALIASES or imported in MODULES_OF_COMMANDS or imported.startswith("__"):
        return False
    if importer in ALIASES:
        return imported in ALIASES[importer]
    if importer in LEVEL:
        return imported == importer or LEVEL[imported] < LEVEL[importer]
    return importer == "__init__" or importer in MODULES_OF_COMMANDS or (importer, imported) == ("__main__", "core")


def test_every_module_has_a_place() -> None:
    units = {unit(path) for path in sources("fer_jax")}
    assert units == {*LEVEL, *ALIASES, *MODULES_OF_COMMANDS, "__init__", "__main__"}


def test_imports_point_to_lower_layers_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {unit(path)} imports {imported or 'a public name of fer_jax'}"
        for path in sources("fer_jax")
        for line, imported in imported_units(path)
        if not allowed(unit(path), imported)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("core", "data"),
        ("inference", "evaluation"),
        ("search", "deploy"),
        ("search", "evaluate"),
        ("evaluate", "main"),
        ("__main__", "search"),
        ("training", "search_space"),
    ],
)
def test_arrows_that_are_forbidden(importer: str, imported: str) -> None:
    assert not allowed(importer, imported)


def test_the_generator_needs_nothing_of_fer_jax() -> None:
    assert not [path for path in sources("fer_generator") for _, name in imports(path) if name.startswith("fer_jax")]


def test_configs_use_public_names_only() -> None:
    public = {"fer_jax", "fer_jax.search_space"}
    wrong = [
        f"{path.name}:{line}: {name}"
        for path in sources("configs")
        for line, name in imports(path)
        if name.startswith("fer_jax") and name not in public and name.rpartition(".")[0] not in public
    ]
    assert not wrong, "\n".join(wrong)


def test_package_files_hold_a_docstring_only() -> None:
    with_code = {
        str(path.relative_to(ROOT))
        for path in sources("fer_jax", "fer_generator")
        if path.name == "__init__.py" and len(tree(path).body) != 1
    }
    assert with_code == {"fer_jax/__init__.py", "fer_jax/inference/__init__.py"}
    assert all(ast.get_docstring(tree(path)) for path in sources("fer_jax", "fer_generator"))


def test_docstrings_name_a_thing_or_an_action() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.body[0].lineno}: {text.splitlines()[0]}"
        for path in sources("fer_jax", "fer_generator", "configs", "benchmarks")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (text := ast.get_docstring(node))
        and text.split()[0].rstrip(",:") in ("What", "How", "Whether", "Which")
    ]
    assert not wrong, "\n".join(wrong)


def test_functions_are_short() -> None:
    wrong = []
    for path in sources("fer_jax", "fer_generator", "configs"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_LINES:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines")
    assert not wrong, "\n".join(wrong)


def requirements() -> dict[str, set[str]]:
    """The distributions that pyproject.toml lists for the base install ("") and for each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    own = {extra: [text for text in texts if not text.startswith("fer_jax[")] for extra, texts in lists.items()}
    return {extra: {_distribution(text) for text in texts} for extra, texts in own.items()}


def _distribution(requirement: str) -> str:
    name = requirement.split(">")[0].split("[")[0]
    return {
        "orbax-checkpoint": "orbax",
        "pillow": "pil",
        "scikit-learn": "sklearn",
        "absl-py": "absl",
        "opencv-python-headless": "cv2",
    }.get(name, name.replace("-", "_").lower())


def third_party(path: Path) -> set[str]:
    """The packages of others that a file imports, in lower case."""
    tops = {name.split(".")[0] for _, name in imports(path)}
    return {top.lower() for top in tops - {"fer_jax", "fer_generator"} - sys.stdlib_module_names}


def test_a_missing_package_is_answered_with_an_extra_that_has_it() -> None:
    extras = requirements()
    assert {package: extra for package, extra in EXTRAS.items() if package.lower() not in extras[extra]} == {}
    uses = defaultdict(set)
    for path in sources("fer_jax", "fer_generator"):
        for package in third_party(path):
            uses[package].add(str(path.relative_to(ROOT)))
    known = extras[""] | {package.lower() for package in EXTRAS} | {"jaxlib"}  # jaxlib comes with jax
    assert {package: files for package, files in uses.items() if package not in known} == {}


def test_importing_fer_jax_loads_no_other_package() -> None:
    code = "import sys; before = {*sys.modules}; import fer_jax; print(*({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} <= {"fer_jax", *sys.stdlib_module_names}


def test_the_version_has_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert f"\nversion: {fer_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {fer_jax.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_base_install_and_the_extras_do_not_overlap() -> None:
    extras = requirements()
    assert not extras[""] & {package.lower() for package in EXTRAS}
