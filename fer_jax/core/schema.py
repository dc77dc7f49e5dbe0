"""The fields of a config, each with its meaning and its neutral value: off, plain or usual.

A recipe starts from `default_config()` and sets every field in which it differs; see configs/base.py.
`fer_jax.training.checks` has the rule of each field.
"""

from ml_collections import ConfigDict


def default_config() -> ConfigDict:
    """Return the neutral config.

    It takes any name and value: `core.config.load` and training check them, with an error that names the field.
    """
    config = ConfigDict(type_safe=False)

    # Determines weights, batches, augmentation and dropout: the same seed gives the same run.
    config.seed = 0
    config.data = _data()
    config.image = _image()
    config.augment = _augment()
    config.model = _model()
    config.optim = _optim()
    config.schedule = _schedule()
    config.train = _train()
    return config


def _data() -> ConfigDict:
    """The data and the training targets."""
    data = ConfigDict(type_safe=False)
    # The folder that generate_training_data.py wrote.
    data.dir = "data"
    # The rule that turns votes into training targets: majority, probability, crossentropy or multi_target (the four of
    # the FER+ paper), mixture, clean or argmax; see fer_jax/data/labels.py. Validation is always by majority.
    data.label_mode = "majority"
    # Targets p become p^(1 / temperature), normalised: below 1 the largest class counts for more, above 1 for less.
    data.temperature = 1.0
    # The weight of a uniform distribution over the eight classes in each target, applied after the temperature. Both
    # work with every label mode except multi_target. With probability, labels are drawn from the result.
    data.smoothing = 0.0
    # Training images are drawn with replacement, in proportion to n^-balance, where n is the size of their class. At 1
    # all classes are equally frequent; at 0 every image is used once per epoch.
    data.balance = 0.0
    # The training loss uses logits + logit_adjustment x log prior, where the prior is the mean target of the images
    # drawn. The logits themselves then favour rare classes. 0: off.
    data.logit_adjustment = 0.0
    # Run folders, or names of shipped networks, of fully trained teachers (self-distillation), or files of their
    # predictions: taught.npz in the folder of a run that had teachers, best/taught.npz for those of a shipped network.
    # Not for multi_target.
    data.teachers = ()
    # The weight of the teachers' mean prediction, for the image and its mirror image, in each target.
    data.teacher_share = 0.5
    # Leave out training images with a duplicate or near-duplicate in validation or test (fer_jax/data/duplicates.py).
    data.drop_repeats = False
    # The fraction of the training images that is used, drawn by the seed: for learning curves. With one seed a smaller
    # part lies in a larger one.
    data.fraction = 1.0
    return data


def _image() -> ConfigDict:
    """The input of the network."""
    image = ConfigDict(type_safe=False)
    # The side of the network's input in pixels, a multiple of 8, at least 16. Stored images have 48.
    image.size = 48
    # scale: pixel values to -1..1. ferplus: histogram equalisation, plane removal, unit variance.
    image.normalize = "scale"
    return image


def _augment() -> ConfigDict:
    """The augmentation of training images."""
    augment = ConfigDict(type_safe=False)
    # none, flip, emotion_cnn, ferplus, zoom, light, blur, jpeg, strong, photo or camera; see fer_jax/data/recipes.py.
    augment.recipe = "none"
    # The probability that a rectangle of 2 to 20 % of a training image is set to the image's mean.
    augment.erase = 0.0
    # Training images and targets are mixed in pairs, with weights from Beta(mixup, mixup). 0: off. Not for
    # multi_target.
    augment.mixup = 0.0
    # The probability that a rectangle of a training image comes from another image, whose target counts in proportion
    # to the area (CutMix). Not for multi_target, and not together with mixup.
    augment.cutmix = 0.0
    # The recipe of the last epochs, without erasing and mixing: a network that has learned on strongly changed images
    # becomes used to images as they are.
    augment.final_recipe = "none"
    # The number of these epochs.
    augment.final_epochs = 0
    # The place where augmented images are rendered: host (numpy, in a thread next to the step) or device (in the step,
    # from the stored images, which are all kept on the device).
    augment.renderer = "host"
    return augment


