"""Configs: files, overrides and the shipped recipes; each recipe's JSON is in tests/golden/configs.

After an intended change of a recipe or of the schema: python -m pytest tests/test_config.py --update-golden
"""

import ast
import itertools
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from fer_jax.core import config, schema, shipped
from fer_jax.core.errors import UserError
from fer_jax.search import sweep_plan

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "configs"
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
FIELDS = config.flatten(schema.default_config().to_dict())
SECTIONS = {name.split(".")[0] for name in FIELDS if "." in name}

FROM_DEFAULT = """
import math
from fractions import Fraction
from pathlib import Path
import numpy as np
from ml_collections import ConfigDict
import fer_jax

def get_config():
    config = fer_jax.default_config()
    {change}
    return config
"""
OF_ITS_OWN = """
import math
from fractions import Fraction
from pathlib import Path
import numpy as np
from ml_collections import ConfigDict
import fer_jax

def get_config():
    config = ConfigDict(fer_jax.default_config().to_dict(), type_safe=False)
    {change}
    return config
"""


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def refusal(name: str, overrides: list[str]) -> str:
    """The error of a config, which must be short and on one line."""
    with pytest.raises(UserError) as error:
        config.load(name, overrides)
    text = str(error.value)
    assert "\n" not in text
    assert len(text.replace(name, "")) < 300
    return text


@pytest.mark.parametrize("name", RECIPES)
def test_the_json_of_a_recipe_is_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    path, fields = GOLDEN / f"{name}.json", config.as_json(config.load(name))
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fields, indent=2) + "\n")
    assert fields == json.loads(path.read_text()), "intended? python -m pytest tests/test_config.py --update-golden"


def test_every_golden_file_has_a_recipe() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_the_fields_in_which_it_differs_from_the_schema_and_no_other(name: str) -> None:
    tree = ast.parse((ROOT / "configs" / f"{name}.py").read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_config")
    targets = [ast.unparse(node.targets[0]) for node in ast.walk(function) if isinstance(node, ast.Assign)]
    assigned = sorted(target.removeprefix("config.") for target in targets if target != "config")
    fields = config.flatten(config.load(name).to_dict())
    differing = {field for field in fields if fields[field] != FIELDS[field]}
    assert assigned == sorted(differing | {"train.epochs", "train.batch_size"})  # a reader looks for these two first


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_its_command_accuracy_and_time(name: str) -> None:
    text = (ROOT / "configs" / f"{name}.py").read_text()
    assert f"--config configs/{name}.py" in text
    assert re.search(r"\d+\.\d+ %|no accuracy", text)  # or the reason why none is known
    assert re.search(r"\d+ (minutes|hours|seconds)", text)


def test_the_references_of_the_candidates_are_the_recipes_of_today() -> None:
    candidates = sweep_plan.variants("candidates", config.load("candidates"))
    on_a_cpu = {"augment.renderer": "host", "model.dtype": "float32", "train.steps_per_call": 1}
    for name in ("taught", "base"):
        candidate = config.with_values(candidates[name], on_a_cpu)
        assert config.as_json(candidate) == config.as_json(config.load(name))


def test_the_schema_explains_every_field() -> None:
    lines = [line.strip() for line in (ROOT / "fer_jax" / "core" / "schema.py").read_text().splitlines()]
    shared = ("optim.b2", "optim.nesterov", "schedule.scales", "train.eval_batch_size")  # explained by the field above
    explained = set()
    for above, line in itertools.pairwise(lines):
        field = line.split(" = ")[0].removeprefix("config.")
        if above.startswith("# ") or field in shared:
            explained.add(field)
    assert explained >= FIELDS.keys()


def test_overrides_take_the_type_of_the_field() -> None:
    overrides = ["--config.seed=7", "--config.optim.learning_rate=1", "--config.optim.nesterov=false"]
    overrides += ["--config.model.name=vgg13", "--config.schedule.boundaries=(3, 4)", "--config.schedule.scales=0.5"]
    loaded = config.load("configs/base.py", overrides)
    assert loaded.seed == 7
    assert loaded.optim.learning_rate == 1.0
    assert isinstance(loaded.optim.learning_rate, float)
    assert loaded.optim.nesterov is False
    assert loaded.model.name == "vgg13"
    assert loaded.schedule.boundaries == (3, 4)
    assert loaded.schedule.scales == (0.5,)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.lr=1"], r"no such field: lr$"),
        (["--config.optim.lr=1"], r"no such field: optim\.lr; optim has .*learning_rate"),
        (["--config.seed=1", "--config.train.epoch=1"], r"train\.epoch; did you mean train\.epochs\?"),
        (["--config.trian.epochs=1"], r"did you mean train\.epochs\?"),
        (["--config.optim=1"], r"no such field: optim"),
        ([f"--config.{'x' * 1000}=1"], r"no such field: xxx"),
        (["--config.seed=x"], r"configs/base\.py: .*seed"),
        (["--config.seed=10.5"], r"configs/base\.py: .*seed"),
        (["--config.optim.nesterov=perhaps"], r"optim\.nesterov"),
        (["--config.schedule.scales=('a', (1,))"], r"schedule\.scales=.* must be a tuple of numbers or names"),
        (["--config.optim.nesterov", "false"], r"--config\.field=value"),
        (["--config.seed", "3"], r"--config\.field=value"),
        (["--epochs=3"], r"unknown argument '--epochs=3'"),
        (["train"], r"unknown argument 'train'"),
    ],
)
def test_wrong_overrides_get_one_line(overrides: list[str], message: str) -> None:
    assert re.search(message, refusal("configs/base.py", overrides))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config():\n    return 3\n", "must return"),
        ("x = 1\n", "get_config"),
        ("def get_config():\n    return 1 / 0\n", r"broken\.py, line 2: ZeroDivisionError"),
        ("def get_config(:\n", "SyntaxError"),
        ("import no_such_module\n", "line 1: .*no_such_module"),
        ("x = " + "(" * 100_000 + ")" * 100_000 + "\n", "nested"),
        ("def get_config():\n    raise ValueError('x\\n' * 10000)\n", "line 2: ValueError: x x x"),
    ],
)
def test_broken_config_files_get_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    assert re.search(message, refusal(str(path), []))


