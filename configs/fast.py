"""The quickest recipe: as accurate as the project that emotion_cnn comes from, in minutes on a laptop.

python -m fer_jax.main --config configs/fast.py
python -m fer_jax.evaluate --run experiments/fast --protocol clean --checkpoint latest

On one CPU core, start and compilation included, three seeds took 319, 279 and 381 seconds beside other work and reached
83.3, 83.0 and 82.5 % on clean validation pictures, 82.2, 81.7 and 81.3 % by majority, after the last epoch
(docs/results.md); on two cores with nothing beside seed 0 took 226. The project that emotion_cnn comes from reports
82.4 % on clean validation pictures.
"""

from ml_collections import ConfigDict

import fer_jax


def get_config() -> ConfigDict:
    """The tiny residual network, five epochs in batches of 128, pictures mirrored at most, no dropout."""
    config = fer_jax.default_config()
    config.data.label_mode = "crossentropy"
    config.augment.recipe = "flip"
    config.model.name = "resnet_tiny"
    config.optim.name = "muon"
    config.optim.learning_rate = 0.01
    config.optim.momentum = 0.95
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.995
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.train.epochs = 5
    return config
