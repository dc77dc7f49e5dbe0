"""The evaluation of runs: predictions, metrics, a report of each, and a comparison of several.

Reports need matplotlib's drawing, which takes more than a second to import. It is imported in a thread while networks
are restored, so the functions that write reports import their modules themselves.
"""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import matplotlib  # noqa: F401  # where the extra is missing, the error comes before the predictions
import numpy as np

from fer_jax import inference
from fer_jax.core import run_folder
from fer_jax.core.errors import UserError, shortened
from fer_jax.data import labels
from fer_jax.evaluation import evaluator, robustness
from fer_jax.evaluation.evaluator import Data, Model
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference import saliency
from fer_jax.inference.network import Network
from fer_jax.inference.saliency import Saliency
from fer_jax.reporting import document, tables
from fer_jax.reporting.write import write, write_evaluation

COMPARISON = Path("experiments/comparison")
T = TypeVar("T")


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
    with_robustness: bool = False,
) -> list[Evaluation]:
    """Evaluate runs on a split, write their reports, and print their metrics.

    Several runs are compared; each has a report in a folder of the comparison.

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
        with_robustness: evaluate on corrupted images too.

    Raises:
        UserError: the data or a run cannot be read. Of several runs the others are evaluated first.
    """
    data_dir = data_dir or _data_dir(runs)
    problems: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(evaluator.load_data, data_dir, split)
        pool.submit(import_module, "fer_jax.reporting.report")
        networks = _usable(runs, lambda run: inference.restore(run, checkpoint), problems)
        data = loading.result()
        comparing = pool.submit(lambda: data.subsets)  # during the compilation, which takes one core
        names = dict(zip(networks, evaluator.model_names([*networks], flip), strict=True))
        models = _usable(
            [*networks], lambda run: evaluator.predict_splits(names[run], networks[run], data, flip), problems
        )
        evaluated = [networks[run] for run in models]
        corrupted = [_predict_corrupted(network, data, protocol, flip, with_robustness) for network in evaluated]
        comparing.result()
        facts = {"flip": flip, "data": data_dir}
        if len(runs) == 1:
            folder = out or _report_folder(evaluated[0].run)
            result = _evaluate_network(pool, evaluated[0], models[runs[0]], corrupted[0], data, protocol, folder, facts)
            _print_result(result, folder)
            return [result]
        out = out or COMPARISON
        results = _evaluate_several(
            pool, evaluated, [*models.values()], corrupted, data, protocol, out, ensemble, facts
        )
    if problems:
        raise UserError(f"{len(problems)} of {len(runs)} runs were not evaluated; the first: {problems[0]}")
    return results


def _data_dir(runs: Sequence[Path]) -> str:
    """The data folder of the first run that can be read; the error of a single run is its own."""
    if len(runs) == 1:
        return run_folder.read_config(runs[0]).data.dir
    problems: list[str] = []
    for run in runs:
        try:
            return run_folder.read_config(run).data.dir
        except UserError as error:
            problems.append(str(error))
    raise _none_usable(problems)


def _usable(runs: Sequence[Path], work: Callable[[Path], T], problems: list[str]) -> dict[Path, T]:
    """The results of the runs that can be used; the errors of the others go to stderr and to `problems`.

    The only run has no others: its error is raised.
    """
    results = {}
    for run in runs:
        try:
            results[run] = work(run)
        except UserError as error:
            if len(runs) == 1 and not problems:
                raise
            problems.append(str(error))
            print(shortened(f"problem: {error}"), file=sys.stderr, flush=True)
    if not results:
        raise _none_usable(problems)
    return results


def _none_usable(problems: Sequence[str]) -> UserError:
    return UserError(f"no run can be used; the first: {problems[0]}")


def _evaluate_several(
    pool: Executor,
    networks: Sequence[Network],
    models: Sequence[Model],
    corrupted: Sequence[np.ndarray | None],
    data: Data,
    protocol: str,
    out: Path,
    ensemble: bool,
    facts: dict[str, Any],
) -> list[Evaluation]:
    """Write a comparison with a report of each model; the runs' own reports stay as they are."""
    results = []
    for network, model, log_probs in zip(networks, models, corrupted, strict=True):
        folder = _subfolder(out, model.name)
        results.append(_evaluate_network(pool, network, model, log_probs, data, protocol, folder, facts))
    if ensemble and len(models) > 1:
        folder = _subfolder(out, "ensemble")
        results.append(_evaluate_ensemble(networks, models, corrupted, data, protocol, folder, facts))
    if len(results) > 1:
        _compare(results, out, {"checkpoints": [network.checkpoint for network in networks], **facts})
    return results