@pytest.fixture(params=[FROM_DEFAULT, OF_ITS_OWN], ids=["from_default", "of_its_own"])
def write(request: pytest.FixtureRequest, tmp_path: Path):
    """A function that writes a config file with some lines in it, in each of two styles."""

    def written(change: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(request.param.format(change=change.replace("\n", "\n    ")))
        return str(path)

    return written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.optim.learning_rte = 1e-3", "no such field: optim.learning_rte; did you mean optim.learning_rate?"),
        ("config.epochs = 3", "no such field: epochs; did you mean train.epochs?"),
        ("config.trian = ConfigDict({'epochs': 3})", "no such field: trian.epochs; did you mean train.epochs?"),
        ("config.extra = ConfigDict()", "no such field: extra"),
        ("del config.optim", "the section optim is missing"),
        ("del config.optim.b2", "the field optim.b2 is missing"),
        ("config.optim = None", "optim=None must be a section"),
        ("config.optim = 'adam'", "optim='adam' must be a section"),
        ("config.optim.name = ConfigDict({'a': 1})", "no such field: optim.name.a; did you mean optim.name?"),
        ("config.optim[3] = 4", "nothing else"),
        ("config.train.epochs = 'three'", "train.epochs='three' must be a whole number"),
        ("config.train.epochs = 10.5", "train.epochs=10.5 must be a whole number"),
        ("config.train.epochs = math.inf", "train.epochs=inf must be a finite number"),
        ("config.train.epochs = math.nan", "train.epochs=nan must be a finite number"),
        ("config.train.epochs = True", "train.epochs=True must be a whole number"),
        ("config.optim.learning_rate = '0.1'", "optim.learning_rate='0.1' must be a number"),
        ("config.optim.learning_rate = math.inf", "optim.learning_rate=inf must be a finite number"),
        ("config.optim.learning_rate = math.nan", "optim.learning_rate=nan must be a finite number"),
        ("config.optim.learning_rate = np.ones(10**6)", "optim.learning_rate=array("),
        ("config.optim.learning_rate = lambda step: step", "optim.learning_rate=<function"),
        ("config.optim.learning_rate = 1j", "optim.learning_rate=1j must be a number"),
        ("config.optim.nesterov = 1", "optim.nesterov=1 must be True or False"),
        ("config.optim.name = len", "optim.name=<built-in function len> must be text"),
        ("config.optim.name = None", "optim.name=None must be text"),
        ("config.model.name = b'vgg13'", "model.name=b'vgg13' must be text"),
        ("config.data.teachers = 'best'", "data.teachers='best' must be a tuple"),
        ("config.data.teachers = {'best'}", "data.teachers={'best'} must be a tuple"),
        ("config.train.batch_size = Fraction(10**400)", "too large"),
        ("config.schedule.scales = (10**400,)", "schedule.scales=(1000"),
        ("config.data.teachers = (('best',),)", "data.teachers=(('best',),) must be a tuple"),
        ("config.schedule.scales = (math.nan,)", "schedule.scales=(nan,) must be a tuple"),
        ("x = ()\nfor _ in range(100_000): x = (x,)\nconfig.data.teachers = x", "data.teachers=((("),
        ("x = ConfigDict()\nfor _ in range(100_000): x = ConfigDict({'a': x})\nconfig.optim.name = x", "nothing else"),
        ("config.optim.self = config", "nothing else"),
    ],
)
def test_wrong_fields_of_a_config_file_get_one_line(write, change: str, message: str) -> None:
    path = write(change)
    text = refusal(path, [])
    assert text.startswith(f"{path}: ")
    assert message in text


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ("config.train.epochs = 10.0", "train.epochs", 10),
        ("config.train.epochs = np.int64(10)", "train.epochs", 10),
        ("config.optim.learning_rate = 1", "optim.learning_rate", 1.0),
        ("config.optim.learning_rate = 1e30", "optim.learning_rate", 1e30),
        ("config.optim.learning_rate = np.float32(0.5)", "optim.learning_rate", 0.5),
        ("config.data.dir = Path('faces') / 'data'", "data.dir", str(Path("faces", "data"))),
        ("config.data.teachers = [Path('a'), 'b']", "data.teachers", ("a", "b")),
        ("config.schedule.scales = (np.float64(0.5), 1)", "schedule.scales", (0.5, 1)),
    ],
)
def test_values_of_a_config_file_take_the_type_of_the_field(write, change: str, field: str, value) -> None:
    loaded = config.load(write(change))
    taken = config.flatten(loaded.to_dict())[field]
    assert (taken, type(taken)) == (value, type(value))
    assert json.loads(json.dumps(config.as_json(loaded), allow_nan=False)) == config.as_json(loaded)


