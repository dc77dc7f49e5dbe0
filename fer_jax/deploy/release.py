"""A trained run as a small folder to ship: config, weights and a model card."""

import os
import shlex
import shutil
import tempfile
from pathlib import Path

from ml_collections import ConfigDict

from fer_jax import inference
from fer_jax.core import config as config_lib
from fer_jax.core import run_folder, shipped
from fer_jax.core.errors import UserError
from fer_jax.core.run_folder import CARD, WEIGHTS
from fer_jax.deploy import model_card
from fer_jax.evaluation import evaluator
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import weights
from fer_jax.reporting import document, tables


def release(run: Path, out: Path, which: str, data_dir: str | None = None, half: bool = False) -> Evaluation:
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
    run_folder.check_replaceable(out)
    data_dir = data_dir or run_folder.read_config(run).data.dir
    trained = inference.restore(run, which)
    if not trained.history:
        raise UserError(f"{run} has not finished an epoch; train on before you release it")
    half = half or weights.is_half(run)  # what was rounded once stays so
    valid = evaluator.load(data_dir, "valid")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=out.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        shutil.copyfile(run / "config.json", new / "config.json")
        facts = trained.checkpoint, trained.step, trained.config.seed, trained.history
        weights.save(new, weights.Weights(trained.variables, *facts), half)

        network = inference.restore(new, which)._replace(run=out)  # what is judged is what is released
        model = evaluator.predict(out.name, network, valid, flip=False)
        result = evaluator.evaluate(model, valid, "majority")
        size = (new / WEIGHTS).stat().st_size
        again = commands(run, out, trained.config, trained.checkpoint) + (" --half" if half else "")
        blocks = model_card.page(network, result, size, again, half)
        (new / CARD).write_text(document.to_markdown(f"Model card: {out.name}", blocks))
        run_folder.check_replaceable(out)  # some time has gone by
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(new, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
    return result


def commands(run: Path, out: Path, config: ConfigDict, checkpoint: str) -> str:
    """The commands that train the network and release it, from the file of configs/ that is nearest to its config.

    Raises:
        UserError: there are no configs.
    """
    wanted = config_lib.flatten(config_lib.as_json(config))
    found = []
    for path in shipped.configs().values():
        try:
            fields = config_lib.flatten(config_lib.as_json(config_lib.load(str(path))))
        except UserError:  # not one to train by
            continue
        changed = {name: value for name, value in wanted.items() if name in fields and fields[name] != value}
        found.append((len(changed), path.stem != run.name, path.name, {**changed, "seed": config.seed}))
    if not found:
        raise UserError("the card names a shipped config, but none is installed: install fer_jax again")
    *_, name, changed = min(found)
    folder = Path("experiments") / run.name
    overrides = [
        f"--config.{field}={tuple(value) if isinstance(value, list) else value}" for field, value in changed.items()
    ]
    train = ["python", "-m", "fer_jax.main", "--config", f"configs/{name}", "--workdir", str(folder), *overrides]
    again = ["python", "-m", "fer_jax.release", "--run", str(folder)]
    again += ["--out", f"{out}-again", "--checkpoint", checkpoint]
    return f"{shlex.join(train)}\n{shlex.join(again)}"


def release_and_print(run: Path, out: Path, which: str, data_dir: str | None, half: bool) -> None:
    """`release`, then print the card's table and where the folder is."""
    result = release(run, out, which, data_dir, half)
    print(f"{document.to_text(tables.main_table(result))}\n")
    size = (out / WEIGHTS).stat().st_size
    print(f"released: {out} ({size / 1e6:.1f} MB of weights; the card is {out / CARD})")
