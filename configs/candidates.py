r"""Candidates for the next configs/best.py and configs/base.py: a queue for a GPU that is lent for some minutes.

python -m fer_jax.sweep --config configs/candidates.py --workdir experiments/candidates --seeds 0 1 2 3 4 \
    --parallel 6 --minutes 13 --robustness

Every candidate is trained with the first seed before the second begins. After 13 minutes all unfinished runs are saved,
and the same command goes on with them. Choose by accuracy without duplicates, and by that on corrupted images: the
columns majority_without_duplicates and corrupted of results.csv. "taught" and "base" are configs/taught.py and
configs/base.py for a GPU. They were trained on CPUs alone, in float32 with the host renderer (docs/results.md). Of the
others no accuracy is known.
"""

from ml_collections import ConfigDict

import fer_jax


def get_config() -> ConfigDict:
    """Return the reference, the recipe of configs/taught.py, which all candidates start from."""
    config = fer_jax.default_config()
    config.data.label_mode = "crossentropy"
    config.data.teachers = ("best/taught.npz",)
    config.data.teacher_share = 0.6
    config.augment.recipe = "camera"
    config.augment.erase = 0.25
    config.augment.final_recipe = "strong"
    config.augment.final_epochs = 8
    config.augment.renderer = "device"
    config.model.name = "resnet14"
    config.model.width = 1.5
    config.model.dropout = 0.2
    config.model.dtype = "bfloat16"
    config.model.antialias = True
    config.model.symmetric = True
    config.optim.name = "muon"
    config.optim.learning_rate = 0.004
    config.optim.momentum = 0.95
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.998
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.train.epochs = 24
    config.train.batch_size = 128
    # An epoch in one call: 27,953 images in batches of 128.
    config.train.steps_per_call = 218
    return config


def get_variants() -> dict[str, dict]:
    """Return the changed fields of each candidate by its name; the first is the reference of the comparison."""
    alone = {"data.teachers": (), "data.teacher_share": 0.5}  # the share of configs/base.py, which it leaves alone
    wide = {"model.width": 2.0}
    long = {"train.epochs": 60, "augment.final_epochs": 20}
    mild = {"augment.final_recipe": "emotion_cnn"}  # docs/experiments.md, "Twelve epochs more"
    return {
        "taught": {},
        "base": {**alone, "model.width": 1.0},
        "mild": {**mild, "train.epochs": 36},
        "base_mild": {**alone, **mild, "model.width": 1.0},
        "alone": alone,
        "wide": wide,
        "wide_alone": {**alone, **wide},
        "long": long,
        "wide_long": {**wide, **long},
        "wider_long": {**long, "model.width": 3.0},
        "resnet9_long": {**long, "model.name": "resnet9", "model.width": 1.0},
    }
