import io
import json
import re
import shutil
import subprocess
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import digests
from fer_jax.data.folders import Split
from fer_jax.data.labels import EMOTIONS, PROTOCOLS
from fer_jax.evaluation import evaluator
from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.result import SUBSETS, Evaluation
from fer_jax.inference.saliency import Saliency
from fer_jax.reporting import comparison_report, document, report, tables
from fer_jax.reporting.document import Block, Contents, Heading, ImageBlock, Table, Text
from fer_jax.training.history import EpochRecord

FEAR = EMOTIONS.index("fear")
# The labels of the 24 images that majority keeps, and the errors of the model: row and prediction. The split begins
# with two other images, which only clean or argmax keep.
LABEL = np.repeat(range(5), (6, 8, 4, 3, 3))
COUNT = dict(zip(EMOTIONS, (6, 8, 4, 3, 3, 0, 0, 0), strict=True))
ERRORS = {0: 3, 1: 3, 6: 0, 14: FEAR, 18: 0, 21: 1}
DUPLICATES = {"all": [], "without_exact_duplicates": [0, 1], "without_duplicates": [0, 1, 6]}  # left out of each subset
CORRECT_AND_COUNTS = {
    "all": {"majority": (18, 24), "clean": (18, 25), "argmax": (19, 26)},
    "without_exact_duplicates": {"majority": (18, 22), "clean": (18, 23), "argmax": (19, 24)},
    "without_duplicates": {"majority": (18, 21), "clean": (18, 22), "argmax": (19, 23)},
}
PRECISION_RECALL_F1 = {
    "neutral": (4 / 6, 4 / 6, 4 / 6),
    "happiness": (7 / 8, 7 / 8, 7 / 8),
    "surprise": (1, 3 / 4, 6 / 7),
    "sadness": (2 / 4, 2 / 3, 4 / 7),
    "anger": (1, 2 / 3, 4 / 5),
    "fear": (0, 0, 0),  # predicted once, never labelled
}
MAIN_METRICS = {
    "accuracy": 18 / 24,
    "balanced_accuracy": (4 / 6 + 7 / 8 + 3 / 4 + 2 / 3 + 2 / 3) / 5,
    "macro_f1": sum(f1 for *_, f1 in PRECISION_RECALL_F1.values()) / 6,
    "macro_precision": (4 / 6 + 7 / 8 + 1 + 2 / 4 + 1 + 0) / 6,
    "macro_recall": (4 / 6 + 7 / 8 + 3 / 4 + 2 / 3 + 2 / 3 + 0) / 6,
    "f1": (6 * 4 / 6 + 8 * 7 / 8 + 4 * 6 / 7 + 3 * 4 / 7 + 3 * 4 / 5) / 24,
    "precision": (6 * 4 / 6 + 8 * 7 / 8 + 4 * 1 + 3 * 2 / 4 + 3 * 1) / 24,
    "recall": 18 / 24,
    "nll": -(18 * log(0.65) + 6 * log(0.05)) / 24,
    "brier": (18 * (0.35**2 + 7 * 0.05**2) + 6 * (0.65**2 + 0.95**2 + 6 * 0.05**2)) / 24,
    "ece": 18 / 24 - 0.65,
    "agreement": (7 * 1 + 11 * 0.8) / 24,
    "label_agreement": (8 * 1 + 16 * 0.8) / 24,
}


def split_of(label: np.ndarray, *others: list[int]) -> Split:
    """Images with the votes `others`; then happiness by all ten annotators, the other labels by eight."""
    votes = 8 * np.eye(10, dtype=np.int32)[label] + 2 * np.eye(10, dtype=np.int32)[np.where(label == 1, 1, label + 1)]
    votes = np.concatenate([np.array(others, np.int32).reshape(-1, 10), votes])
    images = np.random.default_rng(0).integers(0, 256, (len(votes), 48, 48), dtype=np.uint8)
    return Split(images, votes, np.array([f"fer{i:07}.png" for i in range(len(votes))]), digests.of_images(images))


# The first is labelled surprise, the first of a tie, which clean keeps; the second happiness, under argmax only.
SPLIT = split_of(LABEL, [0, 0, 5, 0, 0, 0, 5, 0, 0, 0], [0, 4, 0, 0, 0, 0, 0, 0, 6, 0])


def predicting(prediction: list[int] | np.ndarray) -> np.ndarray:
    """A model whose confidence is 65 % for every image."""
    return np.log(0.05 + 0.6 * np.eye(8)[prediction])


