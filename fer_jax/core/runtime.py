"""Settings of the process: speed on CPUs, the cache of compiled programs, stop signals."""

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

from fer_jax.core.termination import termination_signals

# Tested with 0.10.2, 0.11.2 and 0.12.0. A jaxlib without this option would abort.
KNOWN_JAXLIB = ("0.10.", "0.11.", "0.12.")
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"  # the operations that XLA leaves to YNNPACK


def start() -> None:
    """Set jax up for a command, before it is used."""
    tune_cpu()
    _cache_compilations()


def is_first_process() -> bool:
    """Return True in the process that prints for all processes of a run."""
    return jax.process_index() == 0


def exit_status(signal_name: str) -> int:
    """Return the exit status of a command that a signal stopped, as shells and schedulers know it: 143 for SIGTERM.

    It is 0 for "", no signal.
    """
    return 128 + signal.Signals[signal_name] if signal_name else 0


@contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
    """Record SIGTERM, SIGHUP and the first Ctrl-C inside the block; a second Ctrl-C interrupts as usual.

    Several processes must stop at the same step. After SIGTERM, JAX's preemption service makes them agree on one;
    Ctrl-C interrupts them at once.

    Yields:
        A function that returns the name of the signal received, or "". All processes must call it equally often. It
        may be called after the block too. If an error ends the block, a signal received has its usual effect.
    """
    received, calls = "", 0

    def agreed() -> str:
        nonlocal received, calls
        calls += 1  # the service agrees on one of these numbers, so none may be left out
        if not received and multihost_utils.reached_preemption_sync_point(calls):  # True for one number only
            received = "SIGTERM"
        return received

    if jax.process_count() > 1:
        yield agreed
        return
    with recorded_signals() as signal_name:
        yield signal_name


@contextmanager
def recorded_signals() -> Iterator[Callable[[], str]]:
    """The same for one process, which does not need jax's devices."""
    received = ""

    def record(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)

    handlers = {number: signal.signal(number, record) for number in (*termination_signals(), signal.SIGINT)}

    def restore_handlers() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    try:
        yield lambda: received
    except Exception:
        restore_handlers()
        if received:  # else the caller would continue without the signal
            signal.raise_signal(signal.Signals[received])
        raise
    finally:
        restore_handlers()


def tune_cpu() -> None:
    """Set two options for speed on CPUs; docs/performance.md has the measurements.

    Freed memory is kept: XLA frees the buffers of a step after it, and glibc returns large ones to the kernel, which
    would have to clear 60,000 fresh pages in the next step. XLA's YNNPACK convolutions are off: in the versions
    measured they run on one thread for large images.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "mallopt"):
        m_arena_max, m_mmap_max, m_trim_threshold = -8, -4, -1
        libc.mallopt(m_arena_max, 1)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib.__version__.startswith(KNOWN_JAXLIB) and YNNPACK not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{YNNPACK}=".strip()


def step_options() -> dict[str, str]:
    """Return XLA's options for the program of a training step, for `jax.jit`'s `compiler_options`.

    On CPUs YNNPACK takes the matrix products of a step. In programs that predict it is no quicker.
    """
    if jax.default_backend() != "cpu" or not jaxlib.__version__.startswith(KNOWN_JAXLIB):
        return {}
    return {YNNPACK: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def _cache_compilations() -> None:
    """Keep compiled programs in ~/.cache/fer_jax, unless JAX_COMPILATION_CACHE_DIR names another folder.

    The folder is private, since JAX runs the programs in it.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer_jax" / "xla"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except (OSError, RuntimeError):  # without a writable home, programs are compiled again in each process
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs take a second together
