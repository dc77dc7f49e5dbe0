"""The build of the page: its files are made of the sources, the parts from npm, and the two networks.

`make page` runs it. Node.js and the packages of source/package-lock.json must be there; nothing is downloaded.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import onnx

from fer_jax import inference
from fer_jax.core import shipped
from fer_jax.core.errors import UserError, one_line
from fer_jax.data.labels import EMOTIONS
from fer_jax.deploy import onnx_model
from fer_jax.web import convert

FOLDER = Path(__file__).parent
SOURCE, STATIC = FOLDER / "source", FOLDER / "static"
NETWORK = "base"
MANIFEST = "manifest.json"


def inputs() -> dict[str, Path]:
    """Return the files that the page is made of, by name."""
    network = shipped.networks()[NETWORK]
    sources = [path for path in SOURCE.iterdir() if path.is_file()]
    weights = [network / "config.json", network / "weights.safetensors", network / "README.md"]
    detector = [Path(str(files("fer_jax.faces").joinpath(name))) for name in ("yunet.onnx", "yunet.LICENSE")]
    named = [(f"source/{path.name}", path) for path in sources]
    named += [(f"{NETWORK}/{path.name}", path) for path in weights] + [(path.name, path) for path in detector]
    named += [("LICENSE", FOLDER.parents[1] / "LICENSE")]
    return dict(sorted(named))


def outputs(folder: Path) -> dict[str, Path]:
    """Return the files of a built page, by name."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: names[name] for name in sorted(names) if name != MANIFEST}


def digests(paths: dict[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of files."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}


def build(folder: Path) -> None:
    """Write the page to a folder, in place of what it holds.

    Raises:
        UserError: Node.js or its packages are missing, or the sources have an error.
    """
    if not (SOURCE / "node_modules").is_dir() or shutil.which("node") is None:
        raise UserError("the page's parts are missing: install Node.js, then run make page")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = subprocess.run(["node", SOURCE / "build.mjs", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"the page cannot be built: {one_line(done.stderr)}")
    network = inference.restore(NETWORK)
    facts = {"emotions": EMOTIONS, "symmetric": network.symmetric}
    (folder / f"{NETWORK}.bin").write_bytes(convert.convert(onnx_model.to_onnx(network), facts))
    given = inputs()
    detector = onnx.load(given["yunet.onnx"])
    (folder / "yunet.bin").write_bytes(convert.convert(detector, {}))
    shutil.copyfile(given[f"{NETWORK}/README.md"], folder / "card.txt")
    _append(folder / "licences.txt", [given["yunet.LICENSE"], given["LICENSE"]])
    manifest = {"made of": digests(given), "files": digests(outputs(folder))}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _append(path: Path, others: Iterable[Path]) -> None:
    texts = [other.read_text(encoding="utf-8") for other in (path, *others)]
    path.write_text("\n".join(texts), encoding="utf-8")


if __name__ == "__main__":
    build(STATIC)
