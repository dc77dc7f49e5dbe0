"""Shared by all tests: a private compilation cache, the drawn sample as a data folder, the real data if present."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from filelock import FileLock
from ml_collections import ConfigDict

from fer_jax.core import runtime

ROOT = Path(__file__).parent.parent

# In this process. The commands that tests run have one device, unless a test sets another number.
jax.config.update("jax_num_cpu_devices", 2)

# The commands set this flag (fer_jax.core.runtime). With it in all tests they share one cache of compiled programs.
runtime.tune_cpu()

# A script that starts the tests in the background makes them ignore Ctrl-C, and commands inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden configs and the notebook's outputs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: the last files are then short, and all workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of compiled programs for the tests of this session and their subprocesses alone."""
    folder = str(shared_by_workers(tmp_path_factory) / "xla")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def shared_by_workers(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of this session; each worker of pytest-xdist has a folder of its own in it."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def run_python(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in the root of the repository, as a user does."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def draw_sample(base: Path) -> Path:
    """Draw a small sample, and return its data folder."""
    made = run_python("-m", "fer_generator.synthetic", "-o", str(base), "--train", "1200", "--valid", "300")
    assert made.returncode == 0, made.stderr
    return generate(base, base / "data")


def generate(csvs: Path, folder: Path) -> Path:
    """Make the data folder of the two CSVs in a folder, and return it."""
    files = ["-fer", str(csvs / "fer2013.csv"), "-ferplus", str(csvs / "fer2013new.csv")]
    made = run_python("fer_generator/generate_training_data.py", "-d", str(folder), *files)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a drawn sample, made by two commands as `make sample` does; tests do not change it."""
    base = shared_by_workers(tmp_path_factory) / "sample"
    with FileLock(base.with_name("sample.lock")):
        if not (base / "data").exists():
            draw_sample(base)
    return base / "data"


@pytest.fixture
def config(sample_dir: Path) -> ConfigDict:
    """The config of a run that takes a moment; see `tests.small_runs`."""
    from tests import small_runs  # loads the training code, which few tests need

    return small_runs.small_config(sample_dir)


@pytest.fixture(scope="session")
def finished_run(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `config`; tests do not change it."""
    from fer_jax.train import Ending, train
    from tests import small_runs

    run = shared_by_workers(tmp_path_factory) / "finished"
    done = run.with_name("finished.done")
    with FileLock(run.with_name("finished.lock")):
        if not done.exists():
            lines: list[str] = []
            assert train(small_runs.small_config(sample_dir), run, lines.append) == Ending("complete")
            beginnings = [line.split(":")[0] for line in lines]
            assert beginnings == ["resnet_tiny", "epoch 1/3", "epoch 2/3", "epoch 3/3", "complete"]
            done.touch()
    return run


@pytest.fixture(scope="session")
def real_csvs() -> Path:
    """The folder of the real fer2013.csv and fer2013new.csv."""
    folder = os.environ.get("FER2013_DIR")
    if not folder:
        pytest.skip("FER2013_DIR does not name a folder with fer2013.csv and fer2013new.csv")
    return Path(folder)


@pytest.fixture(scope="session")
def real_dir(real_csvs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder that the generator makes from the real CSVs."""
    folder = shared_by_workers(tmp_path_factory) / "real"  # of 32,000 files
    with FileLock(folder.with_name("real.lock")):
        if not folder.exists():
            generate(real_csvs, folder)
    return folder


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of the page that reads faces in the browser, while it is served."""
    from fer_jax.web import server

    with server.server(0) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()
        thread.join()
