"""The report of an evaluation as a page of tables, plots and text."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from fer_jax.core.text import counted
from fer_jax.data.folders import Split
from fer_jax.data.labels import EMOTIONS
from fer_jax.evaluation import calibration, ceiling, comparison
from fer_jax.evaluation import metrics as metrics_lib
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference.saliency import Saliency
from fer_jax.reporting import galleries, plots, robustness_report, tables
from fer_jax.reporting.document import Block, Contents, Heading, ImageBlock, Table, Text
from fer_jax.training.history import EpochRecord

GALLERY = 8  # images in each

METHOD = [
    Text(
        "Protocols: majority keeps the images for which one emotion has more than half of the votes after single votes "
        "are dropped. clean keeps those without a vote for unknown or not-a-face. argmax keeps all. The label is the "
        "emotion with the most votes. Macro means are over the classes; a class that is neither labelled nor predicted "
        "stays out. Votes for the prediction and for the label are mean fractions of an image's votes. No model can "
        "have more votes for its predictions than the labels have."
    ),
    Text(
        "Intervals are 95% percentile bootstrap intervals over the images (1,000 replicas, fixed seed). They show how "
        "much a metric depends on the choice of the images. They do not show how much another training seed would "
        "change. The interval of the expected calibration error lies high, since resampling adds noise to its bins. "
        "The interval of exactly 0% or 100% has no width, however few the images."
    ),
]


def page(
    result: Evaluation,
    split: Split,
    history: Sequence[EpochRecord],
    compute_maps: Callable[[], Saliency] | None,
    about: str,
) -> list[Block]:
    """Return the whole report of one model.

    Args:
        result: the evaluation.
        split: all images of the evaluated split.
        history: the epochs of the training run, for its curves; empty for an ensemble.
        compute_maps: returns the saliency maps, called once the plots before them are drawn; None leaves them out.
        about: the model in words: its training and its checkpoint.
    """
    kept = Split(*(field[result.rows] for field in split))
    title = f"{result.name}, {tables.SPLITS[result.split]}, {result.main_protocol}"
    blocks = [*_summary(result), Text(about), Contents(), *main_metrics(result), *_classes(result, title)]
    blocks += _calibration(result, title) + _annotators(result, title)
    blocks += _slices(result, kept, title)
    if result.robustness is not None:
        blocks += robustness_report.section(result, result.robustness)
        blocks.append(image("robustness", robustness_report.plot(result, result.robustness, title)))
    blocks += _galleries(result, kept, title)
    if compute_maps is not None:
        blocks += _saliency(compute_maps(), title)
    if history:
        blocks += [Heading("Training"), image("training", plots.training_curves(history, result.name))]
    return blocks


def image(name: str, figure: Figure, caption: str = "") -> ImageBlock:
    """Return a plot as an image whose alternative text is the plot's title."""
    return ImageBlock(name, plots.png(figure), " ".join(figure.get_suptitle().split()), caption)


def _summary(result: Evaluation) -> list[Block]:
    """The accuracy, the strongest and the weakest class, calibration and agreement, in words and numbers."""
    metrics, predictions = result.main_metrics, result.main_predictions
    counts = dict(zip(EMOTIONS, metrics_lib.confusion(predictions).sum(axis=1), strict=True))
    recall = {emotion: metrics[f"recall/{emotion}"].value for emotion, count in counts.items() if count}
    confidence, accuracy = predictions.confidence.mean(), metrics["accuracy"].value
    sentences = [
        f"On the {counted(len(result.rows), f'{tables.SPLITS[result.split]} image')} of protocol "
        f"{result.main_protocol}, the accuracy of {result.name} is {tables.show('accuracy', metrics['accuracy'])}."
    ]
    if result.counts[result.main_protocol].get("without_duplicates"):
        without = result.metrics[result.main_protocol]["without_duplicates"]["accuracy"]
        sentences.append(f"Without duplicates it is {tables.show('accuracy', without)}.")
    if len(recall) > 1:
        best, *_, worst = sorted(recall, key=lambda emotion: -recall[emotion])
        sentences.append(
            f"The class with the highest recall is {best} ({recall[best]:.1%} of {counted(counts[best], 'image')}), "
            f"the one with the lowest is {worst} ({recall[worst]:.1%} of {counted(counts[worst], 'image')})."
        )
    sentences += [
        f"The mean confidence is {confidence:.1%}, so the model is "
        f"{'overconfident' if confidence > accuracy else 'underconfident'} by "
        f"{100 * abs(confidence - accuracy):.1f} points.",
        f"{metrics['agreement'].value:.1%} of the annotators' votes are for its predictions, "
        f"{metrics['label_agreement'].value:.1%} for the labels.",
    ]
    return [Heading("Summary"), Text(" ".join(sentences)), tables.summary_table(result)]


