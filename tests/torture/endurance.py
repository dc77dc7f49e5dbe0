"""300 epochs of the drawn sample in one process: its memory, threads and open files stay flat."""

import gc
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fer_jax.train import Ending, train
from tests.conftest import draw_sample
from tests.small_runs import small_config

WARM_UP = 0.2  # of the epochs: caches fill, threads start
GROWTH_MB = 20  # from the warm-up to the end, at most
SPREAD = 5  # threads and files between two epochs: those of saving come and go


class Usage(NamedTuple):
    """The resources of this process."""

    memory_mb: float
    threads: int
    files: int


def usage() -> Usage:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident_kb = int(status.partition("VmRSS:")[2].split()[0])
    return Usage(resident_kb / 1024, threading.active_count(), len(os.listdir("/proc/self/fd")))


def run(epochs: int, say: Callable[[str], None]) -> tuple[list[Usage], str]:
    """Train, and return the usage after each epoch and the name of what has grown, "" if nothing has."""
    with tempfile.TemporaryDirectory(prefix="torture-endurance-") as name:
        base = Path(name)
        config = small_config(draw_sample(base))
        config.train.epochs = epochs
        usages: list[Usage] = []

        def listen(line: str) -> None:
            if line.startswith("epoch "):
                usages.append(usage())
                if len(usages) % 50 == 0:
                    say(f"epoch {len(usages)}: {usages[-1]}")

        ending = train(config, base / "run", listen)
        if ending != Ending("complete"):
            return usages, f"ending {ending}"
    return usages, _growth(usages)


def _growth(usages: list[Usage]) -> str:
    """The names of what is larger in the last fifth of the epochs than after the warm-up."""
    fifth = max(1, int(WARM_UP * len(usages)))
    early, late = usages[fifth : 2 * fifth], usages[-fifth:]
    grown = [
        name
        for name in ("threads", "files")
        if max(getattr(each, name) for each in late) > max(getattr(each, name) for each in early) + SPREAD
    ]
    if min(each.memory_mb for each in late) > max(each.memory_mb for each in early) + GROWTH_MB:
        grown.append("memory_mb")
    return ", ".join(grown)
