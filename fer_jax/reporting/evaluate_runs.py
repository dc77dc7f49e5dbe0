"""The evaluation of runs: predictions, metrics, a report of each, and a comparison of several."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fer_jax import inference
from fer_jax.core import run_folder
from fer_jax.data import labels
from fer_jax.evaluation import evaluator
from fer_jax.evaluation.evaluator import Data, Model
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import saliency
from fer_jax.inference.network import Network
from fer_jax.reporting import document, report, tables
from fer_jax.reporting.document import Text
from fer_jax.reporting.write import write, write_evaluation

COMPARISON = Path("experiments/comparison")


def evaluate_runs(
    runs: Sequence[Path],
    *,
    data_dir: str | None,
    split: str,
    checkpoint: str,
    protocol: str,
    flip: bool,
    ensemble: bool,
    out: Path | None,
) -> list[Evaluation]:
    """Evaluate runs on a split, write their reports, and print their tables.

    Args:
        runs: run folders, or folders of released networks; each once.
        data_dir: the data folder; None for the one that the first run was trained on.
        split: "train", "valid" or "test".
        checkpoint: "best" or "latest".
        protocol: the main protocol, of classes, slices, images and comparison.
        flip: average in the predictions for the mirrored images.
        ensemble: evaluate the mean of all runs' probabilities too.
        out: the folder of the report, or of the comparison of several; None for `<run>/report` (of a released network
            a folder of run_folder.REPORTS), and for `COMPARISON`.

    Raises:
        UserError: a run or the data cannot be read.
    """
    configs = [run_folder.read_config(run) for run in runs]  # a missing run shows before the data are read
    data_dir = data_dir or configs[0].data.dir
    with ThreadPoolExecutor(1) as pool:  # the data are read and compared while networks are restored
        loading = pool.submit(evaluator.load, data_dir, split)
        networks = [inference.restore(run, checkpoint) for run in runs]
        images = loading.result()
    names = evaluator.names(runs, flip)
    models = [evaluator.predict(name, network, images, flip) for name, network in zip(names, networks, strict=True)]
    shared = {"flip": flip, "data": data_dir}
    results = []
    for network, model in zip(networks, models, strict=True):
        # A comparison leaves the runs' own reports alone.
        folder = _report_folder(network.run, out) if len(models) == 1 else _comparison_folder(out, model.name)
        results.append(_evaluate_one(network, model, images, protocol, folder, shared))
    if ensemble:
        results.append(
            _evaluate_ensemble(networks, models, images, protocol, _comparison_folder(out, "ensemble"), shared)
        )
    if len(results) > 1:
        _compare(results, out or COMPARISON, {"checkpoints": [network.checkpoint for network in networks], **shared})
    return results


def _report_folder(run: Path, out: Path | None) -> Path:
    if out is not None:
        return out
    return run_folder.REPORTS / run.resolve().name if run_folder.is_released(run) else run / "report"


def _comparison_folder(out: Path | None, name: str) -> Path:
    return (out or COMPARISON) / name.replace(os.sep, "_")


def _evaluate_one(
    network: Network, model: Model, images: Data, protocol: str, folder: Path, shared: dict[str, Any]
) -> Evaluation:
    target, kept = labels.targets(images.split.votes, protocol)
    with ThreadPoolExecutor(1) as pool:  # XLA computes while numpy counts
        maps = pool.submit(saliency.saliency, network, images.split.images[kept], target[kept].argmax(axis=1))
        result = evaluator.evaluate(model, images, protocol)
    introduction = Text(_about(network, images.name, shared["data"]))
    blocks = [introduction, *report.page(result, images.split, network.history, maps.result())]
    facts = {"run": str(network.run), "step": network.step, "checkpoint": network.checkpoint, **shared}
    write_evaluation(folder, result, blocks, facts)
    return result


def _evaluate_ensemble(
    networks: Sequence[Network],
    models: Sequence[Model],
    images: Data,
    protocol: str,
    folder: Path,
    shared: dict[str, Any],
) -> Evaluation:
    result = evaluator.evaluate(evaluator.ensemble(models, shared["flip"]), images, protocol)
    members = ", ".join(model.name for model in models)
    blocks = [Text(f"The mean probability of {members}."), *report.page(result, images.split, [], None)]
    runs = [str(network.run) for network in networks]
    facts = {"runs": runs, "checkpoints": [network.checkpoint for network in networks], **shared}
    write_evaluation(folder, result, blocks, facts)
    return result


def _compare(results: Sequence[Evaluation], out: Path, facts: dict[str, Any]) -> None:
    blocks = report.comparison_page(results)
    facts = {**facts, "models": [tables.as_json(result) for result in results]}
    write(out, f"{len(results)} models on {results[0].split}", blocks, facts)
    for block in blocks:
        if isinstance(block, document.Table):
            print(f"{document.to_text(block)}\n")
    print(f"comparison: {out / 'report.html'}")


def _about(network: Network, split: str, data_dir: str) -> str:
    """The network, its training and its checkpoint, in words."""
    config, epochs = network.config, sum(record.step <= network.step for record in network.history)
    text = (
        f"{config.model.name} of the run folder {network.run}, trained on label mode {config.data.label_mode}: the "
        f"{network.checkpoint} checkpoint, of step {network.step:,}, after {epochs} of {config.train.epochs} epochs. "
        f"Evaluated on the images of {data_dir}."
    )
    versions = [f"{code['version']} {code['commit']}".strip() for code in network.code]
    if versions:
        text += f" Trained by fer_jax {', then '.join(versions)}."
    if network.checkpoint == "best" and split == "valid":
        text += " These images chose the checkpoint, which flatters it."
    return text
