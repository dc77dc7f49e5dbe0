"""The model card of a released network: its details, its metrics, its intended use and its limits.

Model cards: Mitchell et al. 2019, https://arxiv.org/abs/1810.03993. The texts are Markdown; every metric is computed.
"""

import shlex
from pathlib import Path

import numpy as np

from fer_jax.core import config as config_lib
from fer_jax.core import run_folder, shipped
from fer_jax.core.run_folder import WEIGHTS
from fer_jax.core.text import counted
from fer_jax.data.labels import EMOTIONS
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference.network import Network
from fer_jax.models import registry
from fer_jax.reporting import report, robustness_report, tables
from fer_jax.reporting.document import Block, Heading, Text
from fer_jax.training.early_stopping import ending

WEAKEST = 3  # classes of low recall that the card names
# Fields of config.model that change the network.
SWITCHES = ("width", "depth", "squeeze_excite", "antialias", "symmetric")

INTENDED = """\
Research and teaching on the recognition of facial expressions: a baseline to compare with on FER+ under the protocols
below, a network to study (calibration, disagreement of annotators, robustness), a starting point for other images.
It predicts the name people would give the expression in an image; its probabilities estimate how far they agree."""

INTENDED_ELSEWHERE = """\
Images like those of its data folder. It predicts the name people would give the expression in an image; its
probabilities estimate how far they agree. On other images measure it first."""

OUT_OF_SCOPE = """\
- **Reading feelings.** A face does not show what a person feels: people smile without joy and are angry without a scowl
  ([Barrett et al. 2019](https://doi.org/10.1177/1529100619832930)). The classes are names for expressions.
- **People at work and in education.** Inferring their emotions is prohibited in the European Union, except for medical
  or safety reasons ([AI Act, Regulation (EU) 2024/1689](https://eur-lex.europa.eu/eli/reg/2024/1689/oj), Article
  5(1)(f)). This network has not been tested for medicine or safety and is not for them. Elsewhere the Act counts
  emotion recognition as high-risk (Annex III), and people exposed to it must be informed (Article 50(3)).
- **Decisions about people:** hiring, credit, insurance, policing, borders, lie detection, diagnosis. Nor is it for
  watching people who have not agreed to it."""

LIMITS_OF_FER2013 = """\
- The images are small (48x48), grey and from the web of 2013, found by searching for words of emotion. Posed and acted
  faces are among them. Video, other cameras, croppings and cultures have not been measured: expect lower accuracy.
- FER2013 does not record who is in an image. Metrics by age, gender or skin colour cannot be given; expect differences.
"""

LIMITS_ELSEWHERE = """\
- The images are small (48x48) and grey. Others have not been measured: expect lower accuracy on them.
- No metrics by age, gender or skin colour are given; expect differences.
"""

LIMITATIONS = """\
- The network does not detect faces: it needs one that is cut out as in {data}. It predicts one of the eight emotions
  for every image, also for an image without a face.
- The labels are the opinions of {annotators}. The intervals cover the choice of the images; another
  training seed changes the metrics too.
- Temperature and calibration hold for images like these."""

LICENCE = """\
- **Images:** FER2013, collected from the web by image search
  ([Goodfellow et al. 2013](https://arxiv.org/abs/1307.0414)) without asking the people in them, and published for a
  research challenge on
  [Kaggle](https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge),
  under its terms. The authors of the images keep their rights.
- **Votes:** FER+, [MIT licence](https://github.com/microsoft/FERPlus/blob/master/LICENSE.md), Microsoft Corporation.

This folder contains no image. Check yourself that these terms allow your use of a network trained on the data."""


