"""The version of the code that trained a run."""

import subprocess
from pathlib import Path

from fer_jax import __version__

_ROOT = Path(__file__).resolve().parents[2]


def code_version() -> dict[str, str]:
    """The version of fer_jax and, in a clone, its commit ("-dirty" where files differ from it); "" elsewhere."""
    commit = ""
    if (_ROOT / ".git").exists():
        command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):  # no git here, or not this user's folder
            commit = ""
    return {"version": __version__, "commit": commit}
