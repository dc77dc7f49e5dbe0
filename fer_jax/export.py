"""Write a trained network as one ONNX file, for programs without JAX and fer_jax.

The network in the file maps grey images of faces, cut out as in FER2013, to probabilities: `image`,
u8[batch, 48, 48], to `probability`, f32[batch, 8], in the order of `emotions` in the metadata. It
includes normalisation and softmax. The metadata also have the run, the step and, with --data, the
calibration temperature fitted on the validation images. The file is kept only if its probabilities
for a few images agree with the network's. Networks with another input size than 48x48, or with the
normalisation "ferplus", cannot be exported.

Read the network's model card before you build on it. It says how often the network is wrong and
what it must not be used for.
"""

from collections.abc import Sequence

from fer_jax.core import cli, run_folder

EXAMPLES = [
    "--run base --out experiments/base.onnx",
    "--run experiments/base --out experiments/base.onnx --data data",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and export."""
    parser = cli.parser("export", __doc__, EXAMPLES)
    parser.add_argument("--run", required=True, metavar="RUN", help="a run folder, or the name of a shipped network")
    parser.add_argument(
        "--out", type=cli.output_file, required=True, metavar="FILE", help="the file to write or replace"
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--data", metavar="DIR", help="the data folder, to fit the calibration temperature on")
    args = parser.parse_args(argv)
    run = run_folder.find(args.run)
    run_folder.read_config(run)  # a missing run is reported before jax is imported

    from fer_jax.core import runtime
    from fer_jax.deploy.onnx_export import export

    runtime.start()
    export(run, args.checkpoint, args.out, args.data)
    return 0


if __name__ == "__main__":
    cli.run(main)
