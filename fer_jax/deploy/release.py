"""The release of a trained run: a small folder with its config, weights and model card."""

import os
import shlex
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from fer_jax import inference
from fer_jax.core import atomic, run_folder, shipped
from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError
from fer_jax.core.run_folder import CARD, CONFIG, GRAPH, PREDICTIONS, WEIGHTS
from fer_jax.data import digests, folders
from fer_jax.data.folders import Split
from fer_jax.deploy import model_card
from fer_jax.evaluation import evaluator, robustness
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import weights
from fer_jax.reporting import document, tables


def release(
    run: Path,
    out: Path,
    which: str,
    data_dir: str | None = None,
    half: bool = False,
    with_robustness: bool = False,
) -> Evaluation:
    """Write the folder `out` and return the evaluation in its card; a failure leaves `out` as it was.

    Args:
        run: the run folder, or that of a released network, whose card is then written again.
        out: the new folder, or a released one to replace.
        which: the "best" or "latest" checkpoint.
        data_dir: the data folder with the validation images; None for the one that the run was trained on.
        half: store the kernels in float16.
        with_robustness: evaluate on corrupted images too.

    Raises:
        UserError: the run or the data cannot be read, or `out` is another folder.
    """
    run_folder.check_replaceable(out)
    data_dir = data_dir or run_folder.read_config(run).data.dir
    trained = inference.restore(run, which)
    if not trained.history:
        raise UserError(f"{run} has not finished an epoch; train on before you release it")
    half = half or weights.is_half(run)  # rounded kernels stay rounded
    origin = commands(run, out, trained.config, trained.checkpoint, half, with_robustness)
    valid = evaluator.load_data(data_dir, "valid")
    other = _other_images(trained.config.data.dir, valid.split, data_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.writing(out), tempfile.TemporaryDirectory(prefix=".release-", dir=out.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        shutil.copyfile(run / CONFIG, new / CONFIG)
        if (run / PREDICTIONS).exists():  # others can train as this run did, without its teachers
            shutil.copyfile(run / PREDICTIONS, new / PREDICTIONS)
        facts = trained.checkpoint, trained.step, trained.config.seed, trained.history
        weights.save(new, weights.Weights(trained.variables, *facts), half)
        _write_graph(new, out.name)

        network = inference.restore(new, which)._replace(run=out)  # the released files are evaluated
        model = evaluator.predict_splits(out.name, network, valid, flip=False)
        result = evaluator.evaluate(model, valid, "majority")
        if with_robustness:
            images = valid.split.images[result.rows]
            corrupted = robustness.predict(network, images, False, lambda line: print(line, flush=True))
            result = robustness.add(result, corrupted, valid.subsets)
        blocks = model_card.page(network, result, (new / WEIGHTS).stat().st_size, origin, half, *other)
        (new / CARD).write_text(document.to_markdown(f"Model card: {out.name}", blocks), encoding="utf-8")
        run_folder.check_replaceable(out)  # again, since the evaluation took a while
        try:
            if out.exists():
                os.replace(out, old)
            os.replace(new, out)
        except BaseException:  # a signal too: the scratch folder is deleted
            if old.exists() and not out.exists():
                os.replace(old, out)
            raise
    return result


def _other_images(trained_on: str, valid: Split, data_dir: str) -> tuple[str, str]:
    """The data folders of training and of `valid`, which is from `data_dir`; each "" if its images are FER2013's."""
    elsewhere = trained_on != data_dir and folders.has(trained_on, "valid")
    known = folders.load(trained_on, "valid") if elsewhere else valid
    of_training, of_valid = (digests.are_of_fer2013(split.digests) for split in (known, valid))
    return "" if of_training else trained_on, "" if of_valid else data_dir


def _write_graph(folder: Path, name: str) -> None:
    """Write the graph for onnxruntime, if onnx is installed."""
    if find_spec("onnx"):
        from fer_jax.deploy import onnx_model  # onnx is an extra

        onnx_model.write_graph(folder, name)


def commands(
    run: Path, out: Path, config: ConfigDict, checkpoint: str, half: bool = False, with_robustness: bool = False
) -> str:
    """Return the commands that train and release a network, from the shipped configs that are nearest.

    The run whose weights it started from (`train.init_from`), and the run before that one, are trained first, by the
    configs in their own folders. A released network, or a folder that is gone, has no command here. The network itself
    is trained in the folder of its run's name under experiments/, or in another if that one is taken.

    Raises:
        UserError: no config is shipped.
    """
    earlier = _earlier(config)
    folder = Path("experiments") / run.name
    while folder in [one.run for one in earlier]:
        folder = folder.with_name(f"{folder.name}-again")
    lines = [_training_command(one.config, one.run.name, one.run) for one in earlier]
    lines.append(_training_command(config, run.name, folder))
    released = ["python", "-m", "fer_jax.release", "--run", str(folder)]
    released += ["--out", f"{out}-again", "--checkpoint", checkpoint]
    released += [flag for flag, on in (("--half", half), ("--robustness", with_robustness)) if on]
    return "\n".join(shlex.join(line) for line in [*lines, released])


class _Trained(NamedTuple):
    run: Path
    config: ConfigDict


def _earlier(config: ConfigDict) -> list[_Trained]:
    """Return the runs that are trained before one of `config`, the first one first."""
    runs: list[_Trained] = []
    source = config.train.init_from
    while source and (trained := _trained_here(source)):
        if trained in runs:  # in a circle: none of them can be trained from nothing
            return []
        runs.insert(0, trained)
        source = trained.config.train.init_from
    return runs


def _trained_here(name: str) -> _Trained | None:
    """Return the run folder of that name and its config; None if there is none, or a released network."""
    try:
        run = run_folder.find(name)
        return None if run_folder.is_released(run) else _Trained(run, run_folder.read_config(run))
    except UserError:  # what it would add is worth less than the card
        return None


def _training_command(config: ConfigDict, name: str, folder: Path) -> list[str]:
    """Return the command that trains `config` in `folder`, preferably by the shipped config called `name`."""
    target = config_lib.flatten(config_lib.as_json(config))
    candidates = []
    for path in shipped.configs().values():
        try:
            fields = config_lib.flatten(config_lib.as_json(config_lib.load(str(path))))
        except UserError:  # not a training config
            continue
        changes = {field: value for field, value in target.items() if field in fields and fields[field] != value}
        candidates.append((len(changes), path.stem != name, path.name, {**changes, "seed": config.seed}))
    if not candidates:
        raise UserError("the card names a shipped config, but none is installed: install fer_jax again")
    *_, file, changes = min(candidates)
    overrides = [
        f"--config.{field}={tuple(value) if isinstance(value, list) else value}" for field, value in changes.items()
    ]
    return ["python", "-m", "fer_jax.main", "--config", f"configs/{file}", "--workdir", str(folder), *overrides]


def release_and_print(
    run: Path, out: Path, which: str, data_dir: str | None, half: bool, with_robustness: bool
) -> None:
    """Release a run, and print the card's main table and the folder."""
    result = release(run, out, which, data_dir, half, with_robustness)
    print(f"{document.to_text(tables.main_table(result))}\n")
    size = (out / WEIGHTS).stat().st_size
    print(f"released: {out} ({size / 1e6:.1f} MB of weights; the card is {out / CARD})")
    if not (out / GRAPH).exists():
        print(f"without {GRAPH}, for onnxruntime: it needs the extra export")
