"""A config for tests of the commands: one epoch of the run of `tests.small_runs`, whose compiled programs it shares."""

from pathlib import Path

from ml_collections import ConfigDict

from tests.small_runs import small_config


def get_config() -> ConfigDict:
    config = small_config(Path("named by --config.data.dir"))
    config.train.epochs = 1
    return config
