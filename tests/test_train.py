import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer_jax import inference
from fer_jax import train as train_lib
from fer_jax.core import config as config_lib
from fer_jax.core import provenance
from fer_jax.core.devices import Devices, OutOfMemoryError
from fer_jax.core.errors import UserError
from fer_jax.data import batching, folders, labels
from fer_jax.inference import initial_weights
from fer_jax.train import Ending, train
from fer_jax.training import metrics as metrics_lib
from fer_jax.training import restoring, setup, train_step
from fer_jax.training.history import as_csv, best_record
from tests.small_runs import interrupt, quiet, restored, small_config


def test_a_run_is_complete_and_starting_it_again_adds_nothing(config, finished_run: Path) -> None:
    latest = restored(config, finished_run)
    history = latest.progress.history
    assert [record.epoch for record in history] == [1, 2, 3]
    assert latest.step == history[-1].step == int(latest.tree["state"].step)
    assert history[-1].train["loss"] < 0.95 * history[0].train["loss"]  # cross entropy, in float32
    assert restored(config, finished_run, "best").step == best_record(history).step
    assert train(config, finished_run, quiet) == Ending("complete")
    assert restored(config, finished_run).step == latest.step


@pytest.fixture(scope="module")
def diverged(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, restoring.Restored]:
    """A run in the other loss and precision that diverges in its third epoch: the error, the latest checkpoint."""
    config, run = small_config(sample_dir), tmp_path_factory.mktemp("diverged")
    config.data.label_mode = "multi_target"
    config.model.dtype = "bfloat16"
    config.optim.clip_norm = 0.0
    config.schedule.update(name="step", warmup_epochs=0.0, boundaries=(2,), scales=(1e30,))
    with pytest.raises(UserError) as error:
        train(config, run, quiet)
    return str(error.value), restored(config, run)


@pytest.mark.slow
def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(diverged) -> None:
    error, kept = diverged
    match = re.match(r"[^\n]*not finite at step (\d+); the checkpoint of step (\d+) is kept[^\n]*$", error)
    assert match
    bad_step, kept_step = map(int, match.groups())
    assert len(kept.progress.history) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept.tree["state"]))
    assert kept.step == kept_step < bad_step <= kept.step + kept.progress.steps_per_epoch


@pytest.mark.slow
def test_the_loss_of_several_emotions_learns_in_bfloat16(diverged) -> None:
    first, second = diverged[1].progress.history
    assert second.train["loss"] < 0.95 * first.train["loss"]


