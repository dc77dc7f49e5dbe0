"""Measure configs/finetune.py on 200 images: the network `base` before it and after it.

    python benchmarks/finetune.py --data data

The images are of FER+'s validation, of three emotions by majority: `base` has not seen them, and the labels are known.
They are imported as anybody's own (`fer-jax import`), which holds a fifth out for validation, and fine-tuned on.
"Others" are all other validation images of these emotions except duplicates, exact or near, of the 200. In "three
classes" the likeliest of the three is taken. The rows of the table are repeated with other images, with other emotions
and with images that are unlike FER2013's. The fine-tuned networks are the best checkpoints, chosen by the images held
out.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a script: only this file's folder is on sys.path, not its parent
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from benchmarks import chain, measure, whole_run
from fer_jax import inference
from fer_jax.core import cli, runtime
from fer_jax.data import correlation, duplicates, folders, labels


class Trial(NamedTuple):
    """The number of images of each emotion, the seed of their draw, and whether they are made unlike FER2013's."""

    counts: dict[str, int]
    seed: int = 0
    unlike: bool = False


FREQUENT, RARE = {"neutral": 67, "sadness": 67, "anger": 66}, {"happiness": 80, "surprise": 70, "fear": 48}
TRIALS = (Trial(FREQUENT), Trial(FREQUENT, 1), Trial(RARE), Trial(FREQUENT, unlike=True))


def unlike(image: np.ndarray) -> np.ndarray:
    """Return u8[48, 48] with a third of the light, as of 16 pixels width, turned by 20 degrees."""
    return np.asarray(chain.rotated(chain.coarse(chain.lit(Image.fromarray(image), 0.35), 16), 20))


class Table:
    """The rows of a trial: a network's accuracy, and balanced accuracy, on some images."""

    def __init__(self, emotions: list[int], networks: dict[str, inference.Network]) -> None:
        self.emotions, self.networks = emotions, networks

    def rows(self, name: str, images: np.ndarray, label: np.ndarray) -> None:
        """Print the two rows for images u8[N, 48, 48] with these labels."""
        columns = []
        for column, network in self.networks.items():
            log_probs = inference.log_probabilities(network, images)
            columns.append((column, log_probs.argmax(axis=1)))
            if column == "base":
                columns.append(("three classes", np.array(self.emotions)[log_probs[:, self.emotions].argmax(axis=1)]))
        for metric, parts in (("accuracy", [label >= 0]), ("balanced accuracy", [label == e for e in self.emotions])):
            cells = (f"{np.mean([(said == label)[part].mean() for part in parts]):.1%}" for _, said in columns)
            print(f"| {metric}, {len(label):,} {name} |", " | ".join(cells), "|", flush=True)


def measure_trial(trial: Trial, images: np.ndarray, label: np.ndarray, scratch: Path, cache: Path) -> None:
    """Import, fine-tune and print the rows of one trial, of images u8[N, 48, 48] with labels i[N], -1 for none."""
    emotions = [labels.EMOTIONS.index(name) for name in trial.counts]
    rng, own, originals = np.random.default_rng(trial.seed), [], images
    if trial.unlike:
        images = np.stack([unlike(image) for image in images])
    for emotion, (name, count) in zip(emotions, trial.counts.items(), strict=True):
        folder = scratch / "faces" / name
        folder.mkdir(parents=True)
        own += (drawn := [*rng.choice(np.flatnonzero(label == emotion), count, replace=False)])
        for row in drawn:
            Image.fromarray(images[row]).save(folder / f"{row}.png")
    program = [sys.executable, "-m", "fer_jax"]
    whole_run.seconds_of([*program, "import", f"{scratch}/faces", "--out", f"{scratch}/data"], cache)
    training = ["train", "--config", "configs/finetune.py", "--workdir", f"{scratch}/tuned"]
    seconds = whole_run.seconds_of([*program, *training, f"--config.data.dir={scratch}/data"], cache)
    held_out = folders.load(scratch / "data", "valid")
    networks = {"base": inference.restore("base"), "fine-tuned": inference.restore(scratch / "tuned", "best")}
    print(f"{trial}: fine-tuned in {seconds:.0f} s")
    table = Table(emotions, networks)
    table.rows("held out", held_out.images, labels.targets(held_out.votes, "majority")[0].argmax(axis=1))
    others = np.setdiff1d(np.flatnonzero(np.isin(label, emotions)), own)
    pairs = correlation.correlated_pairs(originals[own], originals[others], duplicates.THRESHOLD)
    others = np.delete(others, pairs.other)
    table.rows("others", images[others], label[others])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder of the real FER+")
    args = parser.parse_args()
    runtime.start()
    split = folders.load(args.data.resolve(), "valid")
    target, keep = labels.targets(split.votes, "majority")
    label = np.where(keep, target.argmax(axis=1), -1)
    with tempfile.TemporaryDirectory() as cache:  # of compiled programs: the first trial compiles for all
        for number, trial in enumerate(TRIALS, start=1):
            measure.progress(f"fine-tuning, {number} of {len(TRIALS)}")
            with tempfile.TemporaryDirectory() as scratch:
                measure_trial(trial, split.images, label, Path(scratch), Path(cache))


if __name__ == "__main__":
    cli.run(main)
