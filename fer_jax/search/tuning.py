"""A search from its config file to its report."""

import functools
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from fer_jax.core import config as config_lib
from fer_jax.core.devices import Devices
from fer_jax.data import folders
from fer_jax.inference import sources
from fer_jax.search import space as search_space
from fer_jax.search import storage as storage_lib
from fer_jax.search import study as study_lib
from fer_jax.search import study_report, trials
from fer_jax.search.space import Search
from fer_jax.training.checks import check


def tune(
    config_name: str,
    overrides: Sequence[str],
    storage: str,
    name: str,
    sampler: str,
    count: int,
    folder: Path,
) -> str:
    """Search until `count` trials of the study are finished, then write its report.

    Return the name of the signal that stopped it, or "".

    Args:
        config_name: a config file with `get_config()` and `get_search()`, or the name of a shipped one.
        overrides: `--config.field=value` arguments for fields that are not searched.
        storage: the URL of the database.
        name: the study's name.
        sampler: "tpe", "random" or "grid".
        count: the number of trials of the whole study; a grid has at most one for each of its points.
        folder: the study's folder.

    Raises:
        UserError: config, search, data or storage cannot be used.
    """
    config = config_lib.load(config_name, overrides)
    search = search_space.load(config_name, config)
    check_search(config, search)
    with study_lib.quiet_optuna():
        study = study_lib.open_study(storage, name, sampler, search, config)
        try:
            count = min(count, study.sampler.size) if isinstance(study.sampler, study_lib.Grid) else count
            _print(f"study {name}: {sampler} search, {study_lib.progress(study, count)}")
            signal_name = trials.run(study, search, config, folder, count, _print)
            if study_lib.ranking(study):
                study_report.write(folder, study, search, config, _print)
            return signal_name
        finally:
            storage_lib.close(study)


def check_search(config: ConfigDict, search: Search) -> None:
    """Raise UserError if data are missing, or if one end of a range or one choice cannot be trained by itself."""
    devices = Devices()
    single = [{name: value} for name, dimension in search.space.items() for value in search_space.ends(dimension)]
    for trial_config in map(functools.partial(config_lib.with_values, config), [{}, *single]):
        check(trial_config)
        devices.check_batch_size(trial_config.train.batch_size)
        sources.check(trial_config)
    for split in ("train", "valid"):
        folders.load(config.data.dir, split)


def _print(line: str) -> None:
    print(line, flush=True)
