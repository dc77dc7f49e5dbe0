"""The other processes of a run: joining them, comparing facts with them, and ending together.

They exchange short texts through the key-value store of jax's coordination service, which needs no device.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import jax

# jax.distributed does not hand out its key-value store. orbax uses the same private name.
from jax._src.distributed import global_state

from fer_jax.core import cli, parent, supervisor
from fer_jax.core.errors import UserError, one_line, shortened
from fer_jax.core.supervisor import AGAIN, JOIN_S

HEARTBEAT_S = 25  # a process without a heartbeat for so long has died; the others then end within a minute
_ERROR = "fer_jax/error"  # the line of the first process that failed
_LEAVING_S = 5
_SYMPTOM_S = 45
# In errors that follow from the end of another process, which has a line of its own.
_SYMPTOMS = ("gloo", "coordination", "connection reset", "connection closed", "barrier", "socket closed")

_ended = threading.Lock()  # the thread that holds it ends the process; it is never released


class DisagreementError(UserError):
    """The processes of a run differ. All of them raise it."""


def several() -> bool:
    """Return True if this process trains with others. It uses no device, unlike jax.process_count()."""
    return jax.distributed.is_initialized() and global_state.num_processes > 1


def together(body: Callable[[], int]) -> int:
    """Return the exit status of `body`, after joining the other processes that the environment names.

    If one process fails, all end: each prints one line. The failing one does not wait in jax's shutdown for the others.
    """
    parent.when_ended(_end_with_parent)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(done,), daemon=True)
    try:
        _join()
        watcher.start()
        status = body()
    except BaseException as error:
        _fail(error)
    done.set()
    watcher.join()  # shutting down under a request would crash
    return status


def compare(facts: Mapping[str, Any], describe: Callable[[Any, Any], str]) -> None:
    """Wait for the facts of all processes and compare them.

    Args:
        facts: of this process; JSON.
        describe: returns the difference of a process (the first argument) from process 0, as text, or "".

    Raises:
        DisagreementError: the facts differ; it names the process. All processes raise the same.
    """
    number = global_state.process_id
    _store().key_value_set(f"fer_jax/facts/{number}", json.dumps(facts))
    everyone = [json.loads(_wait_for(other)) for other in range(global_state.num_processes)]
    for other, theirs in enumerate(everyone):
        if difference := describe(theirs, everyone[0]):
            raise DisagreementError(f"process {other} {difference}")


def _store() -> Any:
    """The client of the key-value store; jax's types let it be None."""
    return global_state.client


def _wait_for(number: int) -> str:
    """The facts of a process. If it dies meanwhile, jax ends this process."""
    begin, noted = time.monotonic(), False
    while True:
        try:
            return _store().blocking_key_value_get(f"fer_jax/facts/{number}", 2_000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if not noted and time.monotonic() - begin > 2 and global_state.process_id == 0:
            print(f"waiting for process {number} to read its data", flush=True)
            noted = True


def _join() -> None:
    """Join the other processes.

    The number of this process comes from the cluster's environment (SLURM, Open MPI, ...) or from JAX_NUM_PROCESSES
    and JAX_PROCESS_ID.

    Raises:
        UserError: the other processes were not found.
    """
    numbers = [os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
    jax.config.update("jax_enable_preemption_service", True)  # it makes all stop at one step after SIGTERM
    timer = threading.Timer(2, partial(print, "waiting for the other processes", flush=True))
    timer.daemon = True
    timer.start()
    try:
        count, index = (None if number is None else int(number) for number in numbers)
        jax.distributed.initialize(
            num_processes=count,
            process_id=index,
            initialization_timeout=JOIN_S,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot join the processes at JAX_COORDINATOR_ADDRESS: {one_line(error)}") from None
    finally:
        timer.cancel()


def _end_with_parent() -> None:
    """End this process, whose parent has died. The others notice it."""
    with suppress(OSError, KeyError):
        os.unlink(os.environ[supervisor.NATIVE_LOG])  # else the parent does it
    os._exit(1)


def _watch(done: threading.Event) -> None:
    """End this process when another one has failed."""
    while not done.wait(1):
        with suppress(jax.errors.JaxRuntimeError):  # there is none; or the service has gone, for which jax ends us
            _leave(_store().key_value_try_get(_ERROR))


def _leave(line: str, status: int = 1) -> None:
    """End this process, once the others know why."""
    _ended.acquire()
    print(f"error: {shortened(line)}", file=sys.stderr)
    _exit(status)


def _exit(status: int) -> None:
    with suppress(OSError):
        supervisor.record_report(status)
    with suppress(Exception):  # one of them may be dead, or not responding
        _store().wait_at_barrier("fer_jax/leaving", _LEAVING_S * 1000)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _fail(error: BaseException) -> None:
    """Send an error to the others, print it as any command does, and end this process."""
    if not isinstance(error, UserError | KeyboardInterrupt | SystemExit) and (
        any(symptom in str(error).lower() for symptom in _SYMPTOMS)
    ):
        time.sleep(_SYMPTOM_S)  # meanwhile the watcher, or jax with the parent, ends this process for the true reason
        _leave(f"the connection to the other processes was lost ({one_line(error, 100)}); {AGAIN}")
    _ended.acquire()
    if global_state.client is not None and not isinstance(error, DisagreementError):
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "it was interrupted" if interrupted else one_line(error) or type(error).__name__
        with suppress(jax.errors.JaxRuntimeError):  # another one failed before
            _store().key_value_set(_ERROR, f"process {global_state.process_id} ended: {reason}")

    def again() -> int:
        raise error

    try:
        status = cli.status(again)
    except BaseException:
        traceback.print_exc()
        status = 1
    _exit(status)
