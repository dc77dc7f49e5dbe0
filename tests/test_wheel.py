"""The wheel: its files, and the commands that it installs, from a folder that is not the clone."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
# The run of tests.small_runs, which shares its compiled programs.
SMALL = {
    "model.width": 0.125,
    "model.depth": 0,
    "schedule.name": "constant",
    "train.batch_size": 128,
    "train.eval_batch_size": 100,
    "train.epochs": 1,
}
CONFIG = f"""
import fer_jax
from fer_jax.search_space import Range, Search


def get_config():
    config = fer_jax.load_config("sample")
    config.update_from_flattened_dict({SMALL})
    config.data.dir = "data"
    return config


def get_search():
    return Search({{"data.smoothing": Range(0.0, 0.1)}})
"""
# The command with the packages of the base install alone.
WITHOUT_EXTRAS = """
import sys
from fer_jax.core.extras import EXTRAS
sys.modules |= dict.fromkeys(EXTRAS)
from fer_jax.__main__ import main
sys.exit(main())
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that must end well."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["JAX_NUM_CPU_DEVICES"] = "2"  # as in the tests of one process
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path) -> tuple[Path, Path]:
    """An empty virtual environment: its interpreter and its site-packages."""
    venv.create(folder, with_pip=False)
    python = folder / SCRIPTS / "python"
    return python, Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def fer_jax(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the installed wheel; all other packages are those of this interpreter."""
    python, packages = environment(tmp_path_factory.mktemp("installed") / "venv")
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, cwd=wheel.parent)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent / "fer-jax"


def test_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA")).removesuffix("/METADATA")
    files = [path for name in ("fer_jax", "fer_generator") for path in (ROOT / name).rglob("*") if path.is_file()]
    left_out = (".pyc", ".csv", ".gz", ".tar", ".zip")  # compiled code, and the data that users put into fer_generator
    packages = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if not path.name.endswith(left_out) and "node_modules" not in path.parts
    }
    assert {"fer_jax/py.typed", "fer_generator/py.typed"} <= packages
    configs = {f"fer_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    networks = {
        f"fer_jax/pretrained/{network}/{name}"
        for network in ("base", "best")
        for name in ("config.json", "weights.safetensors", "network.onnx", "README.md")
    } | {"fer_jax/pretrained/best/taught.npz"}
    assert configs
    about = {name for name in names if name.startswith(metadata)}
    assert names - about == packages | configs | networks
    assert f"{metadata}/licenses/LICENSE" in about


def test_commands_from_another_folder(fer_jax: Path, sample_dir: Path, tmp_path: Path) -> None:
    assert "usage: fer-jax COMMAND" in run(fer_jax, "--help", cwd=tmp_path)
    # The clone is not what answers.
    code = "import fer_jax.core.shipped as shipped; print(shipped.__file__, *shipped.configs(), *shipped.networks())"
    place, *names = run(fer_jax.parent / "python", "-c", code, cwd=tmp_path).split()
    assert Path(place).is_relative_to(fer_jax.parent.parent)
    assert {"base", "best", "tune"} <= set(names)

    Image.new("L", (48, 48), 100).save(tmp_path / "face.png")
    assert "face.png" in run(fer_jax.parent / "python", "-c", WITHOUT_EXTRAS, "predict", "face.png", cwd=tmp_path)
    assert "face.png" in run(fer_jax, "predict", "--run", "base", "face.png", cwd=tmp_path)


def test_training_and_tuning_from_another_folder(fer_jax: Path, sample_dir: Path, tmp_path: Path) -> None:
    small = [f"--config.{name}={value}" for name, value in SMALL.items()]
    small.append(f"--config.data.dir={sample_dir}")
    assert "run folder: experiments/sample" in run(fer_jax, "train", "--config", "sample", *small, cwd=tmp_path)

    (tmp_path / "data").symlink_to(sample_dir)
    (tmp_path / "mine.py").write_text(CONFIG)
    run(fer_jax, "tune", "--config", "mine.py", "--trials", "1", cwd=tmp_path)
    assert {"report.html", "trials.csv", "tuned.py"} <= {
        path.name for path in (tmp_path / "experiments/mine").iterdir()
    }


def test_editable_install_beside_a_clone_of_the_same_name(tmp_path: Path) -> None:
    code = "import sys; from hatchling.build import build_editable; print(build_editable(sys.argv[1]))"
    name = run(sys.executable, "-c", code, tmp_path, cwd=ROOT).strip()
    python, packages = environment(tmp_path / "venv")
    with zipfile.ZipFile(tmp_path / name) as archive:
        archive.extractall(packages)
    (tmp_path / "fer_jax").symlink_to(ROOT)
    (tmp_path / "script.py").write_text("import fer_jax\nprint(fer_jax.__file__)\n")
    assert Path(run(python, "script.py", cwd=tmp_path).strip()) == ROOT / "fer_jax" / "__init__.py"