def model(name: str, errors: dict[int, int]) -> Evaluation:
    prediction = LABEL.copy()
    prediction[list(errors)] = list(errors.values())
    subsets = {subset: ~np.isin(np.arange(26) - 2, rows) for subset, rows in DUPLICATES.items()}
    return evaluator.evaluate_predictions(
        name, predicting([FEAR, 1, *prediction]), "valid", SPLIT, subsets, "majority", 0.5
    )


HISTORY = [
    EpochRecord(
        epoch=epoch,
        step=4 * epoch,
        learning_rate=0.001 * epoch,
        train={"loss": 2.0 / epoch, "accuracy": 0.2 * epoch, "macro_f1": 0.1 * epoch},
        valid={"loss": 2.1 / epoch, "accuracy": 0.19 * epoch, "macro_f1": 0.09 * epoch},
    )
    for epoch in (1, 2, 3)
]


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return model("a", ERRORS)


@pytest.fixture(scope="module")
def page(result: Evaluation) -> list[Block]:
    rng = np.random.default_rng(0)
    count = np.array([*COUNT.values()])
    maps = rng.random((8, 48, 48), np.float32) * (count > 0)[:, None, None]
    return report.page(result, SPLIT, HISTORY, lambda: Saliency(maps, 255 * maps, count), "A tiny network.")


@pytest.fixture(scope="module")
def models(result: Evaluation) -> list[Evaluation]:
    return [result, model("b", {0: 1, 2: 1}), result._replace(name="a again")]


@pytest.fixture(scope="module")
def pairs(models: list[Evaluation]) -> comparison_report.Pairs:
    return comparison_report.compare_pairs(models)


@pytest.fixture(scope="module")
def compared(models: list[Evaluation], pairs: comparison_report.Pairs) -> list[Block]:
    return comparison_report.page(models, pairs)


def of_kind(blocks: list[Block], kind: type) -> list:
    return [block for block in blocks if isinstance(block, kind)]


def table(blocks: list[Block], *header: str) -> dict[str, list[str]]:
    """The rows, by their first cell, of the only table whose header begins with these columns."""
    (match,) = [block for block in of_kind(blocks, Table) if tuple(block.header[: len(header)]) == header]
    assert {len(row) for row in match.rows} == {len(match.header)}
    rows = {first: list(cells) for first, *cells in match.rows}
    assert len(rows) == len(match.rows)
    return rows


def numbers(cell: str) -> list[float]:
    """Value, low and high of a cell, fractions for percents."""
    match = re.fullmatch(r"(\S+?)(%?) \((\S+?)\2 to (\S+?)\2\)", cell)
    assert match, cell
    return [float(match[i].replace(",", "")) / (100 if match[2] else 1) for i in (1, 3, 4)]


def same(cell: str, interval: Interval) -> bool:
    """True if a cell shows an interval, its value to 4 digits and its ends to 3."""
    if np.isnan(interval.value):
        return cell == "none"
    value, low, high = numbers(cell)
    ends = pytest.approx(interval[1:], abs=0.00051)
    return value == pytest.approx(interval.value, abs=0.000051) and (low, high) == ends


def test_json_is_strict_and_equals_the_count_by_hand(result: Evaluation) -> None:
    got = json.loads(json.dumps(tables.as_json(result), allow_nan=False))
    assert (got["model"], got["split"], got["protocol"], got["count"]) == ("a", "valid", "majority", 24)
    assert {name: got[name] for name in MAIN_METRICS} == pytest.approx(MAIN_METRICS)
    for emotion in EMOTIONS:
        expected = PRECISION_RECALL_F1.get(emotion, (None, None, None))
        row = got["per_class"][emotion]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(expected), emotion
        assert row["count"] == COUNT[emotion]
    assert got["per_class"]["fear"]["roc_auc"] is None
    confusion = np.diag(list(COUNT.values()))
    for row, wrong in ERRORS.items():
        confusion[LABEL[row], [LABEL[row], wrong]] += [-1, 1]
    assert got["confusion"] == confusion.tolist()
    assert got["temperature"] == 0.5
    scaled = 0.65**2 / (0.65**2 + 7 * 0.05**2)
    assert got["calibrated"]["ece"][0] == pytest.approx(scaled - 18 / 24)


