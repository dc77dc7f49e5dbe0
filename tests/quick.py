"""A config for tests of the commands: one epoch of a network that compiles in a moment."""

from functools import partial

from ml_collections import ConfigDict

from configs import sample
from fer_jax.models import registry

registry.MODELS["quick"] = partial(registry.ResNet, widths=(4, 8), blocks=(0, 0))


def get_config() -> ConfigDict:
    config = sample.get_config()
    config.model.name = "quick"
    config.optim.clip_norm = 0.0
    config.schedule.name = "constant"  # one program, however many epochs
    config.train.epochs = 1
    config.train.batch_size = 256
    return config
