"""Candidates for the next configs/best.py and configs/base.py: a queue for a GPU that is lent for some minutes.

python -m fer_jax.sweep --config configs/candidates.py --seeds 0 1 2 3 4 --parallel 6 --minutes 13 --robustness

Every candidate is trained with the first seed before the second begins. After 13 minutes all unfinished runs are saved,
and the same command goes on with them. Choose by accuracy without duplicates, and by that on corrupted images: the
columns majority_without_duplicates and corrupted of results.csv. On a GPU only "best", which is configs/best.py, has
been trained to its end: 88.5 % by majority. "base" is configs/base.py for a GPU, and "base_wide" has twice its channels
in each layer; of both only configs/base.py was trained, on a CPU, in float32 with the host renderer (docs/results.md).
"""

from ml_collections import ConfigDict

import fer_jax


def get_config() -> ConfigDict:
    """Return the reference, the recipe of configs/best.py, which all candidates start from."""
    config = fer_jax.default_config()
    config.data.label_mode = "crossentropy"
    config.augment.recipe = "strong"
    config.augment.renderer = "device"
    config.model.name = "resnet9"
    config.model.dropout = 0.3
    config.model.dtype = "bfloat16"
    config.model.squeeze_excite = True
    config.model.antialias = True
    config.optim.name = "adamw"
    config.optim.learning_rate = 0.004
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.998
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.train.epochs = 30
    config.train.batch_size = 128
    # An epoch in one call: 27,953 images in batches of 128.
    config.train.steps_per_call = 218
    return config


def get_variants() -> dict[str, dict]:
    """Return the changed fields of each candidate by its name; the first is the reference of the comparison."""
    muon = {"optim.name": "muon", "optim.momentum": 0.95}
    camera = {"augment.recipe": "camera", "augment.erase": 0.25}
    strong_at_last = {"augment.final_recipe": "strong", "augment.final_epochs": 10}
    symmetric = {"model.symmetric": True, "model.squeeze_excite": False}
    base = {
        **muon,
        **camera,
        **symmetric,
        "augment.final_recipe": "strong",
        "augment.final_epochs": 8,
        "model.name": "resnet14",
        "model.dropout": 0.2,
        "train.epochs": 24,
    }
    return {
        "best": {},
        "best_muon": muon,
        "best_camera": camera,
        "best_muon_camera": {**muon, **camera},
        "best_muon_camera_strong": {**muon, **camera, **strong_at_last},
        "best_muon_camera_60": {**muon, **camera, "train.epochs": 60},
        "best_symmetric": {**muon, **camera, **strong_at_last, **symmetric},
        "base": base,
        "base_wide": {**base, "model.width": 2.0},
    }