def main_metrics(result: Evaluation) -> list[Block]:
    """Return every metric under every protocol, and the accuracies without duplicates."""
    blocks: list[Block] = [
        Heading("Metrics"),
        tables.main_table(result),
        *METHOD,
        Heading("Without duplicates"),
    ]
    if len(result.counts[result.main_protocol]) > 1:
        explanation = (
            "Some images of FER2013 are in several splits, so a network may have memorised them. The last columns "
            "leave out the images that are also in another split that training or selection uses, even if this "
            "network was trained without them (data.drop_repeats). Exact duplicates have the same pixels. The last "
            "column leaves out near-duplicates too: the same photograph in another light, shifted by a pixel, or "
            "mirrored (fer-jax repeats --sheet draws them)."
        )
        return [*blocks, Text(explanation), tables.duplicates_table(result)]
    if result.split == "train":
        return [*blocks, Text("The network was trained on these images: the metrics say how well it fits them.")]
    return [*blocks, Text("The training images are missing, so it is not known which of these images are duplicates.")]


def _classes(result: Evaluation, title: str) -> list[Block]:
    metrics, confusion = result.main_metrics, metrics_lib.confusion(result.main_predictions)
    bars = plots.class_bars({e: metrics[f"f1/{e}"] for e in EMOTIONS}, confusion.sum(axis=1).tolist(), title)
    return [
        Heading("By class"),
        tables.class_table(result),
        image("class_f1", bars),
        image("confusion_matrix", plots.confusion(confusion, title)),
    ]


def calibrated(result: Evaluation) -> list[Block]:
    """Return the effect on the probabilities of the temperature fitted on validation."""
    before, after = result.main_metrics, result.calibrated
    rows = [
        [tables.MAIN[name][0], tables.show(name, before[name]), tables.show(name, after[name])]
        for name in tables.CALIBRATED
    ]
    change = "less" if result.temperature > 1 else "more"
    text = f"A temperature of {result.temperature:.3f}, fitted on validation, makes the model {change} confident."
    if result.split == "valid":
        text += " It was fitted on these same images, which flatters the model a little: it is one number."
    closer = after["kl_from_votes"].value < before["kl_from_votes"].value
    text += f" It moves the probabilities {'closer to' if closer else 'away from'} the votes (KL divergence)."
    header = ["", "as predicted", f"temperature {result.temperature:.3f}"]
    return [Heading("Calibration"), Table(header, rows, f"protocol {result.main_protocol}"), Text(text)]


def _calibration(result: Evaluation, title: str) -> list[Block]:
    predictions = result.main_predictions
    scaled = predictions._replace(
        log_probabilities=calibration.apply_temperature(predictions.log_probabilities, result.temperature)
    )
    diagram = plots.reliability(
        *calibration.reliability(predictions),
        result.main_metrics["ece"].value,
        title,
        after=(*calibration.reliability(scaled), result.calibrated["ece"].value),
    )
    return [*calibrated(result), image("reliability", diagram, _faint("Bins"))]


def _faint(subject: str) -> str:
    return f"{subject} of one or two images are faint."


