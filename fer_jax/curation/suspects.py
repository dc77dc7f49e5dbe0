"""Images whose votes contradict the predictions of networks that were not trained on them.

This is confident learning's ranking (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068, "self-confidence"),
with the distribution of the votes in place of one label.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from scipy.special import xlogy

from fer_jax import inference
from fer_jax.core import atomic
from fer_jax.core import config as config_lib
from fer_jax.curation import groups
from fer_jax.data import folders, labels
from fer_jax.data.folders import FOLDERS, Split
from fer_jax.data.selection import Images, Selection
from fer_jax.train import train

TARGETS = "crossentropy"  # the label mode whose targets the predictions are compared with


class Ranking(NamedTuple):
    """The images of a split that have a target, those with the largest contradiction first."""

    images: Images  # u8[N, 48, 48]
    votes: np.ndarray  # i[N, 10]
    names: np.ndarray  # str[N]
    target: np.ndarray  # f32[N, 8]
    probabilities: np.ndarray  # f64[N, 8]
    contradiction: np.ndarray  # f64[N], KL(target || probabilities) in nats

    @property
    def label(self) -> np.ndarray:
        """The emotion with the most votes: i64[N]."""
        return self.target.argmax(axis=1)

    @property
    def prediction(self) -> np.ndarray:
        """The most probable emotion: i64[N]."""
        return self.probabilities.argmax(axis=1)


def rank(split: Split, log_probs: np.ndarray) -> Ranking:
    """Return the images that the label mode `TARGETS` keeps, ranked by KL(target || probabilities).

    For an image with one label this is the negative logarithm of that label's probability. An image whose annotators
    disagree counts for less: their entropy is subtracted.

    Args:
        split: N images.
        log_probs: f64[N, 8], of networks that have not seen the images.
    """
    target, keep = labels.targets(split.votes, TARGETS)
    contradiction = (xlogy(target, target) - target * log_probs).sum(axis=1)
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(-contradiction[rows], kind="stable")]
    fields = split.votes, split.names, target, np.exp(log_probs), contradiction
    return Ranking(Selection(split.images, rows), *(field[rows] for field in fields))


def predictions(runs: Sequence[Path], images: np.ndarray) -> np.ndarray:
    """Return the log probabilities of the mean of given networks: f64[N, 8]."""
    networks = [inference.restore(run) for run in runs]
    return inference.average([inference.log_probabilities(network, images) for network in networks])


def out_of_fold(config: ConfigDict, folds: int, workdir: Path, say: Callable[[str], None] = print) -> np.ndarray | None:
    """Train a network for each fold on the other folds, and return its predictions for the fold: f64[N, 8].

    No person, photograph or duplicate is in two folds. The run of a fold is `<workdir>/fold<n>`; finished runs are
    used again, and an interrupted one is resumed.

    Args:
        config: of each run; `data.dir` is the data folder.
        folds: at least 2.
        workdir: the folder of the runs.
        say: gets a line for each event.

    Returns:
        The log probabilities of all training images in their order, or None after a signal.

    Raises:
        UserError: config, data or folder cannot be used.
    """
    source = Path(config.data.dir).expanduser()
    split = folders.load(source, "train")
    target, _ = labels.targets(split.votes, "argmax")
    fold = groups.divide(groups.find(split.images), target.argmax(axis=1), [1 / folds] * folds, config.seed)
    log_probs = np.zeros((len(split.images), len(labels.EMOTIONS)))
    for number in range(folds):
        rows = np.flatnonzero(fold == number)
        data_dir = workdir / f"data{number + 1}"
        write_fold(source, data_dir, fold == number)
        run = workdir / f"fold{number + 1}"
        say(f"fold {number + 1} of {folds}: {run}")
        ending = train(config_lib.with_values(config, {"data.dir": str(data_dir)}), run, lambda line: say(f"  {line}"))
        if not ending.finished or ending.signal:
            return None
        # The best checkpoint would be chosen on the fold itself.
        log_probs[rows] = inference.log_probabilities(inference.restore(run, "latest"), Selection(split.images, rows))
    return log_probs


def write_fold(source: Path, data_dir: Path, held_out: np.ndarray) -> None:
    """Write the label.csv files of a fold; their rows name the images in the training folder of `source`.

    Args:
        source: the data folder.
        data_dir: the data folder of the fold; its validation images are those held out.
        held_out: bool[N], in the order of the training images.
    """
    folder = (source / FOLDERS["train"]).absolute()
    with open(folder / "label.csv", newline="", encoding="utf-8") as file:
        lines = [row for row in csv.reader(file) if row]
    for name, mask in (("train", ~held_out), ("valid", held_out)):
        text = io.StringIO()
        rows = [[str(folder / line[0]), *line[1:]] for line, kept in zip(lines, mask, strict=True) if kept]
        csv.writer(text, lineterminator="\n").writerows(rows)
        content = text.getvalue().encode()
        path = data_dir / FOLDERS[name] / "label.csv"
        if path.is_file() and path.read_bytes() == content:
            continue  # a new file would make the stored arrays out of date
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as partial:
            partial.write_bytes(content)
