"""Write a trained network as one ONNX file, for programs that have neither JAX nor fer_jax.

The file takes grey pictures of faces, cut out as in FER2013, and gives probabilities: `image`, u8[batch, 48, 48], to
`probability`, f32[batch, 8], in the order of the file's `emotions`. Normalisation and softmax are inside. Its metadata
also hold the run, the step and the calibration temperature, if --data names the validation pictures to fit it on.
What the file says of a few pictures is compared with what the network says before it is kept. Networks that see
pictures of another size than 48x48 or with the normalisation "ferplus" cannot be exported.

Read the network's model card before you build on it: it says how often it is wrong and what it must not be used for.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_jax import cli
from fer_jax.cli import UserError

if TYPE_CHECKING:  # importing them takes seconds, and --help need not wait for it
    import onnx

    from fer_jax.inference import Network

EXAMPLE = """examples:
  python -m fer_jax.export --run pretrained/base --out base.onnx
  python -m fer_jax.export --run experiments/base --checkpoint latest --out base.onnx --data data
"""
TRIED = 4  # pictures that file and network are compared on
TOLERANCE = 1e-4  # of a probability


def to_onnx(network: "Network", temperature: float | None = None) -> "onnx.ModelProto":
    """A network as an ONNX model.

    Args:
        network: what is exported.
        temperature: goes into the metadata; the probabilities are those of the network as it is.

    Raises:
        UserError: its pictures are not of 48x48 pixels, or it has a part that cannot be written so.
    """
    import jax
    import numpy as np
    from onnx import helper

    from fer_jax import augment, onnx_graph
    from fer_jax.data import SIDE
    from fer_jax.labels import EMOTIONS

    image = network.config.image
    if image.size != SIDE:
        raise UserError(f"the network cannot be exported: it sees {image.size}x{image.size} pixels, not {SIDE}x{SIDE}")

    def probability(images: jax.Array) -> jax.Array:
        pictures = augment.unmoved(images, normalize=image.normalize)
        logits: Any = network.parts.model.apply(network.variables, pictures, train=False)
        return jax.nn.softmax(logits)

    kind = jax.ShapeDtypeStruct((SIDE, SIDE), np.uint8)
    model = onnx_graph.convert(probability, kind, ("image", "probability"))
    facts = {"run": str(network.run), "step": str(network.step), "emotions": " ".join(EMOTIONS)}
    if temperature is not None:
        facts["temperature"] = f"{temperature:.4f}"
    helper.set_model_props(model, facts)
    return model


def check(network: "Network", model: "onnx.ModelProto") -> None:
    """Raises UserError if model and network say different things of some pictures of noise and of ramps."""
    import jax
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    from fer_jax import inference
    from fer_jax.data import SIDE

    images = np.random.default_rng(0).integers(0, 256, (TRIED, SIDE, SIDE), dtype=np.uint8)
    images[TRIED // 2 :] = np.sort(images[TRIED // 2 :], axis=1)
    with jax.default_matmul_precision("float32"):  # GPUs would round the products
        expected = np.exp(inference.log_probabilities(network, images))
    for count in (1, TRIED):
        (answer,) = ReferenceEvaluator(model).run(None, {"image": images[:count]})
        said = np.asarray(answer)
        apart = np.abs(said - expected[:count]).max() if said.shape == expected[:count].shape else np.inf
        if not apart <= TOLERANCE:
            raise UserError(f"the exported network differs by {apart:.2g} from {network.run}: a mistake of fer_jax")


def main() -> int:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.export",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a run folder, or a released network")
    parser.add_argument(
        "--out", type=cli.new_file, required=True, metavar="FILE", help="the file to write, or to replace"
    )
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--data", metavar="DIR", help="the data folder, to fit the calibration temperature")
    args = parser.parse_args()
    if importlib.util.find_spec("onnx") is None:
        raise UserError("exporting needs onnx, which is not installed: pip install -e '.[export]'")

    from fer_jax import atomic, devices, inference

    devices.tune_cpu()
    devices.cache_compilations()
    network = inference.restore(args.run, args.checkpoint)
    temperature = None
    if args.data is not None:
        from fer_jax import data, evaluation

        valid = data.load(args.data, "valid")
        said = inference.log_probabilities(network, valid.images)
        temperature = evaluation.fit_temperature(said, valid, "majority")
    model = to_onnx(network, temperature)
    check(network, model)
    with atomic.replacing(args.out) as partial:
        partial.write_bytes(model.SerializeToString())
    print(f"exported: {args.out} ({args.out.stat().st_size / 1e6:.1f} MB), checked on {TRIED} pictures")
    return 0


if __name__ == "__main__":
    cli.run(main)