def _annotators(result: Evaluation, title: str) -> list[Block]:
    metrics, predictions = result.main_metrics, result.main_predictions
    agreement = comparison.annotator_agreement(predictions)
    parts = comparison.slices_by_value(predictions, agreement)
    posterior = ceiling.ceiling(predictions.votes, predictions.label, result.main_protocol)
    plot = plots.agreement([(part.low, part.count, part.accuracy) for part in parts], title)
    table = _slice_table("annotators who chose the label", [f"{part.low:.0%}" for part in parts], parts)
    rows = [
        [
            *row,
            *(f"{values[agreement == part.low].mean():.1%}" for values in (posterior.accuracy, posterior.another_vote)),
        ]
        for row, part in zip(table.rows, parts, strict=True)
    ]
    return [
        Heading("Against the annotators"),
        Text(
            f"On average {metrics['agreement'].value:.1%} of an image's annotators chose the predicted class. "
            f"{metrics['label_agreement'].value:.1%} chose the label, the most that a model can reach. The KL "
            f"divergence of the votes from the model's probabilities is {metrics['kl_from_votes'].value:.3f} nats."
        ),
        Text(
            f"The ceiling is {posterior.accuracy.mean():.1%}: the accuracy of a model that knew the true distribution "
            "of every image, of which the votes are a sample (posterior of the votes, Dirichlet prior of the weight of "
            f"one vote). New annotators would give the same label in {posterior.repeated:.1%} of the cases, and one "
            f"more annotator would choose the label in {posterior.another_vote.mean():.1%}."
        ),
        Table([*table.header, "ceiling", "one more annotator"], rows),
        image("agreement", plot, _faint("Points")),
    ]


def _slices(result: Evaluation, kept: Split, title: str) -> list[Block]:
    properties = {
        "sharpness (variance of the Laplacian)": comparison.sharpness(kept.images),
        "brightness (mean grey)": comparison.brightness(kept.images),
        "contrast (standard deviation of grey)": comparison.contrast(kept.images),
    }
    quarters = {name: comparison.slices(result.main_predictions, values) for name, values in properties.items()}
    by_quarter = [
        _slice_table(name, [f"{part.low:,.1f} to {part.high:,.1f}" for part in parts], parts)
        for name, parts in quarters.items()
    ]
    text = "Accuracy in quarters of the images. Intervals here and by agreement of the annotators are Wilson's."
    return [Heading("Slices"), Text(text), *by_quarter, image("slices", plots.slices(quarters, title))]


def _slice_table(name: str, labels: Sequence[str], parts: Sequence[comparison.Slice]) -> Table:
    rows = [
        [label, f"{part.count:,}", tables.show("accuracy", part.accuracy)]
        for label, part in zip(labels, parts, strict=True)
    ]
    return Table([name, "images", "accuracy"], rows)


def _galleries(result: Evaluation, kept: Split, title: str) -> list[Block]:
    predictions = result.main_predictions
    blocks: list[Block] = [Heading("Images to look at")]
    for name, selection, rows in (
        ("errors", "most confident errors", comparison.most_confident_errors(predictions, GALLERY)),
        ("correct", "least confident correct predictions", comparison.least_confident_correct(predictions, GALLERY)),
    ):
        probabilities, label = np.exp(predictions.log_probabilities[rows]), predictions.label[rows]
        sheet = galleries.gallery(kept.images[rows], kept.votes[rows], probabilities, label, f"{title}: {selection}")
        blocks.append(image(name, sheet, f"The {selection}: {', '.join(kept.names[rows]) or 'none'}."))
    return blocks


def _saliency(maps: Saliency, title: str) -> list[Block]:
    sheet = galleries.saliency(maps.maps, maps.faces, maps.count, f"Saliency: {title}", "mean size of the gradient")
    text = (
        "The effect of each pixel on the log probability of the label: the mean size of the gradient over the first "
        f"{maps.count.max()} images of each class at most (Simonyan et al. 2013)."
    )
    return [Heading("Saliency"), Text(text), image("saliency", sheet)]
