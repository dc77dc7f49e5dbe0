"""The runs of a sweep: every variant of the config files with every seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from fer_jax.core import config as config_lib
from fer_jax.core.errors import UserError, one_line
from fer_jax.training.checks import check


class Run(NamedTuple):
    """One training of a sweep."""

    variant: str
    seed: int
    config: ConfigDict
    folder: Path


def variants(path: str, config: ConfigDict) -> dict[str, ConfigDict]:
    """The configs of a file by name: those of its `get_variants()`, or its one config by the name of the file.

    Args:
        path: a Python file, or the name of a shipped config. Its `get_variants()` returns the fields that differ from
            `get_config()`, by the name of the variant and by the dotted name of the field.
        config: the result of `get_config()`, with the overrides of the command line.

    Raises:
        UserError: the variants have another form, or name a field that does not exist.
    """
    file = config_lib.find(path)
    listed = config_lib.call(file, "get_variants", {file.stem: {}})
    if not (isinstance(listed, Mapping) and listed and all(isinstance(fields, Mapping) for fields in listed.values())):
        raise UserError(f"{path}: get_variants() must return {{name: {{field: value}}}}; see configs/ablation.py")
    configs = {}
    for name, changes in listed.items():
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name:
            raise UserError(f"{path}: {name!r} cannot be a variant's name: it cannot name a folder")
        if sections := [field for field in changes if isinstance(changes[field], Mapping)]:
            raise UserError(f"{path}: variant {name}: {sections[0]}: write fields by their dotted names, section.field")
        try:
            configs[name] = config_lib.with_values(config, changes)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: variant {name}: {one_line(error)}") from None
    return configs


def plan(paths: Sequence[str], overrides: Sequence[str], seeds: Sequence[int], workdir: Path) -> list[Run]:
    """The runs in their order: every variant with the first seed, then every variant with the second seed.

    Raises:
        UserError: a config cannot be used, two variants have the same name, or a config sets the seed.
    """
    named: dict[str, ConfigDict] = {}
    for path in paths:
        default = config_lib.load(path).seed
        for name, config in variants(path, config_lib.load(path, overrides)).items():
            if name in named:
                raise UserError(f"{path}: two variants are called {name}")
            if config.seed != default:
                raise UserError(f"{path}: {name} sets the seed, which a sweep takes from --seeds")
            check(config)
            named[name] = config
    runs = []
    for seed in seeds:
        for name, config in named.items():
            seeded = config_lib.with_values(config, {"seed": seed})
            runs.append(Run(name, seed, seeded, workdir / name / f"seed{seed}"))
    return runs


def chosen(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """The runs of the named variants; all runs where `names` is empty.

    Raises:
        UserError: no variant has that name.
    """
    variant_names = list(dict.fromkeys(run.variant for run in runs))
    if missing := [name for name in names if name not in variant_names]:
        raise UserError(f"no variant is called {missing[0]}; choose from: {', '.join(variant_names)}")
    return [run for run in runs if not names or run.variant in names]