def test_json_has_a_triple_for_each_protocol_subset_and_name(result: Evaluation) -> None:
    got = tables.as_json(result)["protocols"]
    assert {p: list(by_subset) for p, by_subset in got.items()} == {p: list(DUPLICATES) for p in PROTOCOLS}
    names = {*tables.MAIN, *(f"{name}/{emotion}" for name in tables.PER_CLASS for emotion in EMOTIONS), "count"}
    for subset, by_protocol in CORRECT_AND_COUNTS.items():
        for protocol, (correct, count) in by_protocol.items():
            metrics = got[protocol][subset]
            areas = {name for name in names if name.startswith("roc_auc")}
            assert set(metrics) == (names if subset == "all" else names - areas)
            assert metrics["count"] == count
            value, low, high = metrics["accuracy"]
            assert value == pytest.approx(correct / count)
            assert low < value < high
            assert metrics["f1/contempt"] == [None, None, None]
            triples = [triple for name, triple in metrics.items() if name != "count" and triple[0] is not None]
            assert all(len(triple) == 3 and triple[1] <= triple[2] for triple in triples)


@pytest.mark.slow
def test_the_page_has_every_section_and_image(page: list[Block]) -> None:
    assert [block.text for block in of_kind(page, Heading)] == [
        "Summary",
        "Metrics",
        "Without duplicates",
        "By class",
        "Calibration",
        "Against the annotators",
        "Slices",
        "Images to look at",
        "Saliency",
        "Training",
    ]
    assert Text("A tiny network.") in page
    images = {image.name: image for image in of_kind(page, ImageBlock)}
    names = "class_f1 confusion_matrix reliability agreement slices errors correct saliency training"
    assert list(images) == names.split()
    for name, image in images.items():
        with Image.open(io.BytesIO(image.png)) as opened:
            assert opened.format == "PNG"
            assert opened.width > 600
            assert len(np.unique(np.asarray(opened.convert("L")))) > 10, f"{name} is blank"
        assert "a, " in image.alt  # the model's name
        assert "\n" not in image.alt
    rows = {name: re.findall(r"\d{7}", images[name].caption) for name in ("errors", "correct")}
    assert [int(number) - 2 for number in rows["errors"]] == list(ERRORS)
    assert [int(number) - 2 for number in rows["correct"]] == [row for row in range(24) if row not in ERRORS][:8]


def test_the_page_begins_with_a_summary_and_contents(page: list[Block], result: Evaluation) -> None:
    assert [type(block) for block in page[:6]] == [Heading, Text, Table, Text, Contents, Heading]
    summary = page[1].text
    assert summary.startswith("On the 24 validation images of protocol majority, the accuracy of a is 75.00% (")
    assert re.search(r"Without duplicates it is 85\.71% \(", summary)  # 18 of 21
    assert "highest recall is happiness (87.5% of 8 images), the one with the lowest is anger (66.7% of 3 " in summary
    assert "The mean confidence is 65.0%, so the model is underconfident by 10.0 points." in summary
    assert f"{MAIN_METRICS['agreement']:.1%} of the annotators' votes are for its predictions" in summary
    rows = {first: cells for first, *cells in page[2].rows}
    assert list(page[2].header) == ["", *SUBSETS.values()]
    assert rows.pop("images") == ["24", "22", "21"]
    assert len(rows) == len(tables.SUMMARY)
    for name in tables.SUMMARY:
        metrics = [result.metrics["majority"][subset][name] for subset in SUBSETS]
        assert all(same(cell, metric) for cell, metric in zip(rows[tables.MAIN[name][0]], metrics, strict=True))
    assert tables.verdict(result) == (
        f"a: accuracy {tables.show('accuracy', result.metrics['majority']['all']['accuracy'])}, 85.71% without "
        "duplicates; 24 validation images, majority"
    )


