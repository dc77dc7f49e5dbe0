import gc
import shutil
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.core.cli import UserError
from fer_jax.core.devices import Devices
from fer_jax.training import checkpoint, packing


def tree(value: float) -> dict:
    return {"w": jnp.full((2, 3), value), "large": jnp.full((1000, 1000), value), "step": jnp.int32(value), "key": {}}


LIKE = jax.eval_shape(lambda: tree(0.0))


def save_all(run: Path, accuracies: dict[int, float | None]) -> None:
    with closing(checkpoint.open_manager(run)) as manager:
        for step, accuracy in accuracies.items():
            checkpoint.save(manager, step, tree(step), {"history": [step]}, accuracy)


def restore(run: Path, which: str, like=LIKE):
    with closing(checkpoint.open_manager(run, read_only=True)) as manager:
        return checkpoint.restore(manager, which, like, Devices().replicated)


@pytest.mark.parametrize(
    ("accuracies", "best", "kept"),
    [
        ({1: 0.5, 2: 0.7, 3: 0.6}, 2, {2, 3}),
        ({1: 0.5, 2: 0.6, 3: 0.7}, 3, {3}),
        ({1: 0.7, 2: 0.7, 3: 0.7}, 1, {1, 3}),  # of equals the earlier, as early stopping counts
        ({1: 0.5, 2: 0.7, 3: None}, 2, {2, 3}),  # 3: interrupted inside an epoch
        ({1: 0.5, 2: None, 3: 0.4, 4: 0.3}, 1, {1, 4}),
    ],
)
def test_latest_and_best_are_kept_and_nothing_else(tmp_path: Path, accuracies, best: int, kept: set[int]) -> None:
    save_all(tmp_path, accuracies)
    assert {int(path.name.split("_")[1]) for path in (tmp_path / "checkpoints").glob("step_*")} == kept
    latest = restore(tmp_path, "latest")
    assert latest.step == max(accuracies)
    assert restore(tmp_path, "best").step == best
    assert latest.progress == {"history": [max(accuracies)]}
    jax.tree.map(np.testing.assert_array_equal, latest.tree, tree(max(accuracies)))


def test_best_is_remembered_after_a_restart(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.9, 2: 0.5})
    save_all(tmp_path, {3: 0.6})
    save_all(tmp_path, {4: 0.7})
    assert restore(tmp_path, "best").step == 1
    assert restore(tmp_path, "latest").step == 4


def test_saving_the_same_step_again_is_no_error(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.9})
    save_all(tmp_path, {1: 0.9})
    assert restore(tmp_path, "latest").step == 1


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    save_all(tmp_path, {})
    assert restore(tmp_path, "latest") is None
    assert restore(tmp_path, "best") is None


def test_what_is_saved_is_the_state_of_that_moment(tmp_path: Path) -> None:
    # saving goes on while training does: donated buffers must not leak into the checkpoint
    step = jax.jit(lambda t: jax.tree.map(lambda leaf: leaf + 1, t), donate_argnums=0)
    state = tree(5.0)
    with closing(checkpoint.open_manager(tmp_path)) as manager:
        checkpoint.save(manager, 5, state, {}, 0.5)
        for _ in range(20):
            state = step(state)
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path, "latest").tree, tree(5.0))


@pytest.mark.filterwarnings("error")
def test_a_checkpoint_of_another_network_gets_one_line(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.9})
    like = {**LIKE, "w": jax.ShapeDtypeStruct((4, 3), jnp.float32)}
    with pytest.raises(UserError, match=r"step_1 cannot be restored: w is \[2, 3\] there, and \[4, 3\] was") as error:
        restore(tmp_path, "latest", like)
    assert "\n" not in str(error.value)
    del error
    gc.collect()  # what a broken-off read leaves behind would complain here


def test_a_checkpoint_of_another_tree_gets_one_line(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.9})
    with pytest.raises(UserError, match=r"step_1 cannot be restored: bias is not there; if another version") as error:
        restore(tmp_path, "latest", {**LIKE, "bias": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"step_1 cannot be restored: w is there and was not expected"):
        restore(tmp_path, "latest", {name: leaf for name, leaf in LIKE.items() if name != "w"})


def test_packed_vectors_of_other_names_are_not_taken_for_these(tmp_path: Path) -> None:
    tree = {"params": packing.pack({"norm": {"bias": jnp.zeros(3), "scale": jnp.ones(3)}, "kernel": jnp.ones((2, 2))})}
    with closing(checkpoint.open_manager(tmp_path)) as manager:
        checkpoint.save(manager, 1, tree, {}, None)
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path, "latest", tree).tree, tree)
    like = {"params": packing.pack({"norm": {"gain": jnp.ones(3), "offset": jnp.zeros(3)}, "kernel": jnp.ones((2, 2))})}
    with pytest.raises(UserError, match=r"its biases, scales or statistics have other names; if another version"):
        restore(tmp_path, "latest", like)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_gets_one_line(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.9})
    for path in (tmp_path / "checkpoints").glob("step_1/tree/**/d/*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"step_1 cannot be restored") as error:
        restore(tmp_path, "latest")
    assert "\n" not in str(error.value)
    del error
    gc.collect()  # orbax's other reads were broken off and complain: here, and not in some later test


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_history_is_that_of_the_latest_checkpoint_that_can_be_read(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.9, 2: 0.5})
    with closing(checkpoint.open_manager(tmp_path, read_only=True)) as manager:
        assert checkpoint.history(manager) == [2]
    for file in (tmp_path / "checkpoints" / "step_2" / "progress").iterdir():
        file.write_text('{"history": [2')
    with closing(checkpoint.open_manager(tmp_path, read_only=True)) as manager:
        assert checkpoint.history(manager) == [1]
        assert restore(tmp_path, "best").step == 1
    with closing(checkpoint.open_manager(tmp_path, read_only=True)) as manager:
        manager.all_steps()
        shutil.rmtree(tmp_path / "checkpoints" / "step_2")  # by the process that trains, meanwhile
        assert checkpoint.history(manager) == [1]
        shutil.rmtree(tmp_path / "checkpoints" / "step_1" / "progress")
        assert checkpoint.history(manager) == []


def test_half_written_checkpoints_are_not_seen(tmp_path: Path) -> None:
    save_all(tmp_path, {1: 0.9})
    partial = tmp_path / "checkpoints" / "step_2.orbax-checkpoint-tmp-123"
    partial.mkdir()
    (partial / "junk").write_text("x")
    assert restore(tmp_path, "latest").step == 1
    save_all(tmp_path, {3: 0.5})
    assert not partial.exists()
