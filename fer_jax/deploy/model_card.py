"""The model card of a released network: what it is, how good, and what it must not be used for.

Model cards: Mitchell et al. 2019, https://arxiv.org/abs/1810.03993. The texts hold Markdown; every figure is computed.
"""

import numpy as np

from fer_jax.core import config as config_lib
from fer_jax.core.run_folder import WEIGHTS
from fer_jax.data.labels import EMOTIONS
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference.network import Network
from fer_jax.models import registry
from fer_jax.reporting import report, tables
from fer_jax.reporting.document import Block, Heading, Text

WEAKEST = 3  # classes that are named for their low recall
SWITCHES = ("width", "depth", "squeeze_excite", "antialias")  # fields of config.model that make another network

INTENDED = """\
Research and teaching on the recognition of facial expressions: a baseline to compare with on FER+, under the protocols
below; a network to study (calibration, disagreement of the taggers, robustness); a start for work on other pictures.
It says what people would call the expression in a picture; its probabilities should say where they would disagree."""

OUT_OF_SCOPE = """\
- **Reading feelings.** A face does not show what a person feels: people smile without joy and are angry without a scowl
  ([Barrett et al. 2019](https://doi.org/10.1177/1529100619832930)). The classes are names for expressions.
- **People at work and in education.** To infer their emotions is prohibited in the European Union, except for medical
  or safety reasons ([AI Act, Regulation (EU) 2024/1689](https://eur-lex.europa.eu/eli/reg/2024/1689/oj), Article
  5(1)(f)). This network has not been tested for medicine or safety and is not for them. Elsewhere the Act counts
  emotion recognition as high-risk (Annex III), and those exposed to it must be told (Article 50(3)).
- **Decisions about persons:** hiring, credit, insurance, policing, borders, lie detection, diagnosis. Nor is it for
  watching people who have not agreed to it."""

LIMITATIONS = """\
- The pictures are small (48x48), grey, and from the web of 2013, found by searching for words of emotion, posed and
  acted faces among them. Video, other cameras, croppings and cultures have not been measured: expect less.
- FER2013 does not say who is in a picture, so figures by age, gender or skin colour cannot be given, and differences
  must be expected.
- It needs a face that is cut out as in FER2013; it finds none by itself. It names one of the eight emotions for every
  picture, also where there is no face.
- The labels are the opinions of about ten taggers a picture. The intervals say how much chance is in the choice of the
  pictures; another seed of training changes the figures too.
- The temperature and the probabilities hold for pictures like these."""

LICENCE = """\
- **Pictures:** FER2013, collected from the web by image search
  ([Goodfellow et al. 2013](https://arxiv.org/abs/1307.0414)) without asking the people in them, and given out for a
  research challenge on
  [Kaggle](https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge),
  under its terms. Those who made the pictures keep their rights.
- **Votes:** FER+, [MIT licence](https://github.com/microsoft/FERPlus/blob/master/LICENSE.md), Microsoft Corporation.

No picture is in this folder. Whether these terms allow your use of what was trained on the data is for you to check."""


def page(network: Network, result: Evaluation, weights_bytes: int, commands: str, half: bool = False) -> list[Block]:
    """The whole card.

    Args:
        network: what is released; its `run` is where users find it.
        result: its figures on validation.
        weights_bytes: the size of its weights file.
        commands: that train and release it again.
        half: whether its kernels are kept in float16.
    """
    return [
        Text(f"It names the expression of a face in a small grey picture: one of {', '.join(EMOTIONS)}."),
        *_section("Model details", _details(network, weights_bytes, half)),
        *_section("Intended use", INTENDED),
        *_section("Out-of-scope use", OUT_OF_SCOPE),
        *_section("Training data", _training_data(network)),
        *_section("Evaluation", _evaluation_data(network, result)),
        *report.main_metrics(result),
        *_by_class(result),
        *report.calibrated(result),
        *_section("Limitations", LIMITATIONS),
        *_section("Licence of the data", LICENCE),
        *_section("How to use it", _use(network)),
        *_section("How to reproduce it", _reproduce(network, commands)),
    ]


def _section(title: str, text: str) -> list[Block]:
    return [Heading(title), Text(text)]


