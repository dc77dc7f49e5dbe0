"""Make a small folder of a trained run that can be shipped: config, weights and a model card, without checkpoints.

The folder gets config.json (as in the run), weights.safetensors (what predictions are made with; no pickle) and
README.md, the model card. What reads a run folder reads it too. The card's figures are computed here, from the files
that are released, on the validation pictures.
"""

import argparse
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fer_jax import cli
from fer_jax.cli import UserError

if TYPE_CHECKING:  # importing them takes seconds, and --help need not wait for it
    from ml_collections import ConfigDict

    from fer_jax.evaluation import Evaluation

EXAMPLE = """examples:
  python -m fer_jax.release --run experiments/base --out pretrained/mine
  python -m fer_jax.release --run experiments/base --out pretrained/mine --checkpoint latest --half --data data
"""
CONFIGS = Path(__file__).parent.parent / "configs"
CARD = "README.md"


def release(run: Path, out: Path, which: str, data_dir: str | None = None, half: bool = False) -> "Evaluation":
    """Write the folder `out` for the "best" or "latest" checkpoint of a run, whole or not at all.

    Args:
        run: the run folder; it may be a released one, whose card is then written anew.
        out: the new folder, or a released one to replace.
        which: the checkpoint.
        data_dir: of the validation pictures; None for the one the run was trained on.
        half: keep the kernels in float16.

    Returns:
        The figures in the card.

    Raises:
        UserError: the run or the data cannot be read, or `out` is something else.
    """
    from fer_jax import config as config_lib
    from fer_jax import document, evaluate, inference, model_card, weights

    check_replaceable(out)
    data_dir = data_dir or config_lib.read(run).data.dir
    trained = inference.restore(run, which)
    if not trained.history:
        raise UserError(f"{run} has not finished an epoch; train on before you release it")
    half = half or weights.is_half(run)  # what was rounded once stays so
    data = evaluate.load(data_dir, "valid")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=out.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        shutil.copyfile(run / "config.json", new / "config.json")
        facts = trained.checkpoint, trained.step, trained.config.seed, trained.history
        weights.save(new, weights.Weights(trained.variables, *facts), half)

        network = inference.restore(new, which)._replace(run=out)  # what is judged is what is released
        model = evaluate.predict(out.name, network, data, flip=False)
        result = evaluate.judge(model, data, "majority")
        size = (new / config_lib.WEIGHTS).stat().st_size
        again = commands(run, out, trained.config, trained.checkpoint) + (" --half" if half else "")
        blocks = model_card.page(network, result, size, again, half)
        (new / CARD).write_text(document.to_markdown(f"Model card: {out.name}", blocks))
        check_replaceable(out)  # some time has gone by
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(new, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
    return result


def check_replaceable(out: Path) -> None:
    """Raises UserError unless `out` is new, empty, or a released folder with nothing of the user's in it."""
    from fer_jax.config import WEIGHTS

    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise UserError(f"{out} is no folder; choose another --out")
    there = {path.name for path in out.iterdir()}
    if there and WEIGHTS not in there:
        raise UserError(f"{out} is there and holds no released network; choose another --out")
    if others := there - {"config.json", WEIGHTS, CARD, "report"}:
        raise UserError(f"{out} would be replaced, but also holds {min(others)}; move it away or choose another --out")


def commands(run: Path, out: Path, config: "ConfigDict", checkpoint: str) -> str:
    """The commands that train the network and release it, from the file of configs/ that is nearest to its config.

    Raises:
        UserError: there are no configs.
    """
    from fer_jax import config as config_lib

    wanted = config_lib.flatten(config_lib.as_json(config))
    found = []
    for path in sorted(CONFIGS.glob("*.py")):
        try:
            fields = config_lib.flatten(config_lib.as_json(config_lib.load(str(path), [])))
        except UserError:  # not one to train by
            continue
        changed = {name: value for name, value in wanted.items() if name in fields and fields[name] != value}
        found.append((len(changed), path.stem != run.name, path.name, {**changed, "seed": config.seed}))
    if not found:
        raise UserError(f"no configs in {CONFIGS}, one of which the card names; run it from the repository's root")
    *_, name, changed = min(found)
    folder = Path("experiments") / run.name
    overrides = [
        f"--config.{field}={tuple(value) if isinstance(value, list) else value}" for field, value in changed.items()
    ]
    train = ["python", "-m", "fer_jax.main", "--config", f"configs/{name}", "--workdir", str(folder), *overrides]
    again = ["python", "-m", "fer_jax.release", "--run", str(folder)]
    again += ["--out", f"{out}-again", "--checkpoint", checkpoint]
    return f"{shlex.join(train)}\n{shlex.join(again)}"


def main() -> int:
    """Parse the command line and release."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.release",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write, or to replace")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--data", metavar="DIR", help="the data folder (default: the one the run was trained on)")
    parser.add_argument("--half", action="store_true", help="keep the kernels in float16: half the size")
    args = parser.parse_args()

    from fer_jax import config

    check_replaceable(args.out)  # what is wrong with the folders shows before jax is imported
    config.read(args.run)

    from fer_jax import devices, document, tables

    devices.tune_cpu()
    devices.cache_compilations()
    result = release(args.run, args.out, args.checkpoint, args.data, args.half)
    print(f"{document.to_text(tables.main_table(result))}\n")
    size = (args.out / config.WEIGHTS).stat().st_size
    print(f"released: {args.out} ({size / 1e6:.1f} MB of weights; the card is {args.out / CARD})")
    return 0


if __name__ == "__main__":
    cli.run(main)
