"""A search for tests of the commands: the tiny network; one of the learning rates diverges."""

from ml_collections import ConfigDict

from fer_jax.search_space import Search
from tests import quick


def get_config() -> ConfigDict:
    config = quick.get_config()
    config.train.epochs = 2
    config.seed = 1  # seed 0 learns nothing in two epochs
    return config


def get_search() -> Search:
    # The first rate is that of quick.py, whose compiled programs its trials share.
    return Search(
        space={"optim.learning_rate": [0.003, 1e30], "augment.recipe": ["none", "emotion_cnn"]},
    )
