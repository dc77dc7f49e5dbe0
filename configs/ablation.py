"""Ablations: one change at a time to a reference of ten epochs, an older configs/small.py, for a GPU.

python -m fer_jax.sweep --config configs/ablation.py --variants reference --seeds 0 1 2 --workdir experiments/ablation
python -m fer_jax.sweep --config configs/ablation.py --seeds 0 1 2 --workdir experiments/ablation

The first command trains the teachers of the variant `taught`, which reads them from that folder. The reference, AdamW
with the recipe ferplus and pooling without a blur, reached 84.1 % on validation by majority (five runs, two of them on
the GPU); docs/experiments.md has the table. Six processes of it trained 62 runs in 8 minutes on a shared H100.

On a CPU core a run takes some 15 minutes, half an hour on a busy machine; `wide` and `size_64` take longer. Add
--config.augment.renderer=host --config.train.steps_per_call=1 --config.model.dtype=float32 there.
"""

from ml_collections import ConfigDict

import fer_jax


def get_config() -> ConfigDict:
    """Return the reference, which all variants start from."""
    config = fer_jax.default_config()
    config.data.label_mode = "crossentropy"
    config.augment.recipe = "ferplus"
    config.augment.renderer = "device"
    config.model.dropout = 0.2
    config.model.dtype = "bfloat16"
    config.optim.name = "adamw"
    config.optim.learning_rate = 0.004
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.998
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.train.epochs = 10
    config.train.batch_size = 128
    # An epoch in one call: 27,953 images in batches of 128.
    config.train.steps_per_call = 218
    return config


def get_variants() -> dict[str, dict]:
    """Return the changed fields of each variant by its name; the first variant is the reference of the comparison."""
    references = tuple(f"experiments/ablation/reference/seed{seed}" for seed in range(3))
    return {
        "reference": {},
        # targets
        "majority": {"data.label_mode": "majority"},
        "probability": {"data.label_mode": "probability"},
        "multi_target": {"data.label_mode": "multi_target"},
        "mixture": {"data.label_mode": "mixture"},
        "temperature_0.7": {"data.temperature": 0.7},
        "temperature_1.5": {"data.temperature": 1.5},
        "smoothing": {"data.smoothing": 0.1},
        "taught": {"data.teachers": references},
        "balance": {"data.balance": 0.5},
        "logit_adjustment": {"data.logit_adjustment": 0.5},
        "drop_repeats": {"data.drop_repeats": True},
        # images
        "no_augmentation": {"augment.recipe": "none"},
        "flip": {"augment.recipe": "flip"},
        "emotion_cnn": {"augment.recipe": "emotion_cnn"},
        "strong": {"augment.recipe": "strong"},
        "photo": {"augment.recipe": "photo"},
        "zoom": {"augment.recipe": "zoom"},
        "light": {"augment.recipe": "light"},
        "blur": {"augment.recipe": "blur"},
        "jpeg": {"augment.recipe": "jpeg"},
        "erase": {"augment.erase": 0.5},
        "mixup": {"augment.mixup": 0.2},
        "cutmix": {"augment.cutmix": 0.5},
        "ferplus_pixels": {"image.normalize": "ferplus"},
        "size_56": {"image.size": 56},
        "size_64": {"image.size": 64},
        # network
        "no_dropout": {"model.dropout": 0.0},
        "dropout_0.4": {"model.dropout": 0.4},
        "stochastic_depth": {"model.stochastic_depth": 0.1},
        "squeeze_excite": {"model.squeeze_excite": True},
        "antialias": {"model.antialias": True},
        "no_residual": {"model.depth": 0},
        "deep": {"model.depth": 2},
        "narrow": {"model.width": 0.5},
        "wide": {"model.width": 2.0},
        # optimization
        "sgd": {"optim.name": "sgd", "optim.learning_rate": 0.1, "optim.weight_decay": 5e-4},
        "lion": {
            "optim.name": "lion",
            "optim.b2": 0.99,
            "optim.learning_rate": 5e-4,
            "optim.weight_decay": 0.5,
        },
        "muon": {"optim.name": "muon", "optim.momentum": 0.95},
        "no_average": {"optim.ema_decay": 0.0},
        "swa": {"optim.ema_decay": 0.0, "optim.swa_epochs": 4},
    }
