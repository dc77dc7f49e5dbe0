"""Measure predictions: crops in batches, one crop, a photograph, the command, the evaluation.

    python benchmarks/inference.py
    python benchmarks/inference.py --network base --data data

Crops: `Reader.predict` on arrays of 256 and of 1 (pixels do not matter for the time). Photograph: `Reader.detect` on
640x480 pixels with one face, scikit-image's astronaut. The command: `python -m fer_jax predict face.png` from its start
to its end, after a first call has compiled the network. With --data: `python -m fer_jax evaluate` on the validation
split from its start to its end, nothing compiled before. Networks run with jax; the command
`predict` with onnxruntime too. `cpu_s` is processor time, which other programs change less than the time of the clock.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from benchmarks.start import ROOT, environment, last_line
from fer_jax import inference
from fer_jax.core import cli, runtime
from fer_jax.core.errors import UserError
from fer_jax.faces.reader import Reader
from fer_jax.inference import onnx_network

BATCH = 256


def photograph() -> Image.Image:
    """Return a frame of 640x480 pixels with one face of some 85 pixels."""
    from skimage import data  # of requirements-dev.txt

    frame = Image.new("RGB", (640, 480), (128, 128, 128))
    frame.paste(Image.fromarray(data.astronaut()).resize((480, 480)), (80, 0))
    return frame


def seconds_of(call: Callable[[], object], seconds: float) -> measure.Record:
    """Return the summary of the seconds of a call, and its median processor time."""
    timed = measure.time_runs(call, seconds, warmup=3)
    return measure.summary(timed.wall, "seconds") | {"cpu_s": measure.rounded(float(np.median(timed.processor)))}


def of_reader(name: str, seconds: float) -> Iterator[measure.Record]:
    """Yield the measurements of a network in this process."""
    reader = Reader([inference.restore(name)])
    crops = np.random.default_rng(0).integers(0, 256, (BATCH, 48, 48), np.uint8)
    measure.progress(f"{name}: crops")
    timed = measure.time_runs(partial(reader.predict, crops), seconds)
    yield {"what": f"predict, {BATCH} crops", "how": name, **measure.rates(BATCH, timed)}
    yield {"what": "predict, one crop", "how": name, **seconds_of(partial(reader.predict, crops[:1]), seconds)}
    frame = photograph()
    if len(reader.detect(frame)) != 1:
        raise UserError("the photograph must have one face: another version of scikit-image?")
    measure.progress(f"{name}: photograph")
    yield {"what": "detect, 640x480, one face", "how": name, **seconds_of(partial(reader.detect, frame), seconds)}


def command_seconds(arguments: Sequence[str], cache: Path) -> float:
    """Return the seconds of a whole command of `python -m fer_jax`."""
    command = [sys.executable, "-m", "fer_jax", *arguments]
    start = time.perf_counter()
    process = subprocess.run(command, cwd=ROOT, env=environment(cache), capture_output=True)
    if process.returncode:
        raise UserError(f"{arguments[0]} failed: {last_line(process.stderr)}")
    return time.perf_counter() - start


def of_commands(name: str, data: Path | None, repeats: int) -> Iterator[measure.Record]:
    """Yield the measurements of whole commands with a network."""
    with tempfile.TemporaryDirectory() as scratch:
        face, cache = Path(scratch, "face.png"), Path(scratch, "cache")
        Image.fromarray(np.full((48, 48), 128, np.uint8)).save(face)
        measure.progress(f"{name}: start of predict")
        for computed_by in onnx_network.RUNTIMES:
            arguments = ["predict", "--run", name, "--runtime", computed_by, str(face)]
            command_seconds(arguments, cache)
            values = [command_seconds(arguments, cache) for _ in range(repeats)]
            record = measure.summary(values, "seconds")
            yield {"what": f"command predict face.png, {computed_by}, compiled before", "how": name, **record}
        if data is not None:
            measure.progress(f"{name}: evaluate")
            arguments = ["evaluate", "--run", name, "--data", str(data), "--out", str(Path(scratch, "report"))]
            values = [command_seconds(arguments, Path(scratch, f"cache {i}")) for i in range(repeats)]
            yield {"what": "command evaluate, cold", "how": name, **measure.summary(values, "seconds")}


def measurements(names: Sequence[str], data: Path | None, seconds: float, repeats: int) -> Iterator[measure.Record]:
    for name in names:
        yield from of_reader(name, seconds)
        yield from of_commands(name, data, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", metavar="NAME", help="a network (default: base and best)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data folder; without it nothing is evaluated")
    parser.add_argument("--seconds", type=float, default=5, help="for each measurement (default 5)")
    parser.add_argument("--repeats", type=int, default=3, help="calls of each command (default 3)")
    args = parser.parse_args()
    runtime.start()
    data = None if args.data is None else args.data.resolve()
    networks = args.network or ["base", "best"]
    measure.report(measurements(networks, data, args.seconds, args.repeats), ("cpu_s", "runs"))


if __name__ == "__main__":
    cli.run(main)
