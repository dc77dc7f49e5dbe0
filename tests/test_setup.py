"""The augmentation of each epoch, as the config sets it."""

import fer_jax
from fer_jax.data.batching import Augmentation
from fer_jax.training import setup


def test_the_last_epochs_have_the_final_recipe_alone() -> None:
    config = fer_jax.load_config("base")
    config.train.epochs = 5
    config.augment.update(recipe="camera", erase=0.25, mixup=0.2, cutmix=0.0, final_recipe="flip", final_epochs=2)
    first, last = Augmentation("camera", 0.25, 0.2, 0.0), Augmentation("flip", 0.0, 0.0, 0.0)
    assert [setup.augmentation(config, epoch) for epoch in range(5)] == [first] * 3 + [last] * 2
    config.augment.final_epochs = 0
    assert [setup.augmentation(config, epoch) for epoch in range(5)] == [first] * 5
