"""The drawn sample faces, in about a minute: what `make demo` trains.

python -m fer_jax.main --config configs/sample.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The tiny residual network, 10 short epochs."""
    config = base.get_config()
    config.data.dir = "sample/data"
    config.model.name = "resnet_tiny"
    config.train.epochs = 10
    config.train.batch_size = 32
    return config
