"""Compare the speed of fer_jax and PyTorch on this machine: all benchmarks that need no GPU, in one run (`make bench`).

    python benchmarks/compare.py
    python benchmarks/compare.py --only pipeline --rounds 5
    python benchmarks/compare.py --only step --avx2
    python benchmarks/compare.py --only step --only epoch --device cuda

Training step, pipeline and whole epoch are measured in rounds: each round runs each of their scripts once, PyTorch's in
a separate virtual environment. A ratio compares with the best PyTorch variant of the same round; the table shows the
median over the rounds and the value of each. All others (batch sizes, several CPU devices, the convolutions alone,
start, inference, generator) run once, after the rounds. Every record is also written to experiments/bench.jsonl, with
its round and the machine's load at that time. It takes some 20 minutes on two cores, which should be idle otherwise.
With --device cuda, PyTorch and a jax that is installed for it use the GPU for step and epoch, in larger batches and
bfloat16. With --avx2 both sides leave AVX-512 alone, as on a CPU without it. The steps of PyTorch are then not
compiled: its compiler crashes with this limit.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import cli
from fer_jax.core.errors import UserError, one_line

ROOT = Path(__file__).resolve().parents[1]
TORCH = ROOT / ".venv-bench" / "bin" / "python"
PYTHON = sys.executable
CHANGES_RESULTS = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE")
# The widest instructions that XLA, PyTorch's own kernels, oneDNN and MKL take. YNNPACK knows no such limit, so the step
# does without it.
AVX2 = {
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}

Command = list[str]


def in_rounds(torch: str, seconds: float, device: str, avx2: bool) -> dict[str, list[Command]]:
    """Return the commands of a round, by question."""
    duration, device_option, gpu = ["--seconds", str(seconds)], ["--device", device], device == "cuda"
    batch, dtype = ["--batch=1024"] * gpu, ["--dtype=bfloat16"] * gpu
    jax_dtype = ["--config.model.dtype=bfloat16"] * gpu
    epoch = ["--batch=256", *dtype] if gpu else ["--images=512", "--epochs=2"]
    jax_epoch = [PYTHON, "benchmarks/epoch.py"]
    jax_epoch += ["--config.train.batch_size=256", *jax_dtype] if gpu else epoch
    torch_step = [torch, "benchmarks/torch_step.py", *duration, *device_option, *dtype, *["--no-compile"] * avx2]
    base_batch = batch or ["--batch=128"]
    jax_step = [PYTHON, "benchmarks/train_step.py", *duration, *jax_dtype, *["--no-ynnpack"] * avx2]
    on_device = ["--config.augment.renderer=device"]
    on_device += ["--config.train.steps_per_call=109"] * gpu  # the 28,000 images in one call
    return {
        "step": [
            [*torch_step, *batch],
            [*jax_step, *batch],
            [*torch_step, "--network=resnet_small", *base_batch],
            *(
                [*jax_step, "--config=configs/base.py", *base_batch, f"--config.optim.name={optimizer}"]
                for optimizer in ("adamw", "muon")
            ),
        ],
        "pipeline": [[torch, "benchmarks/torch_pipeline.py", *duration], [PYTHON, "benchmarks/pipeline.py", *duration]],
        "epoch": [
            [torch, "benchmarks/torch_epoch.py", *device_option, *epoch],
            [torch, "benchmarks/torch_epoch.py", "--compile", *device_option, *epoch],
            jax_epoch,
            [*jax_epoch, *on_device],
        ],
    }


def once(csvs: str, seconds: float) -> dict[str, list[Command]]:
    """Return the commands without a PyTorch counterpart, by question."""
    step = [PYTHON, "benchmarks/train_step.py", "--seconds", str(seconds)]
    return {
        "scale": [
            [*step, *(f"--batch={size}" for size in (16, 64, 256))],
            *([*step, f"--devices={count}"] for count in (2, 4)),
        ],
        "convolutions": [[PYTHON, "benchmarks/convolutions.py"]],
        "start": [[PYTHON, "benchmarks/start.py"]],
        "inference": [[PYTHON, "benchmarks/inference.py", "--seconds", str(seconds)]],
        "generator": [[PYTHON, "benchmarks/generator.py", csvs]],
    }


def run(command: Command, limits: dict[str, str]) -> list[measure.Record]:
    """Run a benchmark with `limits` in its environment, and return the records that it prints.

    Raises:
        UserError: it failed; with the last line of its output.
    """
    environment = {name: value for name, value in os.environ.items() if name not in CHANGES_RESULTS} | limits
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if process.returncode:
        lines = (process.stderr or process.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command)} failed: {one_line(lines[-1]) if lines else 'no output'}")
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


def run_all(
    commands: Sequence[tuple[int, Command]], log: Path, limits: dict[str, str]
) -> tuple[dict[int, list[measure.Record]], list[UserError]]:
    """Run the commands; each record is logged as soon as it is measured.

    Returns:
        The records by round, and the errors of the commands that failed: the others are measured all the same.
    """
    rounds: dict[int, list[measure.Record]] = {}
    errors = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file, tqdm(commands, unit="command", disable=None) as bar:
        for number, command in bar:
            bar.set_description(Path(command[1]).stem)
            load = os.getloadavg()[0]
            try:
                records = run(command, limits)
            except UserError as error:
                tqdm.write(f"warning: {error}", sys.stderr)
                errors.append(error)
                continue
            for record in records:
                rounds.setdefault(number, []).append(record)
                line = json.dumps(record | {"round": number, "load": round(load, 2)})
                file.write(line + "\n")
                file.flush()
                tqdm.write(line)
    return rounds, errors


def main() -> None:
    questions = (*in_rounds("", 0, "", False), *once("", 0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=questions, help="measure only this (repeatable)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of step, pipeline and epoch (default 3)")
    parser.add_argument("--seconds", type=float, default=8, help="time for each measurement (default 8)")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="the device of step and epoch (default cpu)"
    )
    parser.add_argument("--avx2", action="store_true", help="without AVX-512, on a CPU that has it")
    parser.add_argument("--csvs", default="sample", help="folder of the two CSVs for the generator (default sample)")
    parser.add_argument("--torch-python", default=str(TORCH), help="a Python with requirements-bench.txt")
    parser.add_argument(
        "--log", type=Path, default=ROOT / "experiments" / "bench.jsonl", help="the file that records are written to"
    )
    args = parser.parse_args()
    chosen = args.only or questions
    torch, csvs = args.torch_python, args.csvs
    rounds = in_rounds(torch, args.seconds, args.device, args.avx2)
    repeated = [scripts for name, scripts in rounds.items() if name in chosen]
    if repeated and not Path(torch).is_file():
        raise UserError(f"no PyTorch: {torch} is missing; make .venv-bench/installed")
    single = [scripts for name, scripts in once(csvs, args.seconds).items() if name in chosen]
    numbered = [(number, repeated) for number in range(1, args.rounds + 1)] + [(0, single)]
    commands = [(number, command) for number, questions in numbered for scripts in questions for command in scripts]
    records, errors = run_all(commands, args.log, AVX2 if args.avx2 else {})
    others = measure.with_ratios(records.pop(0, []))
    print(f"\n{measure.processor()}{', AVX2 at most' * args.avx2}, {measure.cores()} cores; records: {args.log}")
    if records:
        merged = measure.by_rounds([records.get(number, []) for number in range(1, args.rounds + 1)])
        print(f"\n{args.rounds} rounds:\n\n{measure.table(merged, ('ratio', 'ratios', 'rounds'))}")
    if others:
        print(f"\nOnce:\n\n{measure.table(others, ('ratio', 'cpu_s', 'compile_s', 'runs'))}")
    if errors:
        raise UserError(f"{len(errors)} of {len(commands)} commands failed, the last: {errors[-1]}")


if __name__ == "__main__":
    cli.run(main)
