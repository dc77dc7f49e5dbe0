"""Ablations: one thing changed at a time in a short run of the tiny network.

python -m fer_jax.sweep --config configs/ablation.py --seeds 0 1 2 --workdir experiments/ablation

A run takes about 4 minutes on two CPU cores. It has not been run to its end yet: no accuracy to quote.
"""

from ml_collections import ConfigDict

from configs import fast


def get_config() -> ConfigDict:
    """What all variants share."""
    config = fast.get_config()
    config.train.epochs = 5
    return config


def get_variants() -> dict[str, dict]:
    """What differs, by the name of the variant; the others are compared with the first."""
    return {
        "reference": {},
        "majority": {"data.label_mode": "majority"},
        "probability": {"data.label_mode": "probability"},
        "multi_target": {"data.label_mode": "multi_target"},
        "temperature_0.7": {"data.temperature": 0.7},
        "temperature_1.5": {"data.temperature": 1.5},
        "smoothing": {"data.smoothing": 0.1},
        "balance": {"data.balance": 0.5},
        "logit_adjustment": {"data.logit_adjustment": 0.5},
        "no_flip": {"augment.recipe": "none"},
        "ferplus": {"augment.recipe": "ferplus"},
        "emotion_cnn": {"augment.recipe": "emotion_cnn"},
        "strong": {"augment.recipe": "strong"},
        "erase": {"augment.erase": 0.5},
        "mixup": {"augment.mixup": 0.2},
        "sgd": {"optim.name": "sgd", "optim.learning_rate": 0.1, "optim.weight_decay": 5e-4},
        "lion": {
            "optim.name": "lion",
            "optim.b2": 0.99,
            "optim.learning_rate": 5e-4,
            "optim.weight_decay": 0.5,
        },
        "muon": {"optim.name": "muon", "optim.momentum": 0.95, "optim.learning_rate": 5e-3},
        "no_average": {"optim.ema_decay": 0.0},
        "dropout": {"model.dropout": 0.2},
        "stochastic_depth": {"model.stochastic_depth": 0.1},
        "squeeze_excite": {"model.squeeze_excite": True},
        "antialias": {"model.antialias": True},
        "wide": {"model.width": 1.5},
        "ferplus_pixels": {"image.normalize": "ferplus"},
        "drop_repeats": {"data.drop_repeats": True},
    }
