"""A search for the augmentation and regularisation of the small residual network, four epochs a trial.

python -m fer_jax.tune --config configs/tune.py --trials 50 --storage sqlite:///experiments/tune.db
python -m fer_jax.main --config experiments/tune/tuned.py --config.train.epochs=20 --config.data.drop_repeats=False

A trial has at most four epochs: some 6 minutes, at the 28 that twenty epochs of configs/small.py take. There is
no accuracy to quote: only a smaller search has been run to its end (docs/experiments.md).
"""

from ml_collections import ConfigDict

import fer_jax
from fer_jax.search_space import Range, Search


def get_config() -> ConfigDict:
    """Return the values of all fields that are not searched."""
    config = fer_jax.default_config()
    config.data.label_mode = "crossentropy"
    # Duplicates of validation images in training would favour networks that memorise them.
    config.data.drop_repeats = True
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
    # A whole epoch of warm-up would be a quarter of the trial.
    config.schedule.warmup_epochs = 0.5
    config.train.epochs = 4
    config.train.batch_size = 128
    return config


def get_search() -> Search:
    """Return the searched fields by their dotted names: numbers as a Range, other values as a list of choices."""
    return Search(
        space={
            "data.label_mode": ["crossentropy", "probability", "majority"],
            "augment.recipe": ["emotion_cnn", "ferplus", "strong"],
            "model.dropout": Range(0.0, 0.5),
            "optim.learning_rate": Range(5e-4, 2e-2, log=True),
            "optim.weight_decay": Range(1e-3, 0.2, log=True),
            "optim.clip_norm": [0.0, 1.0],
            "optim.ema_decay": [0.0, 0.99, 0.998],
            "train.batch_size": [64, 128, 256],
        },
        # The score of a trial is the mean over this many seeds. The standard error of one seed is 0.6 %: enough to find
        # the region, not to rank its best points.
        seeds=1,
        # After this many epochs a trial is pruned if its best epoch is below the median of the others so far.
        grace_epochs=2,
        # No trial is pruned before this many are finished.
        startup_trials=5,
    )