def test_tables_show_the_metrics_of_the_evaluation(page: list[Block], result: Evaluation) -> None:
    main = table(page, "", *PROTOCOLS)
    assert main.pop("images") == ["24", "25", "26"]
    assert len(main) == len(tables.MAIN)
    for (name, (title, _)), (first, cells) in zip(tables.MAIN.items(), main.items(), strict=True):
        assert first == title
        assert all(same(cell, result.metrics[p]["all"][name]) for p, cell in zip(PROTOCOLS, cells, strict=True))
    assert [numbers(cell)[0] for cell in main["accuracy"]] == pytest.approx([18 / 24, 18 / 25, 19 / 26], abs=1e-4)
    assert numbers(main["negative log likelihood"][0])[0] == pytest.approx(MAIN_METRICS["nll"], abs=1e-4)

    shown = tables.duplicates_table(result)
    assert shown in page
    assert list(shown.header) == ["", *SUBSETS.values()]
    rows = {first: cells for first, *cells in shown.rows}
    assert len(rows) == 4 * 3  # three accuracies and the count, each for three protocols
    for protocol in PROTOCOLS:
        correct, count = zip(*(CORRECT_AND_COUNTS[subset][protocol] for subset in SUBSETS), strict=True)
        assert rows[f"images, {protocol}"] == [str(n) for n in count]
        accuracy = [numbers(cell)[0] for cell in rows[f"accuracy, {protocol}"]]
        assert accuracy == pytest.approx(np.divide(correct, count), abs=1e-4)
        for name in ("accuracy", "balanced_accuracy", "top2_accuracy"):
            metrics = [result.metrics[protocol][subset][name] for subset in SUBSETS]
            cells = rows[f"{tables.MAIN[name][0]}, {protocol}"]
            assert all(same(cell, metric) for cell, metric in zip(cells, metrics, strict=True))


def test_tables_fit_a_terminal(result: Evaluation) -> None:
    for shown in (tables.main_table(result), tables.duplicates_table(result), tables.class_table(result)):
        assert max(map(len, document.to_text(shown).splitlines())) <= 100


def test_the_table_of_classes_shows_none_for_those_without_images(page: list[Block], result: Evaluation) -> None:
    rows = table(page, "", "images", "precision", "recall", "F1", "ROC AUC")
    assert list(rows) == list(EMOTIONS)
    for emotion, (count, *cells) in rows.items():
        assert int(count) == COUNT[emotion]
        metrics = [result.metrics["majority"]["all"][f"{name}/{emotion}"] for name in tables.PER_CLASS]
        assert all(same(cell, metric) for cell, metric in zip(cells, metrics, strict=True)), emotion
        if emotion in PRECISION_RECALL_F1:
            assert [numbers(cell)[0] for cell in cells[:3]] == pytest.approx(PRECISION_RECALL_F1[emotion], abs=1e-4)
    for emotion in ("disgust", "contempt"):
        assert rows[emotion] == ["0", "none", "none", "none", "none"]
    assert rows["fear"][-1] == "none"


def test_calibration_agreement_and_slices(page: list[Block], result: Evaluation) -> None:
    before = result.metrics["majority"]["all"]
    for title, (predicted, scaled) in table(page, "", "as predicted", "temperature 0.500").items():
        (name,) = [name for name, (shown, _) in tables.MAIN.items() if shown == title]
        assert same(predicted, before[name])
        assert same(scaled, result.calibrated[name])
    rows = table(page, "annotators who chose the label")
    assert {fraction: (int(n), numbers(cell)[0]) for fraction, (n, cell, _, _) in rows.items()} == {
        "80%": (16, pytest.approx(11 / 16, abs=1e-4)),
        "100%": (8, pytest.approx(7 / 8, abs=1e-4)),
    }
    text = " ".join(block.text for block in of_kind(page, Text))
    assert f"On average {MAIN_METRICS['agreement']:.1%} of an image's annotators" in text
    assert f"{MAIN_METRICS['label_agreement']:.1%} chose the label" in text
    assert "temperature of 0.500, fitted on validation, makes the model more confident" in text
    for measure in ("sharpness", "brightness", "contrast"):
        (header,) = [shown.header[0] for shown in of_kind(page, Table) if shown.header[0].startswith(measure)]
        rows = table(page, header)
        assert len(rows) == 4
        assert sum(int(n) for n, _ in rows.values()) == 24
        correct = sum(int(n) * numbers(cell)[0] for n, cell in rows.values())
        assert correct == pytest.approx(18, abs=0.01)
        ends = [[float(end.replace(",", "")) for end in label.split(" to ")] for label in rows]
        assert all(low <= high for low, high in ends)
        assert all(below[1] <= above[0] for below, above in pairwise(ends))


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("split_name", "prediction", "explanation", "empty", "filled"),
    [
        ("test", 2, "training images are missing", "errors", "correct"),
        ("train", 5, "trained on these images", "correct", "errors"),
    ],
)
def test_one_image_is_enough_also_for_an_ensemble(
    split_name: str, prediction: int, explanation: str, empty: str, filled: str
) -> None:
    split = split_of(np.array([2]))
    result = evaluator.evaluate_predictions(
        "e", predicting([prediction]), split_name, split, {"all": np.ones(1, bool)}, "majority", 1.0
    )
    blocks = report.page(result, split, [], None, "The mean of two.")
    headings = [block.text for block in of_kind(blocks, Heading)]
    assert headings[-1] == "Images to look at"  # no history, no maps
    assert "Slices" in headings
    captions = {image.name: image.caption for image in of_kind(blocks, ImageBlock)}
    assert captions[empty].endswith(": none.")
    assert captions[filled].endswith(": fer0000000.png.")
    text = " ".join(block.text for block in of_kind(blocks, Text))
    assert explanation in text
    assert f"On the 1 {tables.SPLITS[split_name]} image of protocol majority" in text
    cells = table(blocks, "", "majority")
    assert numbers(cells["accuracy"][0]) == [float(prediction == 2)] * 3
    assert cells["ROC AUC, one vs. rest"] == ["none"] * 3
    json.dumps(tables.as_json(result), allow_nan=False)


