"""The version of the code that trained a run."""

import subprocess
from pathlib import Path

from fer_jax import __version__

_ROOT = Path(__file__).resolve().parents[2]


def code_version() -> dict[str, str]:
    """Return the version of fer_jax and the commit of a clone, with "-dirty" if files differ; "" without a clone."""
    commit = ""
    if (_ROOT / ".git").exists():
        command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):  # git is missing, or the folder is another user's
            commit = ""
    return {"version": __version__, "commit": commit}
