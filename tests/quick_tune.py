"""A search for tests of the commands: the tiny network; one of the learning rates diverges."""

from ml_collections import ConfigDict

from fer_jax.search_space import Search
from tests import quick


def get_config() -> ConfigDict:
    config = quick.get_config()
    config.train.epochs = 2
    config.train.batch_size = 64
    config.optim.ema_decay = 0.0
    config.model.dropout = 0.0
    return config


def get_search() -> Search:
    return Search(
        space={"optim.learning_rate": [0.05, 1e30], "augment.recipe": ["none", "emotion_cnn"]},
    )