def _details(network: Network, weights_bytes: int, half: bool) -> str:
    config, size = network.config, network.config.image.size
    epochs = sum(record.step <= network.step for record in network.history)
    kernels, averaged = ", kernels in float16" if half else "", ""
    if config.optim.swa_epochs and epochs > config.train.epochs - config.optim.swa_epochs:
        averaged = f", mean of the weights of the last {config.optim.swa_epochs:g} epochs"
    elif config.optim.ema_decay:
        averaged = f", moving average of the weights with decay {config.optim.ema_decay:g}"
    begun = f"from the weights of `{config.train.init_from}`" if config.train.init_from else "from scratch"
    if teachers := config.data.teachers:
        begun += f", {config.data.teacher_share:.0%} of each target from {', '.join(f'`{run}`' for run in teachers)}"
    model = config.model
    switched = [f"`model.{of}={model[of]}`" for of in SWITCHES if model[of] != config_lib.LATER_FIELDS[f"model.{of}"]]
    lines = [
        f"**Network:** `{config.model.name}` of `fer_jax/models/registry.py` (JAX, Flax){' with ' if switched else ''}"
        f"{', '.join(switched)}, "
        f"{registry.count_parameters(network.variables['params']):,} parameters, trained {begun}.",
        "**Input:** a face cut out as in FER2013, 48x48 pixels, 8-bit grey; the network sees it at "
        f"{size}x{size}, normalisation `{config.image.normalize}`.",
        f"**Output:** a probability for each of {', '.join(EMOTIONS)}.",
        f"**Weights:** `{WEIGHTS}`, {weights_bytes / 1e6:.1f} MB, float32{kernels}, no pickle: the "
        f"{network.checkpoint} checkpoint{averaged}, of step "
        f"{network.step:,}, after {epochs} of {config.train.epochs} epochs.",
        f"**Training:** labels `{config.data.label_mode}`, augmentation `{config.augment.recipe}`, optimizer "
        f"`{config.optim.name}` at {config.optim.learning_rate:g}, schedule `{config.schedule.name}`, batches of "
        f"{config.train.batch_size}, seed {config.seed}. `config.json` has the rest, `configs/base.py` explains it.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _training_data(network: Network) -> str:
    config, last = network.config, network.history[-1]
    left_out = ", less those that stand in validation or test too" if config.data.get("drop_repeats", False) else ""
    return (
        "[FER+](https://arxiv.org/abs/1608.01041) (Barsoum et al. 2016): the training pictures of FER2013 with crowd "
        f"votes, as the label mode `{config.data.label_mode}` of `fer_jax/data/labels.py` chooses and reads them{left_out}; "
        f"{last.step // last.epoch:,} batches of {config.train.batch_size} pictures an epoch. No others."
    )


def _evaluation_data(network: Network, result: Evaluation) -> str:
    if network.checkpoint == "best":
        chose = "Validation chose the checkpoint, of all epochs that with the highest accuracy by majority, which"
    else:
        chose = "The checkpoint is the latest: validation did not choose it, but may have chosen the recipe, which"
    return (
        "On the validation pictures of FER+ (usage PublicTest), each seen once, not mirrored. The figures were "
        "computed from the files of this folder when it was made; the one to compare with others is accuracy under "
        f"protocol {result.main_protocol}. {chose} flatters the figures. None is of the test pictures."
    )


def _by_class(result: Evaluation) -> list[Block]:
    return [Heading("By class"), tables.class_table(result), Text(weaknesses(result))]


def weaknesses(result: Evaluation) -> str:
    """The classes that are found least often, and what they are taken for instead, in words."""
    own, confusion = result.metrics[result.main_protocol]["all"], metrics_lib.confusion(result.predictions[result.main_protocol])
    there = np.flatnonzero(confusion.sum(axis=1))
    told = []
    for c in sorted(there, key=lambda c: own[f"recall/{EMOTIONS[c]}"].value)[:WEAKEST]:
        recall, missed = tables.show("recall", own[f"recall/{EMOTIONS[c]}"]), confusion[c].copy()
        missed[c] = 0
        of = f"**{EMOTIONS[c]}** {recall} of {confusion[c].sum():,} pictures"
        if missed.any():
            of += f" (taken most often for {EMOTIONS[np.argmax(missed)]}: {missed.max():,})"
        told.append(of)
    return (
        f"Weakest, by recall under protocol {result.main_protocol}: {'; '.join(told)}. Do not rely on it for these classes."
    )


def _use(network: Network) -> str:
    return f"""\
In the repository, with its packages installed, on the data of its README and on a picture of yours, `face.png`, of a
face that is cut out:

```
python -m fer_jax.predict --run {network.run} face.png
python -m fer_jax.evaluate --run {network.run} --split valid --data data
```

```python
from pathlib import Path
import numpy as np
from PIL import Image
from fer_jax import inference

images = np.stack([np.asarray(Image.open("face.png").convert("L").resize((48, 48)))])
network = inference.restore(Path("{network.run}"), "{network.checkpoint}")
probabilities = np.exp(inference.log_probabilities(network, images))  # u8[N, 48, 48] -> f64[N, 8]
```"""


def _reproduce(network: Network, commands: str) -> str:
    return f"""\
```
{commands}
```

The data are made as the README of the repository says. Seed {network.config.seed} gives the same weights on one machine
with the same packages; elsewhere rounding differs, and with it the network a little."""
