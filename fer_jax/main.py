"""Train a network on FER+ folders, or go on with a run that was interrupted.

The run folder gets config.json, checkpoints/ (latest and best) and TensorBoard event files. Starting again with
the same command resumes from the latest checkpoint. Any field of the config can be overridden.
"""

import argparse
from pathlib import Path

from fer_jax import cli

EXAMPLE = """examples:
  python -m fer_jax.main --config configs/base.py
  python -m fer_jax.main --config configs/emotion_cnn.py --workdir experiments/seed1 --config.seed=1
  tensorboard --logdir experiments
"""


def main() -> int:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.main",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="a config, one of configs/*.py")
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="the run folder (default: experiments/<name of the config>)",
    )
    # argparse would not list these: it only passes them on
    parser.add_argument_group("overrides", "--config.field=value sets a field, for example --config.train.epochs=3")
    args, overrides = parser.parse_known_args()

    from fer_jax import config as config_lib

    config = config_lib.load(args.config, overrides)
    run = args.workdir or Path("experiments") / Path(args.config).stem

    # jax takes a second to import: --help and a mistyped field need not wait for it
    import jax

    from fer_jax import devices
    from fer_jax.train import train

    devices.tune_cpu()
    devices.join()
    devices.cache_compilations()
    ending = train(config, run)
    if ending.finished and jax.process_index() == 0:
        print(f"run folder: {run}; evaluate it with: python -m fer_jax.evaluate --run {run} --split valid")
    return 0


if __name__ == "__main__":
    cli.run(main)
