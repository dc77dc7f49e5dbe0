"""A config for tests of the commands: one epoch of the tiny network."""

from ml_collections import ConfigDict

from tests.small_runs import tiny_config


def get_config() -> ConfigDict:
    config = tiny_config()
    config.optim.clip_norm = 0.0
    config.train.epochs = 1
    config.train.batch_size = 256
    return config
