"""The fields of a config, each with its meaning and its neutral value: what is off, plain or usual.

A recipe starts from `default_config()` and sets every field in which it differs; see configs/base.py.
`fer_jax.training.checks` has the rule of each field.
"""

from ml_collections import ConfigDict


def default_config() -> ConfigDict:
    """The neutral config. It is locked: a field that it does not have cannot be set."""
    config = ConfigDict()

    # Fixes weights, batches, augmentation and dropout: one seed, one run.
    config.seed = 0

    config.data = ConfigDict()
    # The folder that generate_training_data.py wrote.
    config.data.dir = "data"
    # The rule that turns votes into training targets: majority, probability, crossentropy or multi_target (the four of
    # the FER+ paper), mixture, clean or argmax; see fer_jax/data/labels.py. Validation is always by majority.
    config.data.label_mode = "majority"
    # Targets p become p^(1 / temperature), normalised: below 1 the largest class counts for more, above 1 for less.
    config.data.temperature = 1.0
    # The weight of a uniform distribution over the eight classes in each target, applied after the temperature. Both
    # are for every label mode but multi_target; in probability the labels are drawn from the result.
    config.data.smoothing = 0.0
    # Training images are drawn in proportion to n^-balance, n being the size of their class, with replacement: at 1
    # every class as often as the others. 0: every image once per epoch.
    config.data.balance = 0.0
    # In training the loss sees logits + logit_adjustment x log prior (the prior is the mean target of the images that
    # are drawn), so that the logits themselves favour rare classes. 0: off.
    config.data.logit_adjustment = 0.0
    # Run folders, or names of shipped networks, of fully trained teachers (self-distillation). Not for multi_target.
    config.data.teachers = ()
    # The weight of the teachers' mean prediction, for the image and its mirror image, in each target.
    config.data.teacher_share = 0.5
    # Leave out training images with a duplicate or near-duplicate in validation or test (fer_jax/data/duplicates.py).
    config.data.drop_repeats = False

    config.image = ConfigDict()
    # Side of the network's input in pixels, a multiple of 8, at least 16. The stored images have 48.
    config.image.size = 48
    # scale: pixel values to -1..1. ferplus: histogram equalisation, plane removal, unit variance.
    config.image.normalize = "scale"

    config.augment = ConfigDict()
    # none, flip, emotion_cnn, ferplus, zoom, light, blur, jpeg, strong or photo; see fer_jax/data/recipes.py.
    config.augment.recipe = "none"
    # The probability that a rectangle of 2 to 20 % of a training image is erased: it gets the image's mean.
    config.augment.erase = 0.0
    # Training images and targets are mixed in pairs, with weights from Beta(mixup, mixup). 0: off. Not for
    # multi_target.
    config.augment.mixup = 0.0
    # The probability that a rectangle of a training image comes from another image, whose target counts in proportion
    # to the area (CutMix). Not for multi_target, and not together with mixup.
    config.augment.cutmix = 0.0
    # Where augmented images are rendered: host (numpy, in a thread next to the step) or device (in the step, from the
    # stored images, all of which are kept on the device).
    config.augment.renderer = "host"

    config.model = ConfigDict()
    # emotion_cnn, vgg13, resnet_tiny, resnet_small or resnet9; see fer_jax/models/registry.py.
    config.model.name = "resnet_small"
    # The fraction of activations dropped in training before the classifier (elsewhere: see the model).
    config.model.dropout = 0.0
    # The type that layers compute in: float32 or bfloat16. Weights, statistics and logits are float32 either way.
    config.model.dtype = "float32"
    # The fields from here on are for the residual networks. A factor on the widths of all layers, which are rounded to
    # multiples of 8.
    config.model.width = 1.0
    # A factor on the number of residual blocks; 0: none.
    config.model.depth = 1
    # Squeeze-and-excitation: weight the channels of every residual block by a function of their means.
    config.model.squeeze_excite = False
    # Blur before the maps are downsampled, so that a shift of the face by one pixel changes less.
    config.model.antialias = False
    # Stochastic depth: the probability that the last residual block is left out in training, image by image. Earlier
    # blocks have less, in proportion to their depth.
    config.model.stochastic_depth = 0.0

    config.optim = ConfigDict()
    # adam, adamw (the same: weight_decay makes the difference), sgd, lion or muon (for convolutions; the other weights
    # use Adam).
    config.optim.name = "adam"
    # Before the schedule's factor.
    config.optim.learning_rate = 1e-3
    # Adam's decay rates of the first and second moment, or Lion's, whose authors set b2 to 0.99.
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    # The momentum of Muon or SGD (0.9 is usual in SGD), and Nesterov's form of it.
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    # Decoupled decay of kernels as in AdamW, times the learning rate.
    config.optim.weight_decay = 0.0
    # L2 on kernels: added to the gradient.
    config.optim.l2 = 0.0
    # The largest global norm of the gradient; 0: no clipping.
    config.optim.clip_norm = 0.0
    # Decay of the moving average of weights that validation and predictions use; 0: none.
    config.optim.ema_decay = 0.0
    # Stochastic weight averaging: the plain mean over the steps of this many last epochs, instead of ema_decay; 0: off.
    config.optim.swa_epochs = 0

    config.schedule = ConfigDict()
    # constant, step or cosine.
    config.schedule.name = "constant"
    # Linear warm-up from zero.
    config.schedule.warmup_epochs = 0.0
    # cosine: the factor at the end.
    config.schedule.final_scale = 0.0
    # step: from epoch boundaries[i] on the factor is scales[i].
    config.schedule.boundaries = ()
    config.schedule.scales = ()

    config.train = ConfigDict()
    # A run folder, or the name of a shipped network, whose weights training starts from; "": fresh weights.
    config.train.init_from = ""
    # Passes over the training images.
    config.train.epochs = 20
    # Over all devices.
    config.train.batch_size = 128
    config.train.eval_batch_size = 256
    # With augment.renderer=device: the number of steps in one call of the device. On a GPU some hundred keep it busy. On
    # a CPU leave it at 1, since XLA is slow in loops there. The rest of an epoch is a shorter call, compiled separately.
    # A signal waits for up to two calls.
    config.train.steps_per_call = 1
    # Stop after this many epochs without a better validation accuracy; 0: never.
    config.train.patience = 0

    return config.lock()
