"""A small residual network, some 60 % of the work of configs/base.py: it was `base` until version 0.2.

python -m fer_jax.main --config configs/small.py

Accuracy on validation by majority after the last epoch: 87.2, 87.4, 87.8, 88.1 and 87.5 % (seeds 0 to 4;
docs/results.md). Today's code reached 87.4, 87.8 and 87.7 % (seeds 0 to 2) in 27, 29 and 29 minutes on two cores of an
AMD EPYC (docs/performance.md).
"""

from ml_collections import ConfigDict

import fer_jax


def get_config() -> ConfigDict:
    """Return the config: strong augmentation, Muon, twenty epochs."""
    config = fer_jax.default_config()
    config.data.label_mode = "crossentropy"
    config.augment.recipe = "strong"
    config.model.dropout = 0.2
    config.model.antialias = True
    config.optim.name = "muon"
    config.optim.learning_rate = 0.004
    config.optim.momentum = 0.95
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.998
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.train.epochs = 20
    config.train.batch_size = 128
    return config