@pytest.mark.slow
def test_if_every_image_is_a_duplicate_the_tables_show_none() -> None:
    subsets = {name: np.full(1, name == "all") for name in SUBSETS}
    split = split_of(np.array([2]))
    result = evaluator.evaluate_predictions("e", predicting([2]), "valid", split, subsets, "majority", 1.0)
    rows = {first: cells for first, *cells in tables.duplicates_table(result).rows}
    assert rows["accuracy, majority"] == ["100.00% (100.0% to 100.0%)", "none", "none"]
    assert rows["images, majority"] == ["1", "0", "0"]
    summary = report.page(result, split, [], None, "")[1].text
    assert "duplicates" not in summary
    got = json.loads(json.dumps(tables.as_json(result), allow_nan=False))["protocols"]["majority"]
    assert got["without_exact_duplicates"]["count"] == 0
    assert got["without_exact_duplicates"]["accuracy"] == [None, None, None]
    assert got["all"]["accuracy"] == [1, 1, 1]


def test_the_comparison_has_all_models_and_pairs(compared: list[Block], result: Evaluation) -> None:
    rows = table(compared, "", "a", "b", "a again")
    assert len(rows) == len(tables.MAIN) + 2
    assert [numbers(cell)[0] for cell in rows["accuracy"]] == pytest.approx([18 / 24, 22 / 24, 18 / 24], abs=1e-4)
    exact, near = rows["accuracy, without exact duplicates (22)"], rows["accuracy, without duplicates (21)"]
    assert [numbers(cell)[0] for cell in exact] == pytest.approx([18 / 22, 21 / 22, 18 / 22], abs=1e-4)
    assert [numbers(cell)[0] for cell in near] == pytest.approx([18 / 21, 20 / 21, 18 / 21], abs=1e-4)
    for name, (title, _) in tables.MAIN.items():
        assert same(rows[title][0], result.metrics["majority"]["all"][name])
        assert rows[title][0] == rows[title][2]

    pairs = table(compared, "", "accuracy", "F1, macro", "only first", "only second", "McNemar's p")
    assert list(pairs) == ["a - b", "a - a again", "b - a again"]
    # only a is correct on image 2, only b on 1, 6, 14, 18 and 21: at most one head or tail of six coins
    assert pairs["a - b"][2:] == ["1", "5", f"{2 * (1 + 6) / 2**6:.3g}"]
    assert pairs["b - a again"][2:] == ["5", "1", f"{2 * (1 + 6) / 2**6:.3g}"]
    assert pairs["a - a again"] == ["+0.00 (+0.0 to +0.0)"] * 2 + ["0", "0", "1"]
    value, low, high = numbers(pairs["a - b"][0])
    assert value == pytest.approx(100 * (18 - 22) / 24, abs=0.01)
    assert low < value < high
    assert [image.name for image in of_kind(compared, ImageBlock)] == ["models"]


