"""Search for better values of config fields with Optuna, or go on with a search that was interrupted.

The config file says what is searched (get_search) and what is not (get_config); any field of the latter can be
overridden. A trial trains a network with the values it tries; its figure is the best validation accuracy by majority.
Trials that fall behind the others at the same epoch are pruned. The study folder gets a run folder for each trial and
at the end report.html (ranking, importance of the fields), trials.csv and tuned.py, a config of the best trial.

The same command goes on after an interruption. Started several times, on one machine or on many that share the
storage, the processes share out the trials; all end when --trials of the study are finished.
"""

import argparse
import functools
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fer_jax import cli
from fer_jax.cli import UserError

if TYPE_CHECKING:  # importing them takes seconds, and --help need not wait for it
    from ml_collections import ConfigDict

    from fer_jax.search_space import Search

EXAMPLE = """examples:
  python -m fer_jax.tune --config configs/tune.py --trials 50 --storage sqlite:///experiments/tune.db
  python -m fer_jax.tune --config configs/tune.py --sampler grid --study grid --config.train.epochs=2
  python -m fer_jax.tune --config configs/tune.py --storage postgresql+psycopg://fer@server/tuning
  python -m fer_jax.main --config experiments/tune/tuned.py --config.train.epochs=20 --config.data.drop_repeats=False
"""
STORAGE = "sqlite:///experiments/tune.db"


def _say(line: str) -> None:
    print(line, flush=True)


def check(config: "ConfigDict", search: "Search") -> None:
    """Raises UserError where the data are missing, or an end or a choice of the search, alone, cannot be trained."""
    from fer_jax import config as config_lib
    from fer_jax import data, devices, experiment, search_space

    device = devices.Devices()
    tried = [{name: value} for name, of in search.space.items() for value in search_space.ends(of)]
    for one in map(functools.partial(config_lib.with_values, config), [{}, *tried]):
        experiment.build(one)
        device.check_batch_size(one.train.batch_size)
        experiment.check_sources(one)
    for split in ("train", "valid"):
        data.load(config.data.dir, split)


def main() -> int:
    """Parse the command line, search, and tell what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.tune",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="what is searched, for example configs/tune.py")
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="of the whole study; default: 50")
    parser.add_argument("--storage", default=STORAGE, metavar="URL", help=f"the database; default: {STORAGE}")
    parser.add_argument("--sampler", default="tpe", choices=("tpe", "random", "grid"), help="default: tpe")
    parser.add_argument("--study", metavar="NAME", help="default: the name of the config")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="the study folder; default: experiments/<study>")
    # argparse would not list these: it only passes them on
    parser.add_argument_group("overrides", "--config.field=value sets a field that is not searched")
    args, overrides = parser.parse_known_args()
    if args.trials < 1:
        parser.error("--trials must be at least 1")
    name = args.study or Path(args.config).stem
    if not re.fullmatch(r"[\w.-]+", name):
        parser.error("--study names a folder: letters, digits, _, - and . only")
    if importlib.util.find_spec("optuna") is None:
        raise UserError("tuning needs optuna, which is not installed: pip install -e '.[tune]'")

    from fer_jax import config as config_lib
    from fer_jax import devices, search_space

    devices.tune_cpu()
    devices.cache_compilations()
    config = config_lib.load(args.config, overrides)
    search = search_space.load(args.config, config)
    check(config, search)

    from fer_jax import study as study_lib
    from fer_jax import trials

    study = study_lib.open_study(args.storage, name, args.sampler, search, config)
    wanted = min(args.trials, study.sampler.size) if isinstance(study.sampler, study_lib.Grid) else args.trials
    folder = args.workdir or Path("experiments") / name
    _say(f"study {name}: {args.sampler} search, {study_lib.progress(study, wanted)}")
    trials.run(study, search, config, folder, wanted, _say)
    if study_lib.ranking(study):
        from fer_jax import study_report

        study_report.write(folder, study, search, config, _say)
    return 0


if __name__ == "__main__":
    cli.run(main)