def _model() -> ConfigDict:
    """The network."""
    model = ConfigDict(type_safe=False)
    # emotion_cnn, vgg13, resnet_tiny, resnet_small, resnet14 or resnet9; see fer_jax/models/registry.py.
    model.name = "resnet_small"
    # The fraction of activations dropped in training before the classifier; some models drop elsewhere too.
    model.dropout = 0.0
    # The type that layers compute in: float32 or bfloat16. Weights, statistics and logits are float32 either way.
    model.dtype = "float32"
    # This field and the next ones are for residual networks. A factor on the widths of all layers, which are rounded
    # to multiples of 8.
    model.width = 1.0
    # A factor on the number of residual blocks; 0: none.
    model.depth = 1
    # Squeeze-and-excitation: weight the channels of every residual block by a function of their means.
    model.squeeze_excite = False
    # Blur the maps before they are downsampled: the output then depends less on a shift of the face by one pixel.
    model.antialias = False
    # A face and its mirror image have the same logits: channels come in pairs with mirrored kernels, so layers of the
    # same width have half the weights. See fer_jax/models/symmetry.py.
    model.symmetric = False
    # Stochastic depth: the probability that the last residual block is skipped for an image in training. Earlier
    # blocks have a smaller one, in proportion to their depth.
    model.stochastic_depth = 0.0
    return model


def _optim() -> ConfigDict:
    """The optimizer."""
    optim = ConfigDict(type_safe=False)
    # adam, adamw (the same; weight_decay makes the difference), sgd, lion or muon (for convolutions; all other weights
    # use Adam).
    optim.name = "adam"
    # The learning rate before the schedule's factor.
    optim.learning_rate = 1e-3
    # The decay rates of the first and second moment of Adam, or of Lion, whose authors set b2 to 0.99.
    optim.b1 = 0.9
    optim.b2 = 0.999
    # The momentum of Muon or SGD (0.9 is usual in SGD), and Nesterov's form of it.
    optim.momentum = 0.9
    optim.nesterov = True
    # The decoupled weight decay of kernels as in AdamW, times the learning rate.
    optim.weight_decay = 0.0
    # The L2 penalty on kernels, added to the gradient.
    optim.l2 = 0.0
    # The largest global norm of the gradient; 0: no clipping.
    optim.clip_norm = 0.0
    # The decay of the moving average of weights that validation and predictions use; 0: no average.
    optim.ema_decay = 0.0
    # Stochastic weight averaging: the mean over the steps of this many last epochs, instead of ema_decay; 0: off.
    optim.swa_epochs = 0
    # The layers whose weights stay as they are, by their names, for example ("ConvBlock_0",). Their batch statistics
    # follow the images.
    optim.freeze = ()
    return optim


def _schedule() -> ConfigDict:
    """The factor on the learning rate over the run."""
    schedule = ConfigDict(type_safe=False)
    # constant, step or cosine.
    schedule.name = "constant"
    # The length of the linear warm-up from zero.
    schedule.warmup_epochs = 0.0
    # cosine: the last factor.
    schedule.final_scale = 0.0
    # step: from epoch boundaries[i] on the factor is scales[i].
    schedule.boundaries = ()
    schedule.scales = ()
    return schedule


def _train() -> ConfigDict:
    """The length of the run and the sizes of batches."""
    train = ConfigDict(type_safe=False)
    # The run folder, or the name of a shipped network, with the weights to start from; "": fresh weights.
    train.init_from = ""
    # Passes over the training images.
    train.epochs = 20
    # The batch sizes of training and validation, over all devices.
    train.batch_size = 128
    train.eval_batch_size = 256
    # The number of steps in one call of the device, if augment.renderer is device. A GPU needs some hundred to be busy.
    # Leave it at 1 on a CPU, where XLA is slow in loops. The rest of an epoch is a shorter call, compiled separately.
    # A signal takes effect after up to two calls.
    train.steps_per_call = 1
    # Stop after this many epochs without a better validation accuracy; 0: never.
    train.patience = 0
    return train
