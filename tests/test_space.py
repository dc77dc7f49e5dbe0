"""Search spaces: values in the types of their fields, the points of a grid, and errors on one line."""

from pathlib import Path

import pytest

import fer_jax
from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError
from fer_jax.search import space as search_space
from fer_jax.search.space import Range, Search

FILE = """
import fer_jax
from fer_jax.search_space import Range, Search

def get_config():
    return fer_jax.load_config("base")

def get_search():
    return {}
"""


def load(folder: Path, search: str) -> Search:
    path = folder / "searched.py"
    path.write_text(FILE.format(search))
    return search_space.load(str(path), config_lib.load(str(path)))


def test_values_take_the_type_of_their_field(tmp_path: Path) -> None:
    search = load(
        tmp_path,
        """Search(seeds=3, space={
            "optim.learning_rate": Range(1, 10, log=True, points=2),
            "train.batch_size": Range(32, 96),
            "model.dropout": [0, 0.5],
            "optim.nesterov": [True, False],
            "schedule.boundaries": [(), [2, 4]],
            "augment.recipe": ("none", "ferplus"),
        })""",
    )
    assert search.seeds == 3
    assert search.space["optim.learning_rate"] == Range(1.0, 10.0, True, 2)
    assert isinstance(search.space["optim.learning_rate"].low, float)
    assert isinstance(search.space["train.batch_size"].low, int)
    assert [type(value) for value in search.space["model.dropout"]] == [float, float]
    assert search.space["schedule.boundaries"] == [(), (2, 4)]
    assert {name: search_space.points(dimension) for name, dimension in search.space.items()} == {
        "optim.learning_rate": [1.0, 10.0],
        "train.batch_size": [32, 64, 96],
        "model.dropout": [0.0, 0.5],
        "optim.nesterov": [True, False],
        "schedule.boundaries": [(), (2, 4)],
        "augment.recipe": ["none", "ferplus"],
    }


def test_grid_points_are_evenly_spaced_and_include_both_ends() -> None:
    assert search_space.points(Range(0.0, 0.5)) == [0.0, 0.25, 0.5]
    assert search_space.points(Range(1e-4, 1e-2, log=True)) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert search_space.points(Range(0.1, 0.7, points=5))[-1] == 0.7
    assert search_space.points(Range(1, 3, points=9)) == [1, 2, 3]


def test_with_values_changes_a_copy() -> None:
    config = fer_jax.load_config("base", ["--config.optim.learning_rate=0.1"])
    changed = config_lib.with_values(config, {"optim.learning_rate": 0.5, "seed": 3})
    assert (changed.optim.learning_rate, changed.seed) == (0.5, 3)
    assert (config.optim.learning_rate, config.seed) == (0.1, 0)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ('{"optim.learning_rat": [1.0]}', r"no such field: optim\.learning_rat; did you mean optim\.learning_rate\?"),
        ('{"optim": [1.0]}', "no such field: optim"),
        ('{"model.dropout": Range(0.5, 0.5)}', r"model\.dropout: the range 0\.5 to 0\.5 is empty"),
        ('{"model.dropout": Range(0.0, 0.5, log=True)}', r"model\.dropout: a logarithmic range cannot begin at 0\.0"),
        ('{"model.dropout": Range("a", "b")}', r"model\.dropout: 'a' is not of the field's type, float"),
        ('{"model.dropout": Range(0.1, 0.2, points=1)}', "points=1 must be"),
        ('{"train.batch_size": Range(1.5, 3)}', r"train\.batch_size: 1\.5 is not of the field's type, int"),
        ('{"augment.recipe": Range(0, 1)}', r"augment\.recipe: a Range is for numbers"),
        ('{"optim.nesterov": Range(0, 1)}', r"optim\.nesterov: a Range is for numbers"),
        ('{"augment.recipe": "none"}', r"augment\.recipe: 'none' is neither a Range nor a list"),
        ('{"augment.recipe": []}', r"augment\.recipe: \[\] is neither"),
        ('{"augment.recipe": ["none", 3]}', r"augment\.recipe: 3 is not of the field's type, str"),
        ('{"model.dropout": [0, 0.0]}', r"model\.dropout: a choice is given twice"),
        ("{}", "must return a fer_jax.search_space.Search of one field or more"),
        ('{"seed": [1, 2]}, seeds=0', "seeds=0 must be a whole number, at least 1"),
        ('{"seed": [1, 2]}, grace_epochs=0.5', r"grace_epochs=0\.5 must be"),
    ],
)
def test_an_invalid_space_is_one_line(tmp_path: Path, space: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"searched\.py.*{message}") as error:
        load(tmp_path, f"Search({space})")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("search", "message"), [("3", "must return"), ("1 / 0", "ZeroDivisionError")])
def test_a_file_that_returns_no_search_is_one_line(tmp_path: Path, search: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, search)


def test_a_config_without_a_search_is_one_line() -> None:
    with pytest.raises(UserError, match=r"base: get_search\(\) must return .*configs/tune\.py"):
        search_space.load("base", fer_jax.load_config("base"))


def test_the_shipped_search_loads_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search = search_space.load("tune", fer_jax.load_config("tune"))
    assert "optim.learning_rate" in search.space
