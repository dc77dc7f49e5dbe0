"""How fast is fer_jax beside PyTorch on this machine? All benchmarks that need no GPU, in one run: `make bench`.

    python benchmarks/compare.py
    python benchmarks/compare.py --only pipeline --rounds 5
    python benchmarks/compare.py --only step --only epoch --device cuda

Training step, pipeline and whole epoch go by turns: each round runs each of their scripts once, PyTorch's in its own
virtual environment. A ratio is taken within a round, to the best PyTorch variant of that round; the table shows the
median of the rounds and each of them. The others (batch sizes, devices made of the CPU, the convolutions alone, start,
generator) run once, after that. Every record goes to experiments/bench.jsonl too, with its round and the machine's load
then. On two cores some 15 minutes; other programs should be still. With --device cuda, PyTorch and a jax that is
installed for it use the GPU for step and epoch, in larger batches and bfloat16.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

if not __package__:  # run as a script: only this file's folder is on sys.path, not the one above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from fer_jax.core import cli
from fer_jax.core.cli import UserError

ROOT = Path(__file__).resolve().parents[1]
TORCH = ROOT / ".venv-bench" / "bin" / "python"
OURS = sys.executable
CHANGES_RESULTS = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE")

Command = list[str]


def by_turns(torch: str, seconds: float, device: str) -> dict[str, list[Command]]:
    """The commands of a round, by question."""
    for_s, on, gpu = ["--seconds", str(seconds)], ["--device", device], device == "cuda"
    batch, dtype = ["--batch=1024"] * gpu, ["--dtype=bfloat16"] * gpu
    ours_dtype = ["--config.model.dtype=bfloat16"] * gpu
    epoch = ["--batch=256", *dtype] if gpu else ["--images=512", "--epochs=2"]
    ours_epoch = [OURS, "benchmarks/epoch.py"]
    ours_epoch += ["--config.train.batch_size=256", *ours_dtype] if gpu else epoch
    on_device = ["--config.augment.renderer=device"]
    on_device += ["--config.train.steps_per_call=109"] * gpu  # the 28,000 pictures in one call
    return {
        "step": [
            [torch, "benchmarks/torch_step.py", *for_s, *on, *batch, *dtype],
            [OURS, "benchmarks/train_step.py", *for_s, *batch, *ours_dtype],
        ],
        "pipeline": [[torch, "benchmarks/torch_pipeline.py", *for_s], [OURS, "benchmarks/pipeline.py", *for_s]],
        "epoch": [
            [torch, "benchmarks/torch_epoch.py", *on, *epoch],
            [torch, "benchmarks/torch_epoch.py", "--compile", *on, *epoch],
            ours_epoch,
            [*ours_epoch, *on_device],
        ],
    }


def once(csvs: str, seconds: float) -> dict[str, list[Command]]:
    """The commands that have no PyTorch beside them, by question."""
    step = [OURS, "benchmarks/train_step.py", "--seconds", str(seconds)]
    return {
        "scale": [
            [*step, *(f"--batch={size}" for size in (16, 64, 256))],
            *([*step, f"--devices={count}"] for count in (2, 4)),
        ],
        "convolutions": [[OURS, "benchmarks/convolutions.py"]],
        "start": [[OURS, "benchmarks/start.py"]],
        "generator": [[OURS, "benchmarks/generator.py", csvs]],
    }


def run(command: Command) -> list[measure.Record]:
    """The records that a benchmark prints.

    Raises:
        UserError: it failed; with the last line that it wrote.
    """
    environment = {name: value for name, value in os.environ.items() if name not in CHANGES_RESULTS}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command)} failed: {said[-1] if said else 'no output'}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def run_all(commands: Sequence[tuple[int, Command]], log: Path) -> dict[int, list[measure.Record]]:
    """The records of all commands by the round that each belongs to, also written to the log as they come."""
    rounds: dict[int, list[measure.Record]] = {}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as file, tqdm(commands, unit="command", disable=None) as bar:
        for number, command in bar:
            bar.set_description(Path(command[1]).stem)
            load = os.getloadavg()[0]
            for record in run(command):
                rounds.setdefault(number, []).append(record)
                line = json.dumps(record | {"round": number, "load": round(load, 2)})
                file.write(line + "\n")
                file.flush()
                tqdm.write(line)
    return rounds


def main() -> None:
    questions = (*by_turns("", 0, ""), *once("", 0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=questions, help="leave out the other questions (repeatable)")
    parser.add_argument("--rounds", type=int, default=3, help="of the scripts that go by turns (default 3)")
    parser.add_argument("--seconds", type=float, default=8, help="time for each measurement (default 8)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of step and epoch (default cpu)")
    parser.add_argument("--csvs", default="sample", help="folder of the two CSVs for the generator (default sample)")
    parser.add_argument("--torch-python", default=str(TORCH), help="a Python with requirements-bench.txt")
    parser.add_argument("--log", type=Path, default=ROOT / "experiments" / "bench.jsonl", help="where records go")
    args = parser.parse_args()
    chosen = args.only or questions
    turns = [each for name, each in by_turns(args.torch_python, args.seconds, args.device).items() if name in chosen]
    if turns and not Path(args.torch_python).is_file():
        raise UserError(f"no PyTorch: {args.torch_python} is missing; make .venv-bench/installed")
    rest = [each for name, each in once(args.csvs, args.seconds).items() if name in chosen]
    commands = [(number, each) for number in range(1, args.rounds + 1) for scripts in turns for each in scripts]
    records = run_all(commands + [(0, each) for scripts in rest for each in scripts], args.log)
    single = measure.with_ratios(records.pop(0, []))
    print(f"\n{measure.cores()} cores; records: {args.log}")
    if records:
        merged = measure.by_rounds([records[number] for number in sorted(records)])
        print(f"\nBy turns, {args.rounds} rounds:\n\n{measure.table(merged, ('ratio', 'ratios', 'rounds'))}")
    if single:
        print(f"\nOnce:\n\n{measure.table(single, ('ratio', 'cpu_s', 'compile_s', 'runs'))}")


if __name__ == "__main__":
    cli.run(main)
