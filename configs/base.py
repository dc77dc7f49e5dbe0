"""The recipe to start from: a small residual network, on the whole vote distribution.

python -m fer_jax.main --config configs/base.py

Accuracy on validation by majority after the last epoch: 87.2, 87.4, 87.8, 88.1 and 87.5 % (seeds 0 to 4;
docs/results.md). A run took 49 minutes on two CPU cores, and 62 to 80 minutes on one with other programs on both.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Every field there is; the other configs start from these and change some."""
    config = ConfigDict()

    # Fixes weights, batches, augmentation and dropout: one seed, one run.
    config.seed = 0

    config.data = ConfigDict()
    # The folder that generate_training_data.py wrote.
    config.data.dir = "data"
    # How votes become training targets: majority, probability, crossentropy or multi_target (the four of the
    # FER+ paper), mixture, clean or argmax; see fer_jax/labels.py. Validation is always by majority.
    config.data.label_mode = "crossentropy"
    # Targets p become p^(1 / temperature), normalised: below 1 the favourite counts for more, above 1 for less.
    config.data.temperature = 1.0
    # Share of each target that is spread evenly over the eight classes, after that. Both are for every label mode but
    # multi_target; in probability the labels are drawn from what comes out.
    config.data.smoothing = 0.0
    # Draw training pictures in proportion to n^-balance, n being the size of their class, with replacement: at 1 every
    # class as often as the others. 0: every picture once per epoch.
    config.data.balance = 0.0
    # In training, logits + logit_adjustment x log prior go into the loss (the prior is the mean target of what is
    # drawn), so that the logits themselves favour rare classes; 0: none.
    config.data.logit_adjustment = 0.0
    # Run folders of networks, trained to the end, that teach this one (self-distillation). Not for multi_target.
    config.data.teachers = ()
    # Share of each target that is what the teachers say, on average, of the picture and of its mirror image.
    config.data.teacher_share = 0.5
    # Leave out the training pictures that stand in validation or test too, exactly or nearly (fer_jax/repeats.py).
    config.data.drop_repeats = False

    config.image = ConfigDict()
    # Side of the network's input in pixels, a multiple of 8 from 16 on; the stored pictures have 48.
    config.image.size = 48
    # scale: to -1..1. ferplus: histogram equalisation, plane removal, unit variance.
    config.image.normalize = "scale"

    config.augment = ConfigDict()
    # none, flip, emotion_cnn, ferplus, zoom, light, blur, jpeg, strong or photo; see fer_jax/recipes.py.
    config.augment.recipe = "strong"
    # The probability that a rectangle of 2 to 20 % of a training picture is erased: it gets the picture's mean.
    config.augment.erase = 0.0
    # Training pictures and targets are mixed in pairs, by shares from Beta(mixup, mixup); 0: not. Not for multi_target.
    config.augment.mixup = 0.0
    # The probability that a rectangle of a training picture is that of another, whose target counts in proportion to
    # the area (CutMix). Not for multi_target, and not together with mixup.
    config.augment.cutmix = 0.0
    # Who renders the augmented pictures: host (numpy, in a thread beside the step) or device (in the step, from the
    # stored pictures, all of which lie there).
    config.augment.renderer = "host"

    config.model = ConfigDict()
    # emotion_cnn, vgg13, resnet_tiny, resnet_small or resnet9; see fer_jax/models.py.
    config.model.name = "resnet_small"
    # Share of activations dropped in training before the classifier (where else: see the model).
    config.model.dropout = 0.2
    # What layers compute in: float32 or bfloat16. Weights, statistics and logits are float32 either way.
    config.model.dtype = "float32"
    # What follows is for the residual networks. A factor on the widths of all layers, which are rounded to multiples
    # of 8.
    config.model.width = 1.0
    # A factor on the number of residual blocks: 0 for none.
    config.model.depth = 1
    # Weigh the channels of every residual block by their means, squeeze-and-excitation.
    config.model.squeeze_excite = False
    # Blur before the maps are made smaller, so that a shift of the face by a pixel changes less.
    config.model.antialias = True
    # Stochastic depth: how probably the last residual block is left out in training, picture by picture; those before
    # it less, in proportion to their depth.
    config.model.stochastic_depth = 0.0

    config.optim = ConfigDict()
    # adam, adamw (the same: weight_decay makes the difference), sgd, lion or muon (for the convolutions; the other
    # weights go by Adam).
    config.optim.name = "muon"
    # Before the schedule's factor.
    config.optim.learning_rate = 4e-3
    # Adam's decay rates of the first and second moment; or Lion's, whose authors set b2 to 0.99.
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    # Muon's or SGD's momentum (0.9 is usual in SGD), and whether it is Nesterov's.
    config.optim.momentum = 0.95
    config.optim.nesterov = True
    # Decoupled decay of kernels, as AdamW's; times the learning rate.
    config.optim.weight_decay = 0.05
    # L2 on kernels: added to the gradient.
    config.optim.l2 = 0.0
    # Largest global norm of the gradient; 0: no clipping.
    config.optim.clip_norm = 1.0
    # Decay of the moving average of weights that validation and predictions use; 0: none.
    config.optim.ema_decay = 0.998
    # Instead of that: the plain mean over the steps of the last so many epochs (stochastic weight averaging); 0: not.
    config.optim.swa_epochs = 0

    config.schedule = ConfigDict()
    # constant, step or cosine.
    config.schedule.name = "cosine"
    # Linear warm-up from zero.
    config.schedule.warmup_epochs = 1.0
    # cosine: the factor that it ends at.
    config.schedule.final_scale = 0.0
    # step: from epoch boundaries[i] on the factor is scales[i].
    config.schedule.boundaries = ()
    config.schedule.scales = ()

    config.train = ConfigDict()
    # A run folder, or a released one, whose network the training begins with; "": with fresh weights.
    config.train.init_from = ""
    # Passes over the training pictures.
    config.train.epochs = 20
    # Over all devices.
    config.train.batch_size = 128
    config.train.eval_batch_size = 256
    # With augment.renderer=device: how many steps the device does without asking the host. On a GPU some hundred keep
    # it busy; on a CPU leave it at 1, for XLA is slow in loops there. What is left of an epoch is a shorter call,
    # compiled apart; a signal waits for up to two calls.
    config.train.steps_per_call = 1
    # Stop after so many epochs without a better validation accuracy; 0: never.
    config.train.patience = 0

    return config