def test_a_device_without_enough_memory_gets_one_line(config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "step_function", lambda *_: jnp.zeros(2**50))  # a real error of XLA
    with pytest.raises(OutOfMemoryError, match=r"lower train\.batch_size") as error:
        train(config, tmp_path, quiet)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_early_stopping_waits_for_its_patience(config, sample_dir: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(sample_dir, tmp_path / "data"))
    path = data / "FER2013Valid" / "label.csv"
    # All show disgust, which a network does not predict in its first epochs: the accuracy does not grow.
    lines = [line.split('",')[0] + '",0,0,0,0,0,10,0,0,0,0' for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    config.data.dir = str(data)
    config.train.update(epochs=40, patience=2)
    assert train(config, tmp_path / "run", quiet) == Ending("stopped early")
    history = restored(config, tmp_path / "run").progress.history
    assert len(history) - best_record(history).epoch == 2
    accuracies = [record.valid["accuracy"] for record in history]
    assert max(accuracies) == accuracies[-3]


def test_unusable_sizes_get_one_line_and_leave_no_folder(config, tmp_path: Path) -> None:
    config.train.batch_size = 100_000
    with pytest.raises(UserError, match=r"train\.batch_size=100000 needs"):
        train(config, tmp_path / "run", quiet)
    config.train.batch_size = 0
    with pytest.raises(UserError, match=r"train\.batch_size=0 must be at least 1"):
        train(config, tmp_path / "run", quiet)
    config.data.dir = str(tmp_path / "nowhere")
    config.train.batch_size = 32
    with pytest.raises(UserError, match=r"generate_training_data\.py.* sample' draws"):
        train(config, tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_curves_images_and_the_config(config, finished_run: Path) -> None:
    events = EventAccumulator(str(finished_run)).Reload()
    tags = events.Tags()
    for split in ("train", "valid"):
        for name in ("loss", "accuracy", "precision", "recall", "f1", "macro_f1"):
            assert f"{split}/{name}" in tags["scalars"]
    for name in ("learning_rate", "grad_norm", "images_per_s", "data_wait"):
        assert f"progress/{name}" in tags["scalars"]
    history = restored(config, finished_run).progress.history
    logged = events.Scalars("valid/accuracy")
    assert [event.step for event in logged] == [record.step for record in history]
    np.testing.assert_allclose(
        [event.value for event in logged], [record.valid["accuracy"] for record in history], rtol=1e-6
    )
    assert {"augmented", "valid/confusion_matrix"} <= set(tags["images"])
    assert events.Images("augmented")[0].width == 8 * 48
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| optim.learning_rate | 0.003 |" in text
    assert any(tag.startswith("_hparams_") for tag in events.summary_metadata)


def test_a_finished_run_gets_its_lost_history_csv_again(config, finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    path, text = run / "history.csv", as_csv(restored(config, run).progress.history)
    assert path.read_text() == text
    assert len(text.splitlines()) == 4
    path.unlink()
    assert train(config, run, quiet) == Ending("complete")  # nothing is left to train
    assert path.read_text() == text


@pytest.mark.slow
def test_a_run_without_augmentation_has_another_loss_and_one_without_history_csv_goes_on(
    config, finished_run: Path, tmp_path: Path
) -> None:
    config.augment.recipe = "none"
    config.train.epochs = 1
    (tmp_path / "history.csv").mkdir()
    lines: list[str] = []
    assert train(config, tmp_path, lines.append) == Ending("complete")
    assert sum("history.csv cannot be written" in line for line in lines) == 2
    augmented, plain = (restored(config, run).progress.history[0] for run in (finished_run, tmp_path))
    assert not np.isclose(augmented.train["loss"], plain.train["loss"], rtol=1e-3)  # as test_resume.py compares


@pytest.mark.slow
def test_a_resumed_run_adds_the_versions_of_its_code_and_rows_of_history_csv(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.train.epochs = 2
    versions = [{"version": "0.1", "commit": commit} for commit in ("aaa", "bbb", "bbb")]
    monkeypatch.setattr(provenance, "code_version", lambda: versions.pop(0))
    path, steps = tmp_path / "history.csv", []
    for listen in (interrupt(), interrupt("resuming"), quiet):  # during the second epoch, twice
        train(config, tmp_path, listen)
        saved = restored(config, tmp_path)
        steps.append(saved.step)
        assert path.read_text() == as_csv(saved.progress.history)
        path.write_text("epoch\n")
    assert [record.epoch for record in saved.progress.history] == [1, 2]
    assert [(entry["commit"], entry["from_step"]) for entry in saved.progress.code] == [("aaa", 0), ("bbb", steps[0])]


def test_only_the_first_process_writes_history_csv(tmp_path: Path) -> None:
    run = SimpleNamespace(folder=tmp_path, devices=SimpleNamespace(first=False), say=quiet)
    train_lib._write_history(run, [])
    assert not any(tmp_path.iterdir())


def test_config_json_holds_the_whole_config(config, finished_run: Path) -> None:
    assert json.loads((finished_run / "config.json").read_text()) == json.loads(config.to_json())


@pytest.mark.slow
def test_a_run_starts_from_the_network_of_another(config, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "source")
    config.train.update(epochs=1, init_from=str(tmp_path / "source"))
    source = inference.restore(finished_run, "best").variables
    start = setup.create_train_state(config, initial_weights.restore(config))
    jax.tree.map(np.testing.assert_array_equal, train_step.eval_variables(start), source)
    assert train(config, tmp_path / "run", interrupt("resnet_tiny")) == Ending("interrupted", "SIGTERM")
    saved = restored(config, tmp_path / "run")
    assert saved.step == 1
    after = train_step.eval_variables(saved.tree["state"]._replace(average=None))
    # Adam's first step is as long as the learning rate, which has nine steps of warm-up; weight decay adds little.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=0.0004), after["params"], source["params"])
    fresh = train_step.eval_variables(setup.create_train_state(config))
    assert abs(source["params"]["Dense_0"]["kernel"] - fresh["params"]["Dense_0"]["kernel"]).max() > 0.004
    shutil.rmtree(tmp_path / "source")  # a resumed run needs its own checkpoint alone
    lines: list[str] = []
    assert train(config, tmp_path / "run", lines.append) == Ending("complete")
    assert any(line.startswith("resuming from step") for line in lines)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0.25}, r"another network \(model.width: 0.125 there, 0.25 now\)"),
        ({"antialias": True}, r"another network \(model.antialias: False there, True now\)"),  # of the same shape
    ],
)
def test_an_initial_network_of_another_config_gets_one_line(
    config, finished_run: Path, tmp_path: Path, fields, message
) -> None:
    config.train.init_from = str(finished_run)
    config.model.update(fields)
    with pytest.raises(UserError, match=message) as error:
        train(config, tmp_path / "run", quiet)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{"train.init_from": "nowhere"}, {"data.teachers": ("nowhere",)}])
