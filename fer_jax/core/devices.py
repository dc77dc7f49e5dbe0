"""The placement of arrays on devices, and the error of a full device.

There is one mesh axis over all devices of all processes; batches are split along it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from fer_jax.core.errors import UserError, one_line

Tree = TypeVar("Tree")

AXIS = "data"


class OutOfMemoryError(UserError):
    """The device has not enough memory."""


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn XLA's error of a full memory into an OutOfMemoryError with advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemoryError(f"out of memory on the device; {advice} ({one_line(error)})") from None


class Devices:
    """The placement of a run's arrays: the state is the same on all devices, the rows of a batch are split."""

    def __init__(self) -> None:
        self.mesh = jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.process = (jax.process_index(), jax.process_count())
        self.first = jax.process_index() == 0  # the process that logs

    def check_batch_size(self, batch_size: int) -> None:
        """Raise UserError unless the devices can share a training batch of this size equally."""
        if batch_size % jax.device_count():
            count = jax.device_count()
            raise UserError(f"train.batch_size={batch_size} must be a multiple of the number of devices, {count}")

    def round_up(self, batch_size: int) -> int:
        """Return the next larger batch size that all devices share equally; the added rows are masked."""
        return -(-batch_size // jax.device_count()) * jax.device_count()

    def replicate(self, tree: Tree) -> Tree:
        """Return the tree as arrays that are the same on every device of every process."""
        # Through numpy: with several processes, device_put makes arrays that orbax cannot save.
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(self.replicated, np.asarray(leaf)), tree
        )

    def shard(self, batch: Tree, axis: int = 0) -> Tree:
        """Return arrays that are split along `axis` over all devices, from the rows of a batch in this process."""
        split = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))
        return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(split, rows), batch)