def page(
    network: Network,
    result: Evaluation,
    weights_bytes: int,
    commands: str,
    half: bool = False,
    trained_on: str = "",
    evaluated_on: str = "",
) -> list[Block]:
    """Return the card.

    Args:
        network: the released network; its `run` is the folder that users get.
        result: its evaluation on validation.
        weights_bytes: the size of its weights file.
        commands: the commands that train and release it again.
        half: its kernels are stored in float16.
        trained_on: the data folder of the training, where its images are others than FER2013's.
        evaluated_on: the same of the evaluation.
    """
    return [
        Text(f"A network that names the expression of a face in a small grey image: one of {', '.join(EMOTIONS)}."),
        Text(f"**{tables.verdict(result)}**"),
        *_section("Model details", _details(network, weights_bytes, half)),
        *_section("Intended use", INTENDED_ELSEWHERE if trained_on else INTENDED),
        *_section("Out-of-scope use", OUT_OF_SCOPE),
        *_section("Training data", _training_data(network, trained_on)),
        *_section("Evaluation", _evaluation_data(network, result, evaluated_on)),
        *report.main_metrics(result),
        *_by_class(result),
        *report.calibrated(result),
        *(robustness_report.section(result, result.robustness) if result.robustness else []),
        *_section("Limitations", _limitations(trained_on)),
        *_section("Licence of the data", _licence(network, trained_on)),
        *_section("How to use it", _use(network, evaluated_on)),
        *_section("How to reproduce it", _reproduce(network, commands, trained_on)),
    ]


def _section(title: str, text: str) -> list[Block]:
    return [Heading(title), Text(text)]


