"""Fine-tuning of `base` on images of your own, imported by `fer-jax import` (docs/own_data.md).

python -m fer_jax.main --config configs/finetune.py

From 161 images of three classes it took 34 to 60 seconds on two CPU cores next to other work (benchmarks/finetune.py).
On other validation images of FER+ accuracy was 0.0 to 3.4 % below that of `base` where it chooses among the three
alone; on images unlike FER2013's, balanced accuracy rose from 54.7 to 70.4 % (60.7 for `base` among the three).
"""

from ml_collections import ConfigDict

import fer_jax


def get_config() -> ConfigDict:
    """Return the config: the network of configs/base.py, of which the last stage and the classifier are trained."""
    config = fer_jax.default_config()
    config.augment.recipe = "strong"
    config.model.name = "resnet14"
    config.model.dropout = 0.2
    config.model.antialias = True
    config.model.symmetric = True
    config.optim.name = "adamw"
    config.optim.learning_rate = 3e-4
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.9
    config.optim.freeze = (
        *("ConvBlock_0", "ConvBlock_1", "ConvBlock_2", "ConvBlock_3"),
        *("ResidualBlock_0", "ResidualBlock_1", "ResidualBlock_2"),
    )
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.train.init_from = "base"
    config.train.epochs = 15
    config.train.batch_size = 32
    return config
