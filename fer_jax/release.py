"""Write a small folder of a trained run to ship: config, weights and model card, no checkpoints.

The folder gets config.json (as in the run), weights.safetensors (the weights that predictions use;
no pickle), network.onnx (their graph, where the extra export is installed), taught.npz (what its
teachers predict, if the run had any) and README.md, the model card. It can be used wherever a run
folder can. The metrics of the card are computed from the released files, on the validation images.
"""

from collections.abc import Sequence

from fer_jax.core import cli, run_folder

EXAMPLES = [
    "--run experiments/base --out experiments/mine",
    "--run experiments/base --out experiments/mine --checkpoint latest --half",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and release."""
    parser = cli.parser("release", __doc__, EXAMPLES)
    parser.add_argument("--run", required=True, metavar="RUN", help="the run folder, or the name of a shipped network")
    parser.add_argument(
        "--out", type=cli.deep_output_folder, required=True, metavar="DIR", help="the folder to write or replace"
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--data", metavar="DIR", help="the data folder (default: that of the run's training)")
    parser.add_argument("--half", action="store_true", help="store the kernels as float16: half the size")
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="also measure accuracy on corrupted images for the card, as evaluate --robustness does and as slowly",
    )
    args = parser.parse_args(argv)
    run = run_folder.find(args.run)
    run_folder.check_replaceable(args.out)  # a wrong folder is reported before jax is imported
    run_folder.read_config(run)

    from fer_jax.core import runtime
    from fer_jax.deploy.release import release_and_print

    runtime.start()
    release_and_print(run, args.out, args.checkpoint, args.data, args.half, args.robustness)
    return 0


if __name__ == "__main__":
    cli.run(main)
