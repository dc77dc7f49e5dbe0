"""A network in an ONNX file, computed by onnxruntime: predictions without jax, which takes seconds to import.

A released network has the graph in `network.onnx`, a file of some kB; its numbers are read from `weights.safetensors`.
A file of `fer-jax export` has both. docs/decisions.md says when which runtime is taken.
"""

import hashlib
import os
import textwrap
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fer_jax.core import extras, run_folder
from fer_jax.core.errors import UserError, one_line
from fer_jax.core.run_folder import GRAPH, WEIGHTS
from fer_jax.data.labels import EMOTIONS
from fer_jax.inference.log_probs import log_softmax

RUNTIMES = ("jax", "onnx")
BATCH = 64  # images in one call: larger batches are no faster, and `best` needs 1 MB of memory for each
SMALLEST = np.finfo(np.float32).tiny  # a probability below is taken for it: the logarithm of 0 is infinite


class OnnxNetwork(NamedTuple):
    """A network that onnxruntime computes; it predicts as `inference.Network` does."""

    run: Path  # the folder of a released network, or an exported file
    label_mode: str
    session: Any  # onnxruntime.InferenceSession
    temperature: float | None = None  # of an exported file, where the export had validation images
    symmetric: bool = False  # a face and its mirror image have the same probabilities

    def log_probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the natural logarithm of the class probabilities of images: u8[N, 48, 48] -> f64[N, 8]."""
        parts = [np.zeros((0, len(EMOTIONS)), np.float32)]
        bar = tqdm(
            total=len(images), desc=f"predicting with {self.run.name}", unit="img", leave=False, disable=None, delay=1
        )
        with bar:
            for start in range(0, len(images), BATCH):
                batch = np.ascontiguousarray(images[start : start + BATCH])
                parts += self.session.run(None, {"image": batch})
                bar.update(len(batch))
        return log_softmax(np.log(np.maximum(np.concatenate(parts), SMALLEST)))  # rounded, they do not sum to 1


def choose(run: Path, runtime: str | None) -> str:
    """Return the runtime that reads a network: "onnx" where it can, unless `runtime` names one.

    Args:
        run: a run folder, or an exported file.
        runtime: one of `RUNTIMES`, or None.

    Raises:
        UserError: the runtime cannot read the network.
    """
    exported = run.suffix == ".onnx"
    has_graph = run_folder.is_released(run) and (run / GRAPH).is_file()  # not a file that was exported to a run folder
    if runtime is None:
        return "onnx" if exported or (has_graph and find_spec("onnxruntime")) else "jax"
    if runtime == "jax" and exported:
        raise UserError(f"{run} is an ONNX file, which jax cannot read: leave the runtime out, or name its run folder")
    if runtime == "onnx" and not (exported or has_graph):
        raise UserError(f"{run} has no {GRAPH}: release or export the network first, or leave the runtime out")
    return runtime


def load(run: Path) -> OnnxNetwork:
    """Return the network of a released folder with a graph, or of an exported file.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        UserError: a file is missing, damaged, or not fer_jax's.
    """
    with extras.named():
        import onnxruntime

    path = run if run.suffix == ".onnx" else run / GRAPH
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a network, a run folder or an exported file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: it would print lines of its own about an error that is raised as well
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # onnxruntime's errors have no class in common
        reason = textwrap.shorten(one_line(error), 100, placeholder=" ...")
        raise UserError(f"{path} or its weights cannot be read ({reason}); copy it again") from None
    _check(run, path, facts)
    mode = facts["label_mode"] if path == run else run_folder.read_config(run).data.label_mode
    temperature = float(facts["temperature"]) if "temperature" in facts else None
    return OnnxNetwork(run, mode, session, temperature, "symmetric" in facts)


def of_bytes(content: bytes) -> OnnxNetwork:
    """Return the network of an exported file's content."""
    with extras.named():
        import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return OnnxNetwork(Path("exported"), session.get_modelmeta().custom_metadata_map["label_mode"], session)


def _check(run: Path, path: Path, facts: Mapping[str, str]) -> None:
    """Raise UserError unless the file is fer_jax's, and the graph was made for the weights next to it."""
    if facts.get("emotions", "").split() != list(EMOTIONS) or "label_mode" not in facts:
        raise UserError(f"{path} is not a file of fer_jax.export of this version; export the network again")
    if path != run and facts.get("weights") != digest(run):
        raise UserError(f"{path} was made for other weights than {run / WEIGHTS}; copy the folder again")


def digest(folder: Path) -> str:
    """Return the SHA-256 of the weights of a released network."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
