"""Compare the speed of fer_jax and PyTorch on this machine, most benchmarks in one run (`make bench`).

    python benchmarks/compare.py
    python benchmarks/compare.py --only pipeline --rounds 5
    python benchmarks/compare.py --only step --avx2
    python benchmarks/compare.py --device cuda --data data

Training step, pipeline and whole epoch are measured in rounds: each round runs each of their scripts once, PyTorch's in
a separate virtual environment. A ratio compares with the best PyTorch variant of the same round; the table shows the
median over the rounds and the value of each. All others (batch sizes, several CPU devices, the convolutions alone,
start, inference, generator) run once, after the rounds. Every record is also written to experiments/bench.jsonl, with
its round and the machine's load at that time. It takes some 20 minutes on two cores, which should be idle otherwise.
With --avx2 both sides leave AVX-512 alone, as on a CPU without it. The steps of PyTorch are then not compiled: its
compiler crashes with this limit.

With --device cuda, PyTorch and a jax that is installed for it use the GPU, in larger batches and bfloat16: step, epoch,
the convolutions alone and, with --data, whole runs of fast, of large, and of small in batches of 128 to 4,096 images.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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

IMAGES = 27_953  # of FER+ that are trained on: an epoch in one call
ONCE = ("ratio", "cpu_s", "compile_s", "runs", "each", "majority", "clean")  # columns, the last three of whole_run.py

Command = list[str]


class Plan(NamedTuple):
    """The commands by question: those that every round runs, and those that run once, after the rounds."""

    rounds: dict[str, list[Command]]
    once: dict[str, list[Command]]


def on_cpu(torch: str, seconds: float, avx2: bool, csvs: str) -> Plan:
    """Return what `make bench` measures."""
    duration = ["--seconds", str(seconds)]
    torch_step = [torch, "benchmarks/torch_step.py", *duration, *["--no-compile"] * avx2]
    jax_step = [PYTHON, "benchmarks/train_step.py", *duration]
    limited_jax_step = [*jax_step, *["--no-ynnpack"] * avx2]
    size = ["--images=512", "--epochs=2"]
    torch_epoch, jax_epoch = [torch, "benchmarks/torch_epoch.py", *size], [PYTHON, "benchmarks/epoch.py", *size]
    rounds = {
        "step": [
            torch_step,
            limited_jax_step,
            [*torch_step, "--network=resnet_small", "--batch=128"],
            *(
                [*limited_jax_step, "--config=configs/small.py", "--batch=128", f"--config.optim.name={optimizer}"]
                for optimizer in ("adamw", "muon")
            ),
        ],
        "pipeline": [[torch, "benchmarks/torch_pipeline.py", *duration], [PYTHON, "benchmarks/pipeline.py", *duration]],
        "epoch": [
            torch_epoch,
            [*torch_epoch, "--compile"],
            jax_epoch,
            [*jax_epoch, "--config.augment.renderer=device"],
        ],
    }
    once = {
        "scale": [
            [*jax_step, *(f"--batch={size}" for size in (16, 64, 256))],
            *([*jax_step, f"--devices={count}"] for count in (2, 4)),
        ],
        "convolutions": [[PYTHON, "benchmarks/convolutions.py"]],
        "start": [[PYTHON, "benchmarks/start.py"]],
        "inference": [[PYTHON, "benchmarks/inference.py", *duration]],
        "generator": [[PYTHON, "benchmarks/generator.py", csvs]],
    }
    return Plan(rounds, once)


def on_gpu(torch: str, seconds: float, data: str | None) -> Plan:
    """Return what is measured with --device cuda; whole runs need a data folder."""
    duration, device = ["--seconds", str(seconds)], ["--device=cuda"]
    large, dtype, jax_dtype = ["--batch=1024"], ["--dtype=bfloat16"], ["--config.model.dtype=bfloat16"]
    torch_step = [torch, "benchmarks/torch_step.py", *duration, *device, *dtype, *large]
    jax_step = [PYTHON, "benchmarks/train_step.py", *duration, *jax_dtype, *large]
    torch_epoch = [torch, "benchmarks/torch_epoch.py", *device, *dtype, "--batch=256"]
    jax_epoch = [PYTHON, "benchmarks/epoch.py", *jax_dtype, "--config.train.batch_size=256"]
    on_device = "--config.augment.renderer=device"
    rounds = {
        "step": [
            torch_step,
            jax_step,
            [*torch_step, "--network=resnet_small"],
            *(
                [*jax_step, "--config=configs/small.py", f"--config.optim.name={optimizer}"]
                for optimizer in ("adamw", "muon")
            ),
        ],
        "epoch": [
            torch_epoch,
            [*torch_epoch, "--compile"],
            jax_epoch,
            [*jax_epoch, on_device, "--config.train.steps_per_call=109"],  # the 28,000 images in one call
        ],
    }
    once = {"convolutions": [[PYTHON, "benchmarks/convolutions.py", *large, *dtype]]}
    if data is not None:
        whole = [PYTHON, "benchmarks/whole_run.py", "--data", data]
        set_for_gpu = [on_device, *jax_dtype]
        once |= {
            "fast": [[*whole, "--compiled", *set_for_gpu, "--config.train.steps_per_call=218"]],
            "large": [[*whole, "--compiled", "--config=configs/large.py"]],
            "batches": [
                [
                    *[*whole, "--seeds=0", "--config=configs/small.py", *set_for_gpu],
                    *[f"--config.train.batch_size={size}", f"--config.train.steps_per_call={IMAGES // size}"],
                ]
                for size in (128, 512, 1024, 4096)
            ],
        }
    return Plan(rounds, once)


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
    questions = dict.fromkeys(
        name for plan in (on_cpu("", 0, False, ""), on_gpu("", 0, "")) for part in plan for name in part
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*questions], help="measure only this (repeatable)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of step, pipeline and epoch (default 3)")
    parser.add_argument("--seconds", type=float, default=8, help="time for each measurement (default 8)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="what to measure on (default cpu)")
    parser.add_argument("--avx2", action="store_true", help="without AVX-512, on a CPU that has it")
    parser.add_argument("--csvs", default="sample", help="folder of the two CSVs for the generator (default sample)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data folder, for whole runs on a GPU")
    parser.add_argument("--torch-python", default=str(TORCH), help="a Python with requirements-bench.txt")
    parser.add_argument(
        "--log", type=Path, default=ROOT / "experiments" / "bench.jsonl", help="the file that records are written to"
    )
    args = parser.parse_args()
    torch = args.torch_python
    if args.device == "cuda":
        if args.avx2:
            raise UserError("--avx2 needs --device cpu")
        plan = on_gpu(torch, args.seconds, args.data and str(args.data.resolve()))
    elif args.data:
        raise UserError("--data needs --device cuda")
    else:
        plan = on_cpu(torch, args.seconds, args.avx2, args.csvs)
    chosen = args.only or [*plan.rounds, *plan.once]
    for question in chosen:
        if question not in {*plan.rounds, *plan.once}:
            is_on_cpu = any(question in part for part in on_cpu("", 0, False, ""))
            raise UserError(f"--only {question} needs --device {'cpu' if is_on_cpu else 'cuda and --data'}")
    repeated, single = ([scripts for name, scripts in part.items() if name in chosen] for part in plan)
    if repeated and not Path(torch).is_file():
        raise UserError(f"no PyTorch: {torch} is missing; make .venv-bench/installed")
    numbered = [(number, repeated) for number in range(1, args.rounds + 1)] + [(0, single)]
    commands = [(number, command) for number, questions in numbered for scripts in questions for command in scripts]
    records, errors = run_all(commands, args.log, AVX2 if args.avx2 else {})
    others = measure.with_ratios(records.pop(0, []))
    print(f"\n{measure.processor()}{', AVX2 at most' * args.avx2}, {measure.cores()} cores; records: {args.log}")
    if records:
        merged = measure.by_rounds([records.get(number, []) for number in range(1, args.rounds + 1)])
        print(f"\n{args.rounds} rounds:\n\n{measure.table(merged, ('ratio', 'ratios', 'rounds'))}")
    if others:
        columns = [name for name in ONCE if any(name in record for record in others)]
        print(f"\nOnce:\n\n{measure.table(others, columns)}")
    if errors:
        raise UserError(f"{len(errors)} of {len(commands)} commands failed, the last: {errors[-1]}")


if __name__ == "__main__":
    cli.run(main)
