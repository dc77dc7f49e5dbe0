"""Measure the time from the command to the first training step, the peak memory of training, and the time of an import.

    make sample
    python benchmarks/start.py
    python benchmarks/start.py --config configs/emotion_cnn.py --repeats 1

Runs `python -m fer_jax.main` on the drawn sample faces in a separate terminal. The first step ends when the progress
bar shows a loss; the bar waits half a second if the step is faster. Cold: an empty cache folder, so that everything is
compiled (and matplotlib lists the fonts). Warm: the same command again. The images are already decoded (make sample,
one run). Memory: the largest resident set of one epoch with its evaluation. The import: fer_jax.data.labels in a new
Python process.
"""

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import cli
from fer_jax.core.errors import UserError, one_line

ROOT = Path(__file__).resolve().parents[1]
SHOWN = b"loss "  # in the progress bar after a step

# Prints the seconds that the import took, and "jax" if it imported jax too.
IMPORT = """
import sys, time
start = time.perf_counter()
import fer_jax.data.labels
print(time.perf_counter() - start, "jax" if "jax" in sys.modules else "")
"""


def training(config: str, data: Path, run: Path) -> list[str]:
    overrides = [f"--config.data.dir={data}", "--config.train.epochs=1"]
    return [sys.executable, "-m", "fer_jax.main", "--config", config, "--workdir", str(run), *overrides]


def environment(cache: Path) -> dict[str, str]:
    """Return the environment of this process with another cache folder."""
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return inherited | {"XDG_CACHE_HOME": str(cache), "TERM": "xterm"}


def first_step(command: list[str], cache: Path) -> float:
    """Return the seconds from the start of the command to the first loss in its progress bar, and end the command."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))  # wide enough for the whole bar
    output = b""
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=environment(cache), stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        try:
            while SHOWN not in output:
                output += read(controller, output)
            return time.perf_counter() - start
        finally:
            process.kill()
            os.close(controller)


def read(controller: int, output: bytes) -> bytes:
    """Return the next bytes of a terminal.

    Raises:
        UserError: the command has ended; with the last line of its output so far.
    """
    try:
        return os.read(controller, 4096)
    except OSError:
        raise UserError(f"the training ended before its first step: {last_line(output)}") from None


def last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return one_line(lines[-1]) if lines else "no output"


def peak_mib(command: list[str], cache: Path) -> float:
    """Return the largest resident set of a whole command, in MiB."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(cache), stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise UserError(f"the training failed: {last_line(output.read())}")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere


def import_labels() -> float:
    """Return the seconds that importing fer_jax.data.labels takes in a new Python process."""
    process = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, *modules = process.stdout.split()
    if modules:
        raise UserError("importing fer_jax.data.labels imports jax")
    return float(seconds)


def measurements(config: str, data: Path, repeats: int) -> Iterator[measure.Record]:
    name = Path(config).stem
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(repeats):
            cache = Path(scratch, f"cache {repeat}")
            for state, values in seconds.items():
                measure.progress(f"first step, {state}, {repeat + 1} of {repeats}")
                values.append(first_step(training(config, data, Path(scratch, f"{state} {repeat}")), cache))
        for state, values in seconds.items():
            yield {"what": f"command to first step, {name}", "how": state, **measure.summary(values, "seconds")}
        measure.progress("peak memory of one epoch")
        mib = peak_mib(training(config, data, Path(scratch, "memory")), cache)
        yield {"what": f"peak memory of a training run, {name}", "how": "fer_jax", **measure.summary([mib], "mib")}
    imports = [import_labels() for _ in range(max(repeats, 5))]
    yield {"what": "import fer_jax.data.labels", "how": "without jax", **measure.summary(imports, "seconds")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/base.py", help="the config (default configs/base.py)")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "sample" / "data", help="the data folder (default: the sample)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="cold and warm starts each (default 3)")
    args = parser.parse_args()
    if not args.data.is_dir():
        raise UserError(f"no data in {args.data}: make sample")
    measure.report(measurements(args.config, args.data, args.repeats), ("runs",))


if __name__ == "__main__":
    cli.run(main)
