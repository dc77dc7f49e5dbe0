"""The configs and networks that come with fer_jax."""

from pathlib import Path

import pytest

from fer_jax.core import config, run_folder, shipped
from fer_jax.deploy import release
from fer_jax.training import checks

ROOT = Path(__file__).parent.parent


def test_the_names_in_a_clone() -> None:
    assert shipped.configs()["base"].samefile(ROOT / "configs" / "base.py")
    assert set(shipped.networks()) == {"base", "best"}
    assert shipped.networks()["best"].samefile(ROOT / "pretrained" / "best")


def test_folders_inside_the_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text("")
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path)
    assert shipped.configs() == {"mine": tmp_path / "configs" / "mine.py"}
    assert shipped.networks() == {}


@pytest.mark.parametrize("name", shipped.networks())
def test_a_shipped_network_has_the_config_of_its_name(name: str) -> None:
    stored = run_folder.read_config(run_folder.find(name))
    assert config.as_json(stored) == config.as_json(config.load(name))
    checks.check(stored)


@pytest.mark.parametrize("name", shipped.networks())
def test_the_card_of_a_shipped_network_names_the_network_and_its_config(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (run_folder.find(name) / "README.md").read_text(encoding="utf-8")
    recipe = config.load(name)
    monkeypatch.chdir(tmp_path)
    if source := recipe.train.init_from:  # where it was released, the run that it started from was there
        Path(source).mkdir(parents=True)
        run_folder.write_config(Path(source), config.load(Path(source).name))
    again = release.commands(Path("runs", name), Path("pretrained", name), recipe, "latest", True, True)
    assert f"```\n{again}\n```" in card
    assert f'fer_jax.load("{name}")' in card
    assert f"--run {name} " in card