def _report_folder(run: Path) -> Path:
    return run_folder.REPORTS / run.resolve().name if run_folder.is_released(run) else run / "report"


def _subfolder(out: Path, name: str) -> Path:
    return out / name.replace(os.sep, "_")


def _predict_corrupted(network: Network, data: Data, protocol: str, flip: bool, wanted: bool) -> np.ndarray | None:
    if not wanted:
        return None
    kept = labels.targets(data.split.votes, protocol)[1]
    name = network.run.resolve().name
    return robustness.predict(network, data.split.images[kept], flip, lambda line: print(f"{name}: {line}", flush=True))


def _saliency(network: Network, data: Data, protocol: str) -> Saliency:
    target, kept = labels.targets(data.split.votes, protocol)
    return saliency.saliency(network, data.split.images[kept], target[kept].argmax(axis=1))


def _evaluate_network(
    pool: Executor,
    network: Network,
    model: Model,
    corrupted: np.ndarray | None,
    data: Data,
    protocol: str,
    folder: Path,
    facts: dict[str, Any],
) -> Evaluation:
    from fer_jax.reporting import report

    maps = pool.submit(_saliency, network, data, protocol)  # while the page is drawn, which takes one core
    result = evaluator.evaluate(model, data, protocol)
    if corrupted is not None:
        result = robustness.add(result, corrupted, data.subsets)
    blocks = report.page(result, data.split, network.history, maps.result, _about(network, data.name, facts["data"]))
    facts = {"run": str(network.run), "step": network.step, "checkpoint": network.checkpoint, **facts}
    write_evaluation(folder, result, blocks, facts)
    print(tables.verdict(result), flush=True)
    return result


def _evaluate_ensemble(
    networks: Sequence[Network],
    models: Sequence[Model],
    corrupted: Sequence[np.ndarray | None],
    data: Data,
    protocol: str,
    folder: Path,
    facts: dict[str, Any],
) -> Evaluation:
    from fer_jax.reporting import report

    result = evaluator.evaluate(evaluator.ensemble(models, facts["flip"]), data, protocol)
    if log_probs := [values for values in corrupted if values is not None]:
        result = robustness.add(result, inference.average(log_probs), data.subsets)
    about = f"The mean probability of {', '.join(model.name for model in models)}."
    runs = [str(network.run) for network in networks]
    facts = {"runs": runs, "checkpoints": [network.checkpoint for network in networks], **facts}
    write_evaluation(folder, result, report.page(result, data.split, [], None, about), facts)
    print(tables.verdict(result), flush=True)
    return result


def _print_result(result: Evaluation, folder: Path) -> None:
    printed = [tables.main_table(result), tables.duplicates_table(result), tables.class_table(result)]
    if result.robustness is not None:
        from fer_jax.reporting import robustness_report

        blocks = robustness_report.section(result, result.robustness)
        printed += [block for block in blocks if isinstance(block, document.Table)]
    for table in printed:
        print(f"\n{document.to_text(table)}")
    print(f"\nreport: {folder / 'report.html'} (report.md, metrics.json and the plots are next to it)", flush=True)


def _compare(results: Sequence[Evaluation], out: Path, facts: dict[str, Any]) -> None:
    from fer_jax.reporting import comparison_report

    pairs = comparison_report.compare_pairs(results)
    facts = {**facts, "models": [tables.as_json(result) for result in results]}
    title = f"{len(results)} models on the {tables.SPLITS[results[0].split]} split"
    write(out, title, comparison_report.page(results, pairs), facts)
    print(f"\n{comparison_report.text(results, pairs)}\n")
    print(f"comparison: {out / 'report.html'} (with a report of each model in the folders next to it)", flush=True)


def _about(network: Network, split: str, data_dir: str) -> str:
    """The network, its training and its checkpoint, in words."""
    config, epochs = network.config, sum(record.step <= network.step for record in network.history)
    text = (
        f"The network is {config.model.name} of the run folder {network.run}, trained on label mode "
        f"{config.data.label_mode}: the {network.checkpoint} checkpoint, of step {network.step:,}, after {epochs} of "
        f"{config.train.epochs} epochs. It was evaluated on the images of {data_dir}."
    )
    versions = [f"{code['version']} {code['commit']}".strip() for code in network.code]
    if versions:
        text += f" It was trained by fer_jax {', then '.join(versions)}."
    if network.checkpoint == "best" and split == "valid":
        text += " These images chose the checkpoint, which flatters it."
    return text
