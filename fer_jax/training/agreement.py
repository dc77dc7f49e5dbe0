"""The facts in which all processes of a run must agree, and the line that names a difference."""

import hashlib
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from fer_jax.core import config as config_lib
from fer_jax.core import processes, provenance, run_folder
from fer_jax.data.training_set import Inputs

_PACKAGE = Path(__file__).resolve().parents[1]


def check(config: ConfigDict, folder: Path, inputs: Inputs) -> None:
    """Compare the processes of a run before they use a device. A process that trains alone passes.

    Raises:
        processes.DisagreementError: they have other code, configs, data or checkpoints.
    """
    if processes.several():
        processes.compare(facts(config, folder, inputs), difference)


def facts(config: ConfigDict, folder: Path, inputs: Inputs) -> dict[str, Any]:
    """Return what must be the same in all processes, as JSON."""
    version = provenance.code_version()
    return {
        "config": config_lib.flatten(config_lib.as_json(config)),
        "code": _code_digest(),
        "version": f"fer_jax {version['version']} {version['commit']}".strip() + f", jax {jax.__version__}",
        "data": inputs.digest,
        "images": len(inputs.training.images),
        "checkpoint": max(run_folder.checkpoints(folder), default=None),
    }


def difference(theirs: dict[str, Any], first: dict[str, Any]) -> str:
    """Return the most important difference between the facts of a process and of process 0; "" if there is none."""
    if theirs["code"] != first["code"] or theirs["version"] != first["version"]:
        return f"has other code ({theirs['version']}) than process 0 ({first['version']}); install the same on all"
    config, other = first["config"], theirs["config"]
    names = [name for name in {**config, **other} if config.get(name) != other.get(name)]
    if fields := [name for name in names if name != "data.dir"]:
        values = [f"{fields[0]}={config_lib.shown(each.get(fields[0]))}" for each in (other, config)]
        more = f", and {len(fields) - 1} more" * (len(fields) > 1)
        return f"has another config ({values[0]}) than process 0 ({values[1]}{more}); give all the same"
    shown = [f"data.dir={each['config']['data.dir']}" for each in (theirs, first)]
    counts = [f"{each['images']} training images" for each in (theirs, first)]
    if theirs["data"] != first["data"]:
        return f"has other data ({shown[0]}, {counts[0]}) than process 0 ({shown[1]}, {counts[1]}); give all the same"
    if names:
        return f"has another config ({shown[0]}) than process 0 ({shown[1]}); the data must have the same path on all"
    if theirs["checkpoint"] != first["checkpoint"]:
        found = [
            "no checkpoint" if each["checkpoint"] is None else f"step {each['checkpoint']}" for each in (theirs, first)
        ]
        return f"finds {found[0]} in its run folder, process 0 {found[1]}; --workdir must be one folder that all share"
    return ""


def _code_digest() -> str:
    """The SHA-256 of the package's Python files."""
    sha = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        sha.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()
