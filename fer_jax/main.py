"""Train a network on FER+ folders, or resume a run that was interrupted.

The run folder gets config.json, history.csv (one row an epoch), checkpoints/ (latest and best)
and TensorBoard event files. The same command resumes from the latest checkpoint. Any field of the
config can be overridden; fer_jax/core/schema.py explains all fields.

SIGTERM, Ctrl-C and a closed terminal save first; the exit status is then 143, 130 or 129.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fer_jax.core import cli, run_folder, supervisor
from fer_jax.core import config as config_lib

EXAMPLES = [
    "--config configs/base.py",
    "--config emotion_cnn --workdir experiments/seed1 --config.seed=1",
    "--config vgg13 --config.schedule.boundaries='(10, 15)'",
    "tensorboard --logdir experiments",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and train."""
    parser = cli.parser("main", __doc__, EXAMPLES, allow_abbrev=False)
    parser.add_argument(
        "--config",
        required=True,
        metavar="CONFIG",
        help="a config file, or the name of a shipped config, for example base",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="the run folder (default: experiments/<name of the config>)",
    )
    cli.add_overrides(parser, "sets a field, for example --config.train.epochs=3")
    args, overrides = parser.parse_known_args(argv)
    if supervisor.is_needed():
        return supervisor.supervise("main", argv)
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        from fer_jax.core import processes  # it imports jax

        return processes.together(partial(_train, args.config, overrides, args.workdir))
    return _train(args.config, overrides, args.workdir)


def _train(name: str, overrides: Sequence[str], workdir: Path | None) -> int:
    config = config_lib.load(name, overrides)  # a mistyped field shows before jax is imported
    run = workdir or run_folder.default_workdir(name)

    from fer_jax.core import runtime
    from fer_jax.train import train

    runtime.start()
    ending = train(config, run)
    if ending.finished and runtime.is_first_process():
        print(f"run folder: {run}; evaluate it with: {cli.command('evaluate')} --run {run} --split valid")
    return runtime.exit_status(ending.signal)


if __name__ == "__main__":
    cli.run(main)
