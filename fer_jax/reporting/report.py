"""The report of an evaluation as a page: what was found, in tables, pictures and words."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

from fer_jax.data.folders import Split
from fer_jax.data.labels import EMOTIONS
from fer_jax.evaluation import calibration, comparison
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.result import SUBSETS, Evaluation
from fer_jax.inference.saliency import Saliency
from fer_jax.reporting import galleries, plots, tables
from fer_jax.reporting.document import Block, Heading, ImageBlock, Table, Text
from fer_jax.training.history import EpochRecord

GALLERY = 8  # pictures in each

HOW = [
    Text(
        "Protocols: majority keeps the pictures of which one emotion has more than half of the votes once single votes "
        "are dropped, clean those without a vote for unknown or not-a-face, argmax all; the label is the emotion with "
        "the most votes. Macro means are over the classes; one that is neither labelled nor predicted stays out. The "
        "taggers' figures are mean shares of a picture's votes: no model can agree with more of them than the label "
        "does."
    ),
    Text(
        "Intervals are 95% percentile bootstrap intervals over the pictures (1,000 replicas, fixed seed): how much a "
        "figure depends on which pictures are in the split. They do not say how much another seed of training would "
        "change. That of the expected calibration error lies high, since resampling adds noise to its bins; that of a "
        "figure of exactly 0% or 100% has no width, however few the pictures."
    ),
]


def page(result: Evaluation, split: Split, history: Sequence[EpochRecord], maps: Saliency | None) -> list[Block]:
    """The whole report of one model.

    Args:
        result: what was found.
        split: all the pictures that it was found on.
        history: of the training run, for its curves; empty for an ensemble.
        maps: of `inference.saliency`, or None.
    """
    kept = Split(*(field[result.rows] for field in split))
    of = f"{result.name}, {result.split}, {result.main_protocol}"
    blocks = main_metrics(result) + _classes(result, of) + _calibration(result, of) + _taggers(result, of)
    blocks += _slices(result, kept, of) + _galleries(result, kept, of)
    if maps is not None:
        blocks += _saliency(maps, of)
    if history:
        blocks += [Heading("Training"), _picture("training", plots.training_curves(history, result.name))]
    return blocks


def _picture(name: str, figure: Figure, caption: str = "") -> ImageBlock:
    return ImageBlock(name, plots.png(figure), " ".join(figure.get_suptitle().split()), caption)


def main_metrics(result: Evaluation) -> list[Block]:
    """Every figure under every protocol, and what is left of accuracy without the pictures that were seen before."""
    blocks: list[Block] = [Heading("Figures"), tables.main_table(result), *HOW, Heading("Without memory")]
    if len(result.counts[result.main_protocol]) > 1:
        seen = (
            "Some pictures of FER2013 stand in several splits: what a network says of them may be memory. Left out "
            "below are those that also stand in another split that training or selection uses, even where this network "
            "was trained without them (data.drop_repeats): first those with the same pixels, then near repeats too. "
            "These are the same photograph in another light, shifted by a pixel, or mirrored (python -m "
            "fer_jax.repeats draws them)."
        )
        return [*blocks, Text(seen), tables.duplicates_table(result)]
    if result.split == "train":
        return [*blocks, Text("The network was trained on these pictures: the figures say how well it fits them.")]
    return [*blocks, Text("The training pictures are not at hand, so it is not known which pictures were seen.")]


def _classes(result: Evaluation, of: str) -> list[Block]:
    own, confusion = result.metrics[result.main_protocol]["all"], metrics_lib.confusion(result.predictions[result.main_protocol])
    bars = plots.class_bars({e: own[f"f1/{e}"] for e in EMOTIONS}, confusion.sum(axis=1), of)
    return [
        Heading("By class"),
        tables.class_table(result),
        _picture("class_f1", bars),
        _picture("confusion_matrix", plots.confusion(confusion, of)),
    ]


def calibrated(result: Evaluation) -> list[Block]:
    """What a temperature fitted on validation does to the probabilities."""
    before, after = result.metrics[result.main_protocol]["all"], result.calibrated
    rows = [
        [tables.MAIN[name][0], tables.show(name, before[name]), tables.show(name, after[name])]
        for name in tables.CALIBRATED
    ]
    sure = "less" if result.temperature > 1 else "more"
    fitted = f"A temperature of {result.temperature:.3f}, fitted on validation, makes the model {sure} sure of itself."
    if result.split == "valid":
        fitted += " It was fitted on these same pictures, which flatters it a little: it is one number."
    nearer = after["kl_from_votes"].value < before["kl_from_votes"].value
    fitted += f" It takes the probabilities {'nearer to' if nearer else 'farther from'} the votes (KL divergence)."
    table = Table(["", "as it is", f"temperature {result.temperature:.3f}"], rows, f"protocol {result.main_protocol}")
    return [Heading("Calibration"), table, Text(fitted)]


def _calibration(result: Evaluation, of: str) -> list[Block]:
    judged = result.predictions[result.main_protocol]
    cooled = judged._replace(
        log_probabilities=calibration.apply_temperature(judged.log_probabilities, result.temperature)
    )
    diagram = plots.reliability(
        *calibration.reliability(judged),
        result.metrics[result.main_protocol]["all"]["ece"].value,
        of,
        after=(*calibration.reliability(cooled), result.calibrated["ece"].value),
    )
    return [*calibrated(result), _picture("reliability", diagram)]


def _taggers(result: Evaluation, of: str) -> list[Block]:
    own = result.metrics[result.main_protocol]["all"]
    judged = result.predictions[result.main_protocol]
    parts = comparison.slices_by_value(judged, comparison.annotator_agreement(judged))
    return [
        Heading("Against the taggers"),
        Text(
            f"On average {own['agreement'].value:.1%} of a picture's taggers chose what the model predicts; "
            f"{own['label_agreement'].value:.1%} chose the label, the most that a model can reach. The votes lie "
            f"{own['kl_from_votes'].value:.3f} nats from the model's probabilities (KL divergence)."
        ),
        _slice_table("taggers who chose the label", [f"{part.low:.0%}" for part in parts], parts),
        _picture("agreement", plots.agreement([(part.low, part.count, part.accuracy) for part in parts], of)),
    ]


def _slices(result: Evaluation, kept: Split, of: str) -> list[Block]:
    measures = {
        "sharpness (variance of the Laplacian)": comparison.sharpness(kept.images),
        "brightness (mean grey)": comparison.brightness(kept.images),
        "contrast (standard deviation of grey)": comparison.contrast(kept.images),
    }
    quarters = {name: comparison.slices(result.predictions[result.main_protocol], values) for name, values in measures.items()}
    by_quarter = [
        _slice_table(name, [f"{part.low:,.1f} to {part.high:,.1f}" for part in parts], parts)
        for name, parts in quarters.items()
    ]
    how = "Quarters of the pictures by how they look. Intervals here and by agreement of the taggers are Wilson's."
    return [Heading("Slices"), Text(how), *by_quarter, _picture("slices", plots.slices(quarters, of))]


def _slice_table(name: str, labels: Sequence[str], parts: Sequence[comparison.Slice]) -> Table:
    rows = [
        [label, f"{part.count:,}", tables.show("accuracy", part.accuracy)]
        for label, part in zip(labels, parts, strict=True)
    ]
    return Table([name, "pictures", "accuracy"], rows)


def _galleries(result: Evaluation, kept: Split, of: str) -> list[Block]:
    judged = result.predictions[result.main_protocol]
    blocks: list[Block] = [Heading("Pictures worth a look")]
    for name, title, rows in (
        ("mistakes", "most confident mistakes", comparison.most_confident_errors(judged, GALLERY)),
        ("hits", "least confident hits", comparison.least_confident_correct(judged, GALLERY)),
    ):
        shown = np.exp(judged.log_probabilities[rows]), judged.label[rows]
        sheet = galleries.gallery(kept.images[rows], kept.votes[rows], *shown, f"{of}: {title}")
        blocks.append(_picture(name, sheet, f"The {title}: {', '.join(kept.names[rows]) or 'none'}."))
    return blocks


def _saliency(maps: Saliency, of: str) -> list[Block]:
    sheet = galleries.saliency(maps.maps, maps.faces, maps.count, f"Saliency: {of}", "mean size of the gradient")
    explained = (
        "How strongly each pixel moves the log probability of the label: the mean size of the gradient over the first "
        f"{maps.count.max()} pictures of each class at most (Simonyan et al. 2013)."
    )
    return [Heading("Where it looks"), Text(explained), _picture("saliency", sheet)]


def comparison_page(results: Sequence[Evaluation]) -> list[Block]:
    """Several models on the same pictures: their figures side by side, and a test of each pair."""
    main_protocol, count = results[0].main_protocol, len(results[0].rows)
    own = {result.name: result.metrics[main_protocol]["all"] for result in results}
    rows = []
    for name, (title, _) in tables.MAIN.items():
        rows.append([title, *(tables.show(name, of[name]) for of in own.values())])
        if name == "accuracy":
            for subset in list(results[0].counts[main_protocol])[1:]:
                cells = [tables.show(name, result.metrics[main_protocol][subset][name]) for result in results]
                rows.append([f"accuracy, {SUBSETS[subset]} ({results[0].counts[main_protocol][subset]:,})", *cells])
    pairs = []
    for a, b in combinations(results, 2):
        found = comparison.compare(a.predictions[main_protocol], b.predictions[main_protocol])
        points = [[100 * share for share in difference] for difference in (found.accuracy, found.macro_f1)]
        differences = [f"{value:+.2f} ({low:+.1f} to {high:+.1f})" for value, low, high in points]
        counts = [f"{found.only_a:,}", f"{found.only_b:,}", f"{found.mcnemar_p:.3g}"]
        pairs.append([f"{a.name} - {b.name}", *differences, *counts])
    panels = {
        name: {tables.MAIN[figure][0]: of[figure] for figure in ("accuracy", "macro_f1")} for name, of in own.items()
    }
    of = f"{results[0].split}, {main_protocol}"
    return [
        Heading("Figures"),
        Table(["", *own], rows, f"{of}: {count:,} pictures, the same for all; with 95% intervals"),
        _picture("models", plots.forest(panels, count, of)),
        Heading("Pairs"),
        Table(
            ["", "accuracy", "F1, macro", "only first right", "only second right", "McNemar's p"],
            pairs,
            "first less second in percentage points, with 95% intervals of the paired bootstrap",
        ),
        Text(
            "McNemar's exact test asks how likely so uneven a split of the pictures that only one model has right "
            "would be by chance. Several pairs are several tries: of ten pairs of equal models expect one p under 0.1. "
            "No test here knows how much another seed of training would change."
        ),
        *HOW,
    ]
