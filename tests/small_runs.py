"""What tests of training runs share: a run of three epochs of a network that compiles in a moment."""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import jax
import pytest
from fer_jax.experiment import build
from ml_collections import ConfigDict

from configs import sample
from fer_jax.core.devices import Devices
from fer_jax.models import registry
from fer_jax.training import checkpoint
from fer_jax.training import metrics as metrics_lib


@contextmanager
def small_model() -> Iterator[None]:
    """The residual network, small, among the models while this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.MODELS, "small", partial(registry.ResNet, widths=(4, 8), blocks=(0, 0)))
        yield


def small_config(sample_dir: Path) -> ConfigDict:
    config = sample.get_config()
    config.data.dir = str(sample_dir)
    config.model.name = "small"
    config.schedule.name = "constant"  # one program, however many epochs
    config.train.epochs = 3
    config.train.batch_size = 128
    config.train.eval_batch_size = 100
    return config


def quiet(line: str) -> None:
    pass


def interrupt(after: str | tuple[str, ...] = "epoch 1", by: int = signal.SIGTERM) -> Callable[[str], None]:
    """A listener that raises a signal where the run says a line that begins so."""

    def listen(line: str) -> None:
        if line.startswith(after):
            signal.raise_signal(by)

    return listen


def restored(config: ConfigDict, run: Path, which: str = "latest") -> checkpoint.Restored:
    """What a checkpoint of a run holds."""
    like = jax.eval_shape(lambda: {"state": build(config).init(), "totals": metrics_lib.zeros()})
    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        found = checkpoint.restore(manager, which, like, Devices().replicated)
    assert found is not None
    return found
