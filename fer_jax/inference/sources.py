"""The networks that a run starts from and learns from: there, trained, and fit, before the run writes a file."""

from contextlib import closing
from pathlib import Path

from ml_collections import ConfigDict

from fer_jax.core import config as config_lib
from fer_jax.core import run_folder
from fer_jax.core.cli import command
from fer_jax.core.errors import UserError
from fer_jax.training import checkpoint, restoring
from fer_jax.training.early_stopping import ending

# Fields of config.model on which the weights do not depend.
_INDEPENDENT = ("dropout", "dtype", "stochastic_depth")


def check(config: ConfigDict) -> None:
    """Check the networks of `train.init_from` and `data.teachers`, by their configs and histories alone.

    Raises:
        UserError: a folder holds no run, a run has epochs left, a file of predictions is missing, or the network to
            start from is another one than the config's.
    """
    for name in config.data.teachers:
        if run_folder.is_predictions(name):
            run_folder.find_predictions(name)
        else:
            _check_trained("data.teachers", run_folder.find(name))
    if config.train.init_from:
        run = run_folder.find(config.train.init_from)
        theirs, ours = map(_of_weights, (run_folder.read_config(run), config))
        if theirs != ours:
            differences = config_lib.differences(theirs, ours)
            raise UserError(f"train.init_from={config.train.init_from} holds another network ({differences})")
        _check_trained("train.init_from", run)


def _check_trained(field: str, run: Path) -> None:
    """Raise a UserError if a run has not finished. Released networks have: somebody chose their epoch."""
    train = run_folder.read_config(run).train
    if run_folder.is_released(run):
        return
    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        history = restoring.history(manager)
    if not ending(history, train.epochs, train.patience):
        as_it_is = f", or release it as it is ({command('release')})" if history else ""
        raise UserError(
            f"{field}: {run} has trained {len(history)} of its {train.epochs} epochs; let it finish{as_it_is}"
        )


def _of_weights(config: ConfigDict) -> dict[str, dict]:
    """The fields on which the weights depend."""
    fields = config_lib.as_json(config)
    model = {name: value for name, value in fields["model"].items() if name not in _INDEPENDENT}
    return {"model": model, "image": fields["image"]}
