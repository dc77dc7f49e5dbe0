"""Make a small folder of a trained run that can be shipped: config, weights and a model card, without checkpoints.

The folder gets config.json (as in the run), weights.safetensors (the weights that predictions use; no pickle) and
README.md, the model card. It can be used wherever a run folder can. The card's metrics are computed here, from the
released files, on the validation images.
"""

from collections.abc import Sequence
from pathlib import Path

from fer_jax.core import cli, run_folder

EXAMPLES = [
    "--run experiments/base --out experiments/released/mine",
    "--run experiments/base --out experiments/released/mine --checkpoint latest --half --data data",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and release."""
    parser = cli.parser("release", __doc__, EXAMPLES)
    parser.add_argument("--run", required=True, metavar="RUN", help="the run folder, or the name of a shipped network")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write, or to replace")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--data", metavar="DIR", help="the data folder (default: the one the run was trained on)")
    parser.add_argument("--half", action="store_true", help="keep the kernels in float16: half the size")
    args = parser.parse_args(argv)
    run = run_folder.find(args.run)
    run_folder.check_replaceable(args.out)  # a fault in the folders shows before jax is imported
    run_folder.read_config(run)

    from fer_jax.core import runtime
    from fer_jax.deploy.release import release_and_print

    runtime.start()
    release_and_print(run, args.out, args.checkpoint, args.data, args.half)
    return 0


if __name__ == "__main__":
    cli.run(main)
