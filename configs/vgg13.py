"""The VGG13 of the FER+ paper (Barsoum et al. 2016, section 4), with the authors' training recipe, majority labels.

python -m fer_jax.main --config configs/vgg13.py

It needs a GPU: at 9 images/s, the median of ten steps on two busy CPU cores, 100 epochs of 25,057 images would take
77 hours. It has not been run, so there is no accuracy of ours to quote. The paper reports 83.85 +- 0.63 % on the test
images with these labels.

The learning rate is a tenth of the 0.05 in the authors' code (https://github.com/microsoft/FERPlus). Momentum in CNTK
keeps a mean of the gradients (unit gain); here it keeps a sum, ten times as large at 0.9. One difference remains: their
weights are initialised by Glorot's uniform rule, ours by He's normal one, as in all our networks.
"""

from ml_collections import ConfigDict

import fer_jax


def get_config() -> ConfigDict:
    """Return the config: SGD at 0.005, half after 20 and a tenth after 40 of 100 epochs, batch 32, input 64x64."""
    config = fer_jax.default_config()
    config.image.size = 64
    config.image.normalize = "ferplus"
    config.augment.recipe = "ferplus"
    config.model.name = "vgg13"
    config.model.dropout = 0.5
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.005
    config.optim.nesterov = False
    config.schedule.name = "step"
    config.schedule.boundaries = (20, 40)
    config.schedule.scales = (0.5, 0.1)
    config.train.epochs = 100
    config.train.batch_size = 32
    return config
