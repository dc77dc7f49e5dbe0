"""What a study found: a report to read, its trials as a table for programs, and a config of the best of them."""

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

SHOWN = 10  # best trials on the terminal; the report has all


def write(folder: Path, study: optuna.Study, search: Search, config: ConfigDict, say: Callable[[str], None]) -> None:
    """Write report.html and report.md with their pictures, metrics.json, trials.csv and tuned.py.

    Args:
        folder: of the study.
        study: with one finished trial or more.
        search: what was searched.
        config: the values of all fields that were not searched.
        say: is told the best trials and where the rest is.
    """
    ranked = study_lib.ranking(study)
    complete = [trial for trial in ranked if trial.state == TrialState.COMPLETE]
    about = f"{study.study_name}: {len(complete)} trials with a figure, {len(ranked) - len(complete)} pruned"
    table = ranking_table(ranked, search)._replace(caption=about)
    say(f"\n{document.to_text(table._replace(rows=table.rows[:SHOWN]))}\n")
    blocks: list[Block] = [Text("Figures are validation accuracies by majority."), Heading("Trials"), table]
    facts: dict[str, Any] = {"study": study.study_name, "complete": len(complete), "trials": len(ranked)}
    if complete:
        best, tuned = complete[0], folder / "tuned.py"
        values = study_lib.values(best, search.space)
        facts |= {"trial": study_lib.origin(best), "accuracy": best.value, "values": values}
        command = f"{cli.command('main')} --config {tuned}"
        if config.data.drop_repeats and "data.drop_repeats" not in values:  # that was for judging the trials
            command += " --config.data.drop_repeats=False"
        say(f"train the best trial's config: {command}")
        blocks[1:1] = [Text(_caution(search)), Text(f"Train the best: {command}")]
        blocks += pictures(study, complete, search)
    write_report(folder, f"Study {study.study_name}", blocks, facts)
    if complete:
        whole = config_lib.with_values(config, values)
        with atomic.replacing(tuned) as partial:
            partial.write_text(tuned_config(whole, [*values], best, f"Study {about}.", command))
    with atomic.replacing(folder / "trials.csv") as partial:
        partial.write_text(as_csv(ranked, search))
    say(f"report: {folder / 'report.html'} (report.md, trials.csv and the pictures beside it)")
    say(f"curves and HParams: tensorboard --logdir {folder}")


def _caution(search: Search) -> str:
    of = f"the mean over {search.seeds} seeds" if search.seeds > 1 else "of one seed"
    return (
        f"A trial's accuracy is that of its best epoch, {of}, on the pictures that choose the epoch and the trial: the "
        "highest of many is partly luck. Train the best with other seeds before you believe a small difference."
    )


def ranking_table(ranked: list[FrozenTrial], search: Search) -> Table:
    """A row for each finished trial, the best first; what was pruned comes last, with the best that it had reached."""
    rows = []
    for trial in ranked:
        accuracy, ended = study_lib.accuracy(trial), f"{len(trial.intermediate_values)}"
        if trial.state == TrialState.PRUNED:
            ended = f"pruned after {ended}"
        values = study_lib.values(trial, search.space).values()
        reached = "none" if accuracy is None else f"{accuracy:.2%}"
        rows.append([f"{study_lib.origin(trial)}", reached, ended, *map(study_lib.short, values)])
    return Table(["trial", "accuracy", "epochs", *search.space], rows)


def as_csv(ranked: list[FrozenTrial], search: Search) -> str:
    """The trials in the same order for programs, numbers in full; accuracy is the mean of `by_seed`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", "accuracy", "by_seed", "epochs", *search.space])
    for trial in ranked:
        by_seed = " ".join(map(repr, trial.user_attrs.get("accuracies", [])))
        row = [study_lib.origin(trial), trial.state.name.lower(), study_lib.accuracy(trial), by_seed]
        values = study_lib.values(trial, search.space).values()
        writer.writerow([*row, len(trial.intermediate_values), *values])
    return file.getvalue()


def pictures(study: optuna.Study, complete: list[FrozenTrial], search: Search) -> list[Block]:
    """Parallel coordinates of the trials with a figure, and which fields matter; [] if all figures are equal."""
    accuracy = [trial.value or 0.0 for trial in complete]
    if len(set(accuracy)) < 2:
        return []
    tried = [study_lib.values(trial, search.space) for trial in complete]
    scales = {}
    for name, of in search.space.items():
        column = [values[name] for values in tried]
        if isinstance(of, Range):
            scales[name] = study_plots.numbers(column, of.low, of.high, of.log)
        else:
            scales[name] = study_plots.choices(column, of)
    parallel = plots.png(study_plots.parallel(scales, accuracy, study.study_name))
    blocks: list[Block] = [
        Heading("Which values go with which accuracy"),
        ImageBlock("parallel", parallel, "Parallel coordinates: a row for each field and one for accuracy."),
    ]
    if all(values == tried[0] for values in tried):  # chance alone: there is nothing to fit
        return blocks
    shares = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    bars = plots.png(study_plots.importance(shares, len(complete), study.study_name))
    return [
        *blocks,
        Heading("Which fields matter"),
        Text(
            "How much of the differences in accuracy a field accounts for, by a random forest that was fitted to the "
            "trials which were not pruned (fANOVA, Hutter et al. 2014). With few trials it says little."
        ),
        ImageBlock("importance", bars, "Bars: the share of the variance that each field accounts for."),
    ]


def tuned_config(config: ConfigDict, searched: Sequence[str], best: FrozenTrial, about: str, command: str) -> str:
    """The text of a config file: the neutral config with the fields that were searched, and all others that differ."""
    fields, usual = (config_lib.flatten(values.to_dict()) for values in (config, schema.default_config()))
    found = [f"    config.{name} = {fields[name]!r}\n" for name in searched]
    others = [
        f"    config.{name} = {value!r}\n"
        for name, value in fields.items()
        if name not in searched and value != usual.get(name)
    ]
    reached = f"{best.value:.2%} validation accuracy by majority"
    return f'''"""The best trial of a tuning, number {study_lib.origin(best)}: {reached}.

{command}

{about}
It has the epochs of the tuning: for longer training add --config.train.epochs=...
"""

import fer_jax


def get_config():
    """The fields that were searched, then all others that differ from the neutral config."""
    config = fer_jax.default_config()
{"".join(found)}
{"".join(others)}    return config
'''
