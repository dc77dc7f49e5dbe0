"""A training run for tests: three epochs of the tiny network, and the helpers that interrupt and read it."""

import json
import shutil
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ml_collections import ConfigDict

import fer_jax
from fer_jax.core import run_folder
from fer_jax.core.devices import Devices
from fer_jax.training import checkpoint, restoring, setup

# The network of all tests. Nothing smaller compiles noticeably faster.
TINY = {"name": "resnet_tiny", "width": 0.125, "depth": 0}


def tiny_config() -> ConfigDict:
    """The config of the drawn sample, with the tiny network."""
    config = fer_jax.load_config("sample")
    config.model.update(TINY)
    config.schedule.name = "constant"  # one compiled program for any number of epochs
    return config


def small_config(sample_dir: Path) -> ConfigDict:
    """A run of three epochs on the sample, nine steps each."""
    config = tiny_config()
    config.data.dir = str(sample_dir)
    config.train.epochs = 3
    config.train.batch_size = 122  # conv3x3 adds the kernel gradients of two parts of it, of 128 eight: compiled sooner
    config.train.eval_batch_size = 100
    return config


def quiet(line: str) -> None:
    """A listener that drops the line."""


def interrupt(after: str | tuple[str, ...] = "epoch 1", by: int = signal.SIGTERM) -> Callable[[str], None]:
    """A listener that raises a signal when the run prints a line with such a beginning."""

    def listen(line: str) -> None:
        if line.startswith(after):
            signal.raise_signal(by)

    return listen


def with_epochs_left(run: Path, copy: Path) -> Path:
    """Copy a finished run of three epochs as one that was to have nine, and return the copy."""
    shutil.copytree(run, copy)
    path = copy / run_folder.CONFIG
    config = json.loads(path.read_text())
    config["train"]["epochs"] = 9
    path.write_text(json.dumps(config))
    return copy


def restored(config: ConfigDict, run: Path, which: str = "latest") -> restoring.Restored:
    """The latest or best checkpoint of a run."""
    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        saved = restoring.restore(manager, which, setup.checkpoint_tree(config), Devices().replicated)
    assert saved is not None
    return saved
