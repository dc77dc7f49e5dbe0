"""The list of images with doubtful labels: ranking, folds, resumed runs, files; on the drawn sample."""

import csv
from pathlib import Path

import numpy as np
import pytest
from changed_images import split_of
from ml_collections import ConfigDict
from PIL import Image

from fer_jax import inference, suspects
from fer_jax.core.errors import UserError
from fer_jax.curation import groups, suspects_report
from fer_jax.curation import suspects as suspects_lib
from fer_jax.data import digests, duplicates, folders, labels
from fer_jax.data.folders import Split

VOTES = np.array(
    [
        [0, 10, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],  # not a face: no target
        [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],
        [10, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
)


def split() -> Split:
    images = np.zeros((4, 48, 48), np.uint8)
    return Split(images, VOTES, np.array(["a", "b", "c", "d"]), digests.of_images(images))


def test_the_rank_by_hand() -> None:
    probs = np.full((4, 8), 0.02)
    probs[:, 0] = 1 - 0.14
    ranking = suspects_lib.rank(split(), np.log(probs))
    assert list(ranking.names) == ["a", "c", "d"]
    half = 0.5 * np.log(0.5 / 0.86) + 0.5 * np.log(0.5 / 0.02)
    np.testing.assert_allclose(ranking.contradiction, [-np.log(0.02), half, -np.log(0.86)], rtol=1e-6)
    assert list(ranking.label) == [1, 0, 0]
    assert list(ranking.prediction) == [0, 0, 0]


def test_predictions_equal_to_the_votes_contradict_nothing() -> None:
    target, _ = labels.targets(VOTES, "crossentropy")
    with np.errstate(divide="ignore"):
        log_probs = np.maximum(np.log(target), -700)
    np.testing.assert_allclose(suspects_lib.rank(split(), log_probs).contradiction, 0, atol=1e-12)


def test_a_fold_has_the_images_and_votes_of_the_data_folder(sample_dir: Path, tmp_path: Path) -> None:
    whole = folders.load(sample_dir, "train")
    held_out = np.arange(len(whole.names)) % 3 == 0
    for _ in range(2):
        suspects_lib.write_fold(sample_dir, tmp_path, held_out)
        for name, mask in (("train", ~held_out), ("valid", held_out)):
            part = folders.load(tmp_path, name)
            np.testing.assert_array_equal(part.images, whole.images[mask])
            np.testing.assert_array_equal(part.votes, whole.votes[mask])
        states = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.*"))]
    suspects_lib.write_fold(sample_dir, tmp_path, held_out)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.*"))] == states


def test_no_image_has_a_duplicate_in_another_fold(sample_dir: Path) -> None:
    images = folders.load(sample_dir, "train").images[:300]
    images = np.concatenate([images, images[:40, :, ::-1]])
    fold = groups.divide(groups.find(images), np.zeros(len(images), int), [1 / 3] * 3, seed=0)
    for number in range(3):
        assert (duplicates.near(split_of(images[fold == number]), split_of(images[fold != number])) < 0).all()
        assert abs(np.mean(fold == number) - 1 / 3) < 0.01


@pytest.fixture
def folds_config(config: ConfigDict) -> ConfigDict:
    config.train.epochs = 1
    # Half of the images make four steps an epoch. The nine of the warm-up are those of `config` on all images, so that
    # both have the same compiled program.
    config.schedule.warmup_epochs *= 9 / 4
    return config


@pytest.mark.slow
def test_each_image_is_predicted_by_a_network_that_has_not_seen_it(
    folds_config: ConfigDict, sample_dir: Path, tmp_path: Path
) -> None:
    """A second call trains nothing, and other folds in the same folder are refused."""
    lines: list[str] = []
    log_probs = suspects_lib.out_of_fold(folds_config, 2, tmp_path, lines.append)
    assert log_probs is not None
    whole = folders.load(sample_dir, "train")
    for number in (1, 2):
        held_out = folders.load(tmp_path / f"data{number}", "valid")
        rows = np.flatnonzero(np.isin(whole.names, [Path(name).name for name in held_out.names]))
        network = inference.restore(tmp_path / f"fold{number}", "latest")
        np.testing.assert_allclose(log_probs[rows], inference.log_probabilities(network, whole.images[rows]), atol=1e-6)
    again = suspects_lib.out_of_fold(folds_config, 2, tmp_path, lines.append)
    np.testing.assert_array_equal(again, log_probs)
    assert sum(line.startswith("  epoch 1/1: train loss") for line in lines) == 2
    with pytest.raises(UserError, match="has changed since"):
        suspects_lib.out_of_fold(folds_config, 3, tmp_path, lines.append)


@pytest.mark.slow
def test_given_networks_list_the_images_in_files(
    finished_run: Path, sample_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv_file, sheet = tmp_path / "list.csv", tmp_path / "sheet.png"
    arguments = ["--data", str(sample_dir), "--run", str(finished_run), "--csv", str(csv_file)]
    arguments += ["--sheet", str(sheet)]
    assert suspects.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "image " in printed.splitlines()[1]
    assert f"list: {csv_file}\nsheet: {sheet}\n" in printed
    with open(csv_file, newline="") as file:
        rows = list(csv.DictReader(file))
    whole = folders.load(sample_dir, "train")
    _, keep = labels.targets(whole.votes, "crossentropy")
    assert sorted(row["name"] for row in rows) == sorted(whole.names[keep])
    values = [float(row["contradiction"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert sum(float(rows[0][emotion]) for emotion in labels.EMOTIONS) == pytest.approx(1, abs=1e-3)
    assert Image.open(sheet).width > 500


def test_the_files_of_the_user_are_named(tmp_path: Path) -> None:
    assert suspects_report.sources(tmp_path) == {}
    (tmp_path / "sources.csv").write_text("name,file,person\na,mine/a.png,\n")
    files = suspects_report.sources(tmp_path)
    ranking = suspects_lib.rank(split(), np.log(np.full((4, 8), 1 / 8)))
    assert suspects_report.table(ranking, files).rows[0][0] == "mine/a.png"
    long = suspects_report.table(ranking, {"a": "folder/" * 20 + "a.png"}).rows[0][0]
    assert long.startswith("...")
    assert long.endswith("/a.png")
    assert len(long) == suspects_report.NAME
    assert [row[1] for row in suspects_report.as_rows(ranking, files)] == ["file", "mine/a.png", "", ""]


def test_one_fold_and_missing_runs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suspects.main(["--folds", "1"])
    assert "--folds must be at least 2" in capsys.readouterr().err
    with pytest.raises(UserError, match="no run in nowhere"):
        suspects.main(["--run", "nowhere"])