def _details(network: Network, weights_bytes: int, half: bool) -> str:
    config, size = network.config, network.config.image.size
    epochs = sum(record.step <= network.step for record in network.history)
    kernels, average = ", kernels in float16" if half else "", ""
    if config.optim.swa_epochs and epochs > config.train.epochs - config.optim.swa_epochs:
        average = f", mean of the weights of the last {config.optim.swa_epochs:g} epochs"
    elif config.optim.ema_decay:
        average = f", moving average of the weights with decay {config.optim.ema_decay:g}"
    origin = f"from the weights of `{config.train.init_from}`" if config.train.init_from else "from scratch"
    if teachers := config.data.teachers:
        sources = (f"{'in' if run_folder.is_predictions(name) else 'of'} `{name}`" for name in teachers)
        origin += f", {config.data.teacher_share:.0%} of each target from the predictions {', '.join(sources)}"
    final = ""
    if (count := config.augment.final_epochs) and epochs > config.train.epochs - count:
        final = f", then `{config.augment.final_recipe}` in the last {counted(count, 'epoch')}"
    switches = [
        f"`model.{name}={config.model[name]}`"
        for name in SWITCHES
        if config.model[name] != config_lib.LATER_FIELDS[f"model.{name}"]
    ]
    lines = [
        f"**Network:** `{config.model.name}` of `fer_jax/models/registry.py` (JAX, Flax){' with ' if switches else ''}"
        f"{', '.join(switches)}, "
        f"{registry.count_parameters(network.variables['params']):,} parameters, trained {origin}.",
        "**Input:** a face cut out as in FER2013, 48x48 pixels, 8-bit grey; scaled to "
        f"{size}x{size}, normalisation `{config.image.normalize}`.",
        f"**Output:** a probability for each of {', '.join(EMOTIONS)}.",
        f"**Weights:** `{WEIGHTS}`, {weights_bytes / 1e6:.1f} MB, float32{kernels}, no pickle: the "
        f"{network.checkpoint} checkpoint{average}, of step "
        f"{network.step:,}, after {epochs} of {config.train.epochs} epochs.",
        f"**Training:** labels `{config.data.label_mode}`, augmentation `{config.augment.recipe}`{final}, optimizer "
        f"`{config.optim.name}` at {config.optim.learning_rate:g}, schedule `{config.schedule.name}`, batches of "
        f"{config.train.batch_size}, seed {config.seed}. `config.json` has the rest, which `fer_jax/core/schema.py` "
        "explains.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _training_data(network: Network, folder: str) -> str:
    config, last = network.config, network.history[-1]
    dropped = ", without duplicates of validation and test images" if config.data.get("drop_repeats", False) else ""
    if config.data.get("fraction", 1) < 1:
        dropped += f", a random part of {config.data.fraction:.1%}"
    earlier = [f"of `{config.train.init_from}`"] if config.train.init_from else []
    earlier += ["of its teachers"] if config.data.teachers else []
    others = f", apart from the training images {' and '.join(earlier)}" if earlier else ""
    if folder:
        images = f"The training images of the data folder `{folder}`, which are not those of FER2013, with their votes"
    else:
        images = (
            "[FER+](https://arxiv.org/abs/1608.01041) (Barsoum et al. 2016): the training images of FER2013 with the "
            "votes of annotators"
        )
    return (
        f"{images}, selected by the label mode `{config.data.label_mode}` of `fer_jax/data/labels.py`{dropped}; "
        f"{last.step // last.epoch:,} batches of {config.train.batch_size} images an epoch. No other images{others}."
    )


def _evaluation_data(network: Network, result: Evaluation, folder: str) -> str:
    if network.checkpoint == "best":
        selection = "The checkpoint is that of the epoch with the highest validation accuracy (protocol majority)"
    else:
        selection = "The checkpoint is the latest, not selected on validation, but the recipe may be"
    images = f"of the data folder `{folder}`" if folder else "of FER+ (usage PublicTest)"
    return (
        f"On the validation images {images}, each predicted once, without mirror images. The metrics "
        "were computed from the files of this folder when it was made. Compare networks by accuracy under protocol "
        f"{result.main_protocol}, without duplicates. {selection}, so the metrics are optimistic. None "
        "comes from the test images."
    )


def _by_class(result: Evaluation) -> list[Block]:
    return [Heading("By class"), tables.class_table(result), Text(weaknesses(result))]


def weaknesses(result: Evaluation) -> str:
    """Return the classes of the lowest recall, each with its most frequent wrong prediction, as text."""
    metrics = result.metrics[result.main_protocol]["all"]
    confusion = metrics_lib.confusion(result.predictions[result.main_protocol])
    labelled = np.flatnonzero(confusion.sum(axis=1))
    classes = []
    for c in sorted(labelled, key=lambda c: metrics[f"recall/{EMOTIONS[c]}"].value)[:WEAKEST]:
        recall, errors = tables.show("recall", metrics[f"recall/{EMOTIONS[c]}"]), confusion[c].copy()
        errors[c] = 0
        text = f"**{EMOTIONS[c]}** {recall} of {confusion[c].sum():,} images"
        if errors.any():
            text += f" (most often predicted as {EMOTIONS[np.argmax(errors)]}: {errors.max():,})"
        classes.append(text)
    weakest = f"Weakest, by recall under protocol {result.main_protocol}: {'; '.join(classes)}."
    return f"{weakest} Do not rely on the network for these classes."


def _limitations(folder: str) -> str:
    if folder:
        return LIMITS_ELSEWHERE + LIMITATIONS.format(data="the data folder", annotators="people")
    return LIMITS_OF_FER2013 + LIMITATIONS.format(data="FER2013", annotators="about ten annotators per image")


def _licence(network: Network, folder: str) -> str:
    if not folder:
        return LICENCE
    terms = f"The terms of the images in `{folder}`, and of their labels, are those of their sources."
    if start := network.config.train.init_from:
        terms += f" Those of the data that `{start}` was trained on hold too."
    return (
        f"{terms} This folder contains no image. Check yourself that they allow your use of a network trained on them."
    )


def _use(network: Network, folder: str) -> str:
    name, of_readme = _name(network.run), "" if folder else " of the README"
    return f"""\
With fer_jax installed, on your image `face.png` of a face that is cut out, and on the data folder{of_readme}:

```
python -m fer_jax.predict --run {name} --faces cropped face.png
python -m fer_jax.evaluate --run {name} --split valid --data {shlex.quote(folder or "data")}
```

```python
import fer_jax

reader = fer_jax.load("{name}")
probabilities = reader.predict("face.png")  # f64[1, 8], in the order of fer_jax.EMOTIONS
```"""


def _name(run: Path) -> str:
    """The name of a shipped network, or else the path of its folder."""
    shipped_folders = {folder.resolve().parent for folder in shipped.networks().values()}
    return run.name if run.resolve().parent in shipped_folders else str(run)


def _reproduce(network: Network, commands: str, folder: str) -> str:
    data = (
        f"It needs the data folder `{folder}`." if folder else "The README of the repository says how to make the data."
    )
    train, history = network.config.train, network.history
    unfinished = ""
    if not ending(history, train.epochs, train.patience):
        unfinished = f" The commands train for {train.epochs} epochs; this network was released after {len(history)}."
    return f"""\
```
{commands}
```

{data} Seed {network.config.seed} gives the same weights on one machine
with the same packages; elsewhere rounding differs, and the network differs a little.{unfinished}"""