def test_a_missing_source_is_noticed_before_the_folder_is_made(config, tmp_path, fields) -> None:
    with pytest.raises(UserError, match="no run in nowhere"):
        train(config_lib.with_values(config, fields), tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


def test_the_average_starts_from_the_initial_network_too(config, finished_run: Path) -> None:
    config.train.init_from = str(finished_run)
    source = initial_weights.restore(config)
    state = setup.create_train_state(config, source)
    assert config.optim.ema_decay
    jax.tree.map(np.testing.assert_array_equal, train_step.eval_variables(state), source)


@pytest.mark.slow
def test_the_dropout_key_is_made_from_the_seed_as_jax_makes_it(config) -> None:
    """The logits are the dropout stream itself, so the loss depends on the key."""

    def logits_of(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (4, 8))

    def apply(variables, images, train, mutable, rngs):
        return logits_of(rngs["dropout"]) + 0 * variables["params"]["w"], {}

    target = np.eye(8, dtype=np.float32)[:4]
    examples = batching.Examples(np.zeros((4, 48, 48), np.uint8), target)
    batch = batching.Batch(np.zeros((4, 48, 48, 1), np.float32), target, np.ones(4, np.float32), None)
    call = jax.tree.map(lambda rows: rows[None], batch)
    variables = {"params": {"w": np.zeros(8, np.float32)}, "batch_stats": {}}
    drawn = []
    assert not jax.config.jax_enable_x64
    for seed in (7, 2**40 + 3):
        config.seed = seed
        parts = setup.build(config, steps_per_epoch=1)
        parts = parts._replace(network=parts.network._replace(model=SimpleNamespace(apply=apply)))
        state = train_step.create_state(variables, parts.optimizer, averaged=True)
        step = setup.step_function(config, parts, Devices(), examples)
        _, totals = step(state, metrics_lib.zeros(), call)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), 0)
        expected = -(target * log_softmax(np.asarray(logits_of(key)), axis=1)).sum()
        assert float(totals.loss) == pytest.approx(expected, rel=1e-5)
        drawn.append(float(totals.loss))
    assert len(set(drawn)) == 2


def test_training_without_duplicates_leaves_them_out(config, tmp_path: Path) -> None:
    config.data.drop_repeats = True
    config.train.epochs = 1
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        raise KeyboardInterrupt  # before anything is compiled

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, listen)
    split, *others = (folders.load(config.data.dir, name) for name in ("train", "valid", "test"))
    other_images = {image.tobytes() for other in others for image in other.images}
    duplicated = np.array([image.tobytes() in other_images for image in split.images])
    _, kept = labels.targets(split.votes, config.data.label_mode)
    assert (duplicated & kept).any()
    count = int(re.search(r"([\d,]+) training images", lines[0])[1].replace(",", ""))
    assert 0.5 * kept.sum() < count <= (kept & ~duplicated).sum()
