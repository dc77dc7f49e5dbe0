"""The recipe of `make demo`, for the drawn sample faces.

make sample
python -m fer_jax.main --config configs/sample.py

Ten epochs took 2 minutes on two CPU cores, next to another training. `make demo` took 4 minutes from a fresh clone,
installation included. The best epoch of seed 0 reached 81.3 % validation accuracy; the largest class has 30.4 %.
"""

from ml_collections import ConfigDict

import fer_jax


def get_config() -> ConfigDict:
    """Return the config: a tiny residual network, ten short epochs."""
    config = fer_jax.default_config()
    config.data.dir = "sample/data"
    config.data.label_mode = "crossentropy"
    config.augment.recipe = "ferplus"
    config.model.name = "resnet_tiny"
    config.model.dropout = 0.2
    config.optim.name = "adamw"
    config.optim.learning_rate = 0.003
    config.optim.momentum = 0.95
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.998
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.train.epochs = 10
    config.train.batch_size = 32
    return config
