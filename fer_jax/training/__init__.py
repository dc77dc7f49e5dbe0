"""The training step and all around it: losses, optimizers, metrics, checkpoints, checks of a config."""
