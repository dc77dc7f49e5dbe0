"""The settings of this process: speed on CPUs, compiled programs that are kept, other processes, requests to stop."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import jax
import jaxlib
from jax.experimental import multihost_utils

from fer_jax.core.errors import UserError, one_line

# Tried with 0.10.2, 0.11.2 and 0.12.0; a jaxlib that does not know the flag of `tune_cpu` would abort.
KNOWN_JAXLIB = ("0.10.", "0.11.", "0.12.")


def start(distributed: bool = False) -> None:
    """Set jax up for a command, before it is used.

    Args:
        distributed: join the other processes of the run, where the environment names them.

    Raises:
        UserError: the other processes were not found.
    """
    tune_cpu()
    if distributed:
        _join()
    _cache_compilations()


def is_first_process() -> bool:
    """True in the process that speaks for all processes of a run."""
    return jax.process_index() == 0


def _join() -> None:
    """Make this process one of many where JAX_COORDINATOR_ADDRESS is set; its number comes from the cluster's
    environment (SLURM, Open MPI, ...) or from JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
        UserError: the other processes were not found.
    """
    if "JAX_COORDINATOR_ADDRESS" not in os.environ:
        return
    numbers = [os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
    try:
        count, index = (None if number is None else int(number) for number in numbers)
        jax.distributed.initialize(num_processes=count, process_id=index)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot join the processes at JAX_COORDINATOR_ADDRESS: {one_line(error)}") from None


@contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
    """Within it SIGTERM and the first Ctrl-C only leave a note; a second Ctrl-C interrupts as usual.

    Of several processes all must stop at the same step: there JAX's preemption service makes them agree on one
    after SIGTERM, and Ctrl-C interrupts at once.

    Yields a function that returns the name of the signal that came, or ""; all processes must call it equally often. It
    may be called afterwards too. Where an error ends the block, a signal that came has its usual effect after all.
    """
    received, asked = "", 0

    def agreed() -> str:
        nonlocal received, asked
        asked += 1  # the service agrees on one of these numbers, so none may be left out
        if not received and multihost_utils.reached_preemption_sync_point(asked):  # True for one of them only
            received = "SIGTERM"
        return received

    if jax.process_count() > 1:
        yield agreed
        return

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield lambda: received
    except Exception:
        put_back()
        if received:  # whoever handles the error would go on without knowing of the signal
            signal.raise_signal(signal.Signals[received])
        raise
    finally:
        put_back()


def tune_cpu() -> None:
    """Two settings for speed on CPUs (what they gave: docs/performance.md).

    XLA frees a step's buffers after it, and glibc hands large ones back to the kernel, which then has to clear
    60,000 fresh pages in the next step: here freed memory is kept. And XLA's YNNPACK convolutions, in the versions
    that this was measured on, run on one thread for large pictures: there they are switched off.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "mallopt"):
        m_arena_max, m_mmap_max, m_trim_threshold = -8, -4, -1
        libc.mallopt(m_arena_max, 1)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
    flag = "--xla_cpu_experimental_ynn_fusion_type"
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib.__version__.startswith(KNOWN_JAXLIB) and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=".strip()


def _cache_compilations() -> None:
    """Keep compiled programs between runs in ~/.cache/fer_jax, unless JAX_COMPILATION_CACHE_DIR says where.

    A private folder: JAX runs what it finds there.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer_jax" / "xla"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except (OSError, RuntimeError):  # a home that is read-only, or none, costs the compilation again, nothing more
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small ones take a second too