def test_a_loaded_config_is_locked_and_keeps_its_types() -> None:
    loaded = config.load("base")
    with pytest.raises(AttributeError, match="learning_rte"):
        loaded.optim.learning_rte = 1e-3
    with pytest.raises(TypeError, match="epochs"):
        loaded.train.epochs = "three"
    assert config.with_values(loaded, {"optim.learning_rate": 1, "seed": 3}).optim.learning_rate == 1.0
    assert loaded.seed == 0


def test_differences_name_the_fields_with_both_values() -> None:
    old = {"seed": 0, "optim": {"rate": 0.1, "name": "adam"}, "steps": [1, 2]}
    new = {"seed": 0, "optim": {"rate": 0.2, "name": "adam"}, "steps": [1, 3], "more": "x" * 1000, "other": 1}
    text = config.differences(old, new)
    long = config.shown("x" * 1000)
    parts = ["optim.rate: 0.1 there, 0.2 now", "steps: [1, 2] there, [1, 3] now", f"more: missing there, {long} now"]
    assert text == f"{', '.join(parts)}, and 1 more"
    assert len(config.differences({}, {"x" * 1000: "y" * 1000})) < 200


def test_a_config_of_today_has_all_later_fields() -> None:
    assert config.LATER_FIELDS.keys() <= FIELDS.keys()
    fields = {"model": {"name": "vgg13"}, "train": {"epochs": 3, "steps_per_call": 4}}
    read = config.with_later_fields(fields)
    assert isinstance(read, ConfigDict)
    assert read.model.width == 1.0
    assert read.train.steps_per_call == 4
    assert "optim" not in read


def test_a_config_is_found_by_path_or_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ROOT / "configs" / "base.py"
    assert config.find("configs/base.py").samefile(base)
    monkeypatch.chdir(tmp_path)
    assert config.find("base").samefile(base)
    assert config.load("base", ["--config.seed=3"]).seed == 3
    (tmp_path / "base.py").write_text("")
    assert config.find("base.py") == Path("base.py")
    assert config.find("base").samefile(base)
    (tmp_path / "base").write_text("")
    with pytest.raises(UserError, match=r"base is a shipped config and a file here: write \./base or .*base\.py$"):
        config.find("base")
    assert config.find("./base") == Path("base")
    Path("config.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"config\.json is not a Python file: give a \.py file with get_config\(\), or "
    ):
        config.find("config.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("configs/bse.py", r"no config file configs/bse\.py: did you mean base\?"),
        ("bse", r"no config file bse: did you mean base\?"),
        ("mine", r"no config file mine: give a file, or a shipped config \(ablation, base, best, "),
        ("configs", "no config file configs"),
    ],
)
def test_a_config_that_does_not_exist_gets_one_line(name: str, message: str) -> None:
    assert re.search(message, refusal(name, []))
    assert set(shipped.configs()) == set(RECIPES)
