"""How long from the command to the first training step, how much memory does training take, what does an import cost?

    make sample
    python benchmarks/start.py
    python benchmarks/start.py --config configs/emotion_cnn.py --repeats 1

Runs `python -m fer_jax.main` on the drawn sample faces in a terminal of its own. The first step is done when the
progress bar shows figures for the first time: they are the loss and accuracy of that step (where a step is quicker than
half a second, the bar waits until then). Cold: with an empty cache folder, so that all is compiled (and matplotlib
lists the fonts); warm: the same command again. The pictures are decoded before (make sample, one run).
Memory: the largest resident set of one epoch with its evaluation. The import: fer_jax.data.labels in a fresh Python.
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

if not __package__:  # run as a script: only this file's folder is on sys.path, not the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import cli
from fer_jax.core.cli import UserError

ROOT = Path(__file__).resolve().parents[1]
SHOWN = b"loss "  # in the progress bar once a step is done

# Prints the seconds that the import took; a second word where it brought jax along.
IMPORT = """
import sys, time
start = time.perf_counter()
import fer_jax.labels
print(time.perf_counter() - start, "jax" if "jax" in sys.modules else "")
"""


def training(config: str, data: Path, run: Path) -> list[str]:
    overrides = [f"--config.data.dir={data}", "--config.train.epochs=1"]
    return [sys.executable, "-m", "fer_jax.main", "--config", config, "--workdir", str(run), *overrides]


def environment(cache: Path) -> dict[str, str]:
    """This one's, with a cache folder of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return kept | {"XDG_CACHE_HOME": str(cache), "TERM": "xterm"}


def first_step(command: list[str], cache: Path) -> float:
    """Seconds from the command to the first figures of the progress bar; the command is ended then."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))  # wide enough for the whole bar
    seen = b""
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=environment(cache), stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            while SHOWN not in seen:
                seen += more(ours, seen)
            return time.perf_counter() - start
        finally:
            process.kill()
            os.close(ours)


def more(terminal: int, before: bytes) -> bytes:
    """What comes next, or an error if nothing does because the command has ended."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        said = before.decode(errors="replace").strip().splitlines()
        raise UserError(f"the training ended before its first step: {said[-1] if said else 'no output'}") from None


def peak_mib(command: list[str], cache: Path) -> float:
    """The largest resident set of a whole command, in MiB."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(cache), stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
            raise UserError(f"the training failed: {said[-1] if said else 'no output'}")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB here


def import_labels() -> float:
    """Seconds that importing fer_jax.data.labels takes in a fresh Python."""
    done = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, *others = done.stdout.split()
    if others:
        raise UserError("importing fer_jax.data.labels imports jax")
    return float(seconds)


def measurements(config: str, data: Path, repeats: int) -> Iterator[measure.Record]:
    name = Path(config).stem
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(repeats):
            cache = Path(scratch, f"cache {repeat}")
            for state, taken in seconds.items():
                measure.progress(f"first step, {state}, {repeat + 1} of {repeats}")
                taken.append(first_step(training(config, data, Path(scratch, f"{state} {repeat}")), cache))
        for state, taken in seconds.items():
            yield {"what": f"command to first step, {name}", "how": state, **measure.figures(taken, "seconds")}
        measure.progress("peak memory of one epoch")
        mib = peak_mib(training(config, data, Path(scratch, "memory")), cache)
        yield {"what": f"peak memory of a training run, {name}", "how": "fer_jax", **measure.figures([mib], "mib")}
    imports = [import_labels() for _ in range(max(repeats, 5))]
    yield {"what": "import fer_jax.labels", "how": "without jax", **measure.figures(imports, "seconds")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/base.py", help="what to train (default configs/base.py)")
    parser.add_argument("--data", type=Path, default=ROOT / "sample" / "data", help="the data folder (the sample)")
    parser.add_argument("--repeats", type=int, default=3, help="cold and warm starts (default 3)")
    args = parser.parse_args()
    if not args.data.is_dir():
        raise UserError(f"no data in {args.data}: make sample")
    measure.report(measurements(args.config, args.data, args.repeats), ("runs",))


if __name__ == "__main__":
    cli.run(main)
