"""The results of a study: a report to read, its trials as a CSV file, and a config of the best trial."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from ml_collections import ConfigDict
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from fer_jax.core import atomic, cli, schema
from fer_jax.core import config as config_lib
from fer_jax.reporting import document, plots
from fer_jax.reporting.document import Block, Heading, ImageBlock, Table, Text
from fer_jax.reporting.write import write as write_report
from fer_jax.search import study as study_lib
from fer_jax.search import study_plots
from fer_jax.search.space import Range, Search

BEST = 10  # trials on the terminal, or fewer where they do not fit; the report has all


def write(folder: Path, study: optuna.Study, search: Search, config: ConfigDict, say: Callable[[str], None]) -> None:
    """Write report.html and report.md with their plots, metrics.json, trials.csv and tuned.py.

    Args:
        folder: the study's folder.
        study: a study with at least one finished trial.
        search: the search space.
        config: the values of all fields that were not searched.
        say: gets the best trials and the paths of the files.
    """
    ranked = study_lib.ranking(study)
    complete = [trial for trial in ranked if trial.state == TrialState.COMPLETE]
    summary = f"{study.study_name}: {len(complete)} complete trials, {len(ranked) - len(complete)} pruned"
    say(f"\n{terminal_text(ranked, search, summary)}\n")
    table = ranking_table(ranked, search)._replace(caption=summary)
    blocks: list[Block] = [Text("Accuracy is on validation, by majority."), Heading("Trials"), table]
    facts: dict[str, Any] = {"study": study.study_name, "complete": len(complete), "trials": len(ranked)}
    if complete:
        best, tuned = complete[0], folder / "tuned.py"
        values = study_lib.values(best, search.space)
        facts |= {"trial": study_lib.origin(best), "accuracy": best.value, "values": values}
        command = f"{cli.command('main')} --config {tuned}"
        if config.data.drop_repeats and "data.drop_repeats" not in values:  # only the comparison of trials needs it
            command += " --config.data.drop_repeats=False"
        say(f"train the best trial's config: {command}")
        blocks[1:1] = [Text(_caution(search)), Text(f"Train the best trial's config: {command}")]
        blocks += plot_blocks(study, complete, search)
    write_report(folder, f"Study {study.study_name}", blocks, facts)
    if complete:
        whole = config_lib.with_values(config, values)
        with atomic.replacing(tuned) as partial:
            partial.write_text(tuned_config(whole, [*values], best, f"Study {summary}.", command), encoding="utf-8")
    with atomic.replacing(folder / "trials.csv") as partial:
        partial.write_text(as_csv(ranked, search), encoding="utf-8")
    say(f"report: {folder / 'report.html'} (report.md, trials.csv and the plots are next to it)")
    say(f"curves and HParams: tensorboard --logdir {folder}")


def _caution(search: Search) -> str:
    seeds = f"the mean over {search.seeds} seeds" if search.seeds > 1 else "of one seed"
    return (
        f"A trial's accuracy is that of its best epoch, {seeds}. The same images choose the epoch and the trial, so "
        "the highest of many accuracies is partly luck. Train the best trials with other seeds before you trust a "
        "small difference."
    )


def ranking_table(ranked: list[FrozenTrial], search: Search) -> Table:
    """A row for each finished trial, best first; pruned trials come last, with the best accuracy they reached."""
    rows = []
    for trial in ranked:
        score, epochs = study_lib.score(trial), f"{len(trial.intermediate_values)}"
        if trial.state == TrialState.PRUNED:
            epochs = f"pruned after {epochs}"
        values = study_lib.values(trial, search.space).values()
        accuracy = "none" if score is None else f"{score:.2%}"
        rows.append([f"{study_lib.origin(trial)}", accuracy, epochs, *map(study_lib.format_value, values)])
    return Table(["trial", "accuracy", "epochs", *search.space], rows)


def terminal_text(ranked: list[FrozenTrial], search: Search, summary: str) -> str:
    """The best trials in columns side by side, as many as fit a terminal."""
    table = ranking_table(ranked[:BEST], search)
    for count in range(len(table.rows), 0, -1):
        header, *rows = zip(table.header, *table.rows[:count], strict=True)
        text = document.to_text(Table(header, rows, f"{summary}; the best {count}" if count > 1 else summary))
        if all(name in text for name in search.space) and max(map(len, text.splitlines())) <= document.TERMINAL:
            break
    return text


def as_csv(ranked: list[FrozenTrial], search: Search) -> str:
    """The trials in the same order as CSV, numbers in full; accuracy is the mean of `by_seed`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", "accuracy", "by_seed", "epochs", *search.space])
    for trial in ranked:
        by_seed = " ".join(map(repr, trial.user_attrs.get("accuracies", [])))
        row = [study_lib.origin(trial), trial.state.name.lower(), study_lib.score(trial), by_seed]
        values = study_lib.values(trial, search.space).values()
        writer.writerow([*row, len(trial.intermediate_values), *values])
    return file.getvalue()


def plot_blocks(study: optuna.Study, complete: list[FrozenTrial], search: Search) -> list[Block]:
    """Parallel coordinates of the complete trials and the importance of each field; [] if all scores are equal."""
    scores = [trial.value or 0.0 for trial in complete]
    if len(set(scores)) < 2:
        return []
    points = [study_lib.values(trial, search.space) for trial in complete]
    scales = {}
    for name, dimension in search.space.items():
        column = [point[name] for point in points]
        if isinstance(dimension, Range):
            scales[name] = study_plots.numbers(column, dimension.low, dimension.high, dimension.log)
        else:
            scales[name] = study_plots.choices(column, dimension)
    parallel = plots.png(study_plots.parallel(scales, scores, study.study_name))
    blocks: list[Block] = [
        Heading("Values and accuracy"),
        ImageBlock("parallel", parallel, "Parallel coordinates: a row for each field and one for accuracy."),
    ]
    if all(point == points[0] for point in points):  # only chance differs: there is nothing to fit
        return blocks
    importances = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    bars = plots.png(study_plots.importance(importances, len(complete), study.study_name))
    return [
        *blocks,
        Heading("Importance of the fields"),
        Text(
            "The fraction of the variance of accuracy that a field explains, by a random forest fitted to the complete "
            "trials (fANOVA, Hutter et al. 2014). With few trials it is not reliable."
        ),
        ImageBlock("importance", bars, "Bars: the fraction of the variance that each field explains."),
    ]


def tuned_config(config: ConfigDict, searched: Sequence[str], best: FrozenTrial, summary: str, command: str) -> str:
    """The text of a config file: the neutral config, the searched fields, and all other fields that differ from it."""
    fields, defaults = (config_lib.flatten(values.to_dict()) for values in (config, schema.default_config()))
    tuned = [f"    config.{name} = {fields[name]!r}\n" for name in searched]
    others = [
        f"    config.{name} = {value!r}\n"
        for name, value in fields.items()
        if name not in searched and value != defaults.get(name)
    ]
    accuracy = f"{best.value:.2%} validation accuracy by majority"
    return f'''"""The best trial of a search, number {study_lib.origin(best)}: {accuracy}.

{command}

{summary}
It has the epochs of the search: for longer training add --config.train.epochs=...
"""

import fer_jax


def get_config():
    """Return the neutral config with the searched fields, then all other fields that differ."""
    config = fer_jax.default_config()
{"".join(tuned)}
{"".join(others)}    return config
'''