def test_the_comparison_begins_with_the_verdict_and_the_main_numbers(
    compared: list[Block], models: list[Evaluation], pairs: comparison_report.Pairs
) -> None:
    assert [type(block) for block in compared[:4]] == [Heading, Text, Table, Contents]
    rows = table(compared, "", "accuracy", "without duplicates", "F1, macro", "NLL", "ECE")
    assert list(rows) == ["a", "b", "a again"]
    for model_, cells in zip(models, rows.values(), strict=True):
        metrics = model_.metrics["majority"]
        assert same(cells[0], metrics["all"]["accuracy"])
        assert same(cells[1], metrics["without_duplicates"]["accuracy"])
        assert all(same(cell, metrics["all"][n]) for cell, n in zip(cells[2:], ("macro_f1", "nll", "ece"), strict=True))
    difference = pairs["a", "b"].accuracy
    lead = f"+16.67 ({-100 * difference.high:+.1f} to {-100 * difference.low:+.1f})"
    assert compared[1].text == (
        f"Most accurate: b, {lead} points ahead of a: no clear difference. A difference is clear if its 95% interval "
        "excludes zero."
    )
    better = {names: pair._replace(accuracy=Interval(-0.2, -0.3, -0.1)) for names, pair in pairs.items()}
    assert comparison_report.verdict(models, better) == (
        "Most accurate: b, +20.00 (+10.0 to +30.0) points ahead of a: a clear difference"
    )


def test_the_comparison_fits_a_terminal(models: list[Evaluation]) -> None:
    many = [models[i % 2]._replace(name=f"model {i} of a name as long as they get, flip") for i in range(10)]
    lines = comparison_report.text(many, comparison_report.compare_pairs(many)).splitlines()
    assert len(lines) + len(many) + 2 <= 60  # with the line of each model, and the path
    assert lines[0].startswith("Most accurate: ")
    assert max(map(len, lines[1:])) <= 100
    assert lines[-1] == "... and 17 more pairs in the report"


# A page in a frame sends its sizes to the page around it, which writes them for --dump-dom to print.
SEND = """<script>addEventListener("load", () => parent.postMessage({
  name: NAME, inner: innerWidth, client: document.documentElement.clientWidth,
  scroll: document.documentElement.scrollWidth,
  images: [...document.images].map(image => [image.naturalWidth, image.getBoundingClientRect().right]),
  tables: [...document.querySelectorAll("table")].map(table => [table.parentNode.clientWidth, table.offsetWidth]),
  font: Math.min(...[...document.querySelectorAll("p, th, td, caption, figcaption")].map(
    text => parseFloat(getComputedStyle(text).fontSize))),
}, "*"))</script>"""
LISTEN = """<!doctype html><script>addEventListener("message", message => {
  const line = document.createElement("pre")
  line.textContent = JSON.stringify(message.data)
  document.body.append(line)
})</script>"""
# If this warning and this request are not noticed, those of a report would not be either.
CONTROL = "<img src='http://control.invalid/x.png'><script>console.warn('control')</script>"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--disable-dev-shm-usage", "--no-proxy-server", "--window-size=1500,900", "--enable-logging=stderr", "--v=0"),
    *("--virtual-time-budget=10000", "--dump-dom"),
]


@pytest.mark.slow
def test_the_pages_in_a_browser(page: list[Block], compared: list[Block], tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH: install Chromium (apt install chromium)")
    frames = f'<iframe srcdoc="{CONTROL}"></iframe>'
    for name, blocks in (("page", page), ("comparison", compared)):
        for width in (400, 1400):
            copy = tmp_path / f"{name}-{width}.html"
            script = SEND.replace("NAME", f"'{copy.stem}'")
            copy.write_text(document.to_html(name, blocks).replace("</body>", f"{script}</body>"), "utf-8")
            frames += f'<iframe src="{copy.name}" style="width: {width}px; height: 800px; border: 0"></iframe>'
    (tmp_path / "frames.html").write_text(f"{LISTEN}<body>{frames}</body>")
    folders = [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={tmp_path / 'net.json'}"]
    command = [browser, *FLAGS, *folders, (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(console) == 1
    assert '"control"' in console[0]
    events = json.loads((tmp_path / "net.json").read_text())["events"]
    requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
    # the browser's own requests have no origin
    assert {request["url"] for request in requests if request["initiator"] != "not an origin"} == {
        "http://control.invalid/x.png"
    }

    sizes = {frame["name"]: frame for frame in map(json.loads, re.findall("<pre>(.*?)</pre>", done.stdout))}
    assert set(sizes) == {f"{name}-{width}" for name in ("page", "comparison") for width in (400, 1400)}
    for name, frame in sizes.items():
        assert frame["inner"] == int(name.split("-")[1])
        assert frame["scroll"] <= frame["client"] <= frame["inner"], name
        assert len(frame["images"]) == (9 if name.startswith("page") else 1)
        assert all(natural > 600 and right <= frame["client"] for natural, right in frame["images"]), name
        assert frame["font"] >= 12
    for name in ("page-1400", "comparison-1400"):
        assert all(table <= width for width, table in sizes[name]["tables"]), name  # and no table scrolls
