"""Write a trained network as one ONNX file, for programs without JAX and fer_jax.

The network in the file maps grey images of faces, cut out as in FER2013, to probabilities: `image`,
u8[batch, 48, 48], to `probability`, f32[batch, 8], in the order of `emotions` in the metadata. It
includes normalisation and softmax. The metadata also have the crop, the run, the step, the version
and the accuracy on validation; with --data, the calibration temperature too. The file is kept only
if its probabilities for a few images agree with the network's.

--precision float16 halves the file and changes probabilities by less than 0.001. int8 is a quarter
of the size and faster on most CPUs; it needs --data, and prints its accuracy next to float32's.
With --format stablehlo the file is JAX's own: jax.export.deserialize reads it, without fer_jax.

Read the network's model card before you build on it. It says how often the network is wrong and
what it must not be used for.
"""

from collections.abc import Sequence

from fer_jax.core import cli, run_folder

EXAMPLES = [
    "--run base --out experiments/base.onnx",
    "--run experiments/base --out experiments/base.onnx --data data",
    "--run base --out experiments/base_int8.onnx --precision int8 --data data",
    "--run base --out experiments/base.stablehlo --format stablehlo",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and export."""
    parser = cli.parser("export", __doc__, EXAMPLES)
    parser.add_argument("--run", required=True, metavar="RUN", help="a run folder, or the name of a shipped network")
    parser.add_argument(
        "--out",
        type=cli.output_file(".onnx", ".stablehlo"),
        required=True,
        metavar="FILE",
        help="the file to write or replace",
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--data", metavar="DIR", help="the data folder, for the calibration temperature and int8")
    parser.add_argument("--format", choices=("onnx", "stablehlo"), default="onnx", help="default: onnx")
    parser.add_argument("--precision", choices=("float32", "float16", "int8"), default="float32", help="of ONNX files")
    args = parser.parse_args(argv)
    if args.precision == "int8" and args.data is None:
        parser.error("--precision int8 needs --data DIR: training images give the ranges of activations")
    if args.format == "stablehlo" and (args.precision != "float32" or args.data):
        parser.error("--precision and --data are for ONNX files")
    if not cli.is_device(args.out) and args.out.suffix != f".{args.format}":
        parser.error(f"--format {args.format} writes a .{args.format} file, and --out names {args.out.name}")
    run = run_folder.find(args.run)
    if run_folder.is_released(run):
        cli.check_outputs(parser, {"--out": args.out}, [run / run_folder.GRAPH])
    run_folder.read_config(run)  # a missing run is reported before jax is imported

    from fer_jax.core import runtime

    runtime.start()
    if args.format == "stablehlo":
        from fer_jax.deploy import stablehlo

        stablehlo.export(run, args.checkpoint, args.out)
    else:
        from fer_jax.deploy import onnx_export  # onnx is an extra

        onnx_export.export(run, args.checkpoint, args.out, args.data, args.precision)
    return 0


if __name__ == "__main__":
    cli.run(main)
