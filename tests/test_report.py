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

from fer_jax.data.folders import Split
from fer_jax.data.labels import EMOTIONS, PROTOCOLS
from fer_jax.evaluation import evaluator
from fer_jax.evaluation.result import Evaluation
from fer_jax.inference.network import Saliency
from fer_jax.reporting import document, report, tables
from fer_jax.reporting.document import Block, Heading, ImageBlock, Table, Text

FEAR = EMOTIONS.index("fear")
# The labels of the 24 pictures that majority keeps, and where the model errs, with what it says there. Two others, of
# clean or argmax alone, stand before them in the split.
LABEL = np.repeat(range(5), (6, 8, 4, 3, 3))
COUNT = dict(zip(EMOTIONS, (6, 8, 4, 3, 3, 0, 0, 0), strict=True))
MISTAKES = {0: 3, 1: 3, 6: 0, 14: FEAR, 18: 0, 21: 1}
SEEN = {"all": [], "without_exact_duplicates": [0, 1], "without_duplicates": [0, 1, 6]}  # left out of each subset
HITS_AND_COUNTS = {
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
HEADLINE = {
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
    """Pictures of other votes; then happiness by all ten taggers, the other labels by eight."""
    votes = 8 * np.eye(10, dtype=np.int32)[label] + 2 * np.eye(10, dtype=np.int32)[np.where(label == 1, 1, label + 1)]
    votes = np.concatenate([np.array(others, np.int32).reshape(-1, 10), votes])
    images = np.random.default_rng(0).integers(0, 256, (len(votes), 48, 48), dtype=np.uint8)
    return Split(images, votes, np.array([f"fer{i:07}.png" for i in range(len(votes))]))


# The first is labelled surprise by the first of a tie, which clean keeps; the second happiness, under argmax alone.
SPLIT = split_of(LABEL, [0, 0, 5, 0, 0, 0, 5, 0, 0, 0], [0, 4, 0, 0, 0, 0, 0, 0, 6, 0])


def says(prediction: list[int] | np.ndarray) -> np.ndarray:
    """A model that is 65 % sure of everything."""
    return np.log(0.05 + 0.6 * np.eye(8)[prediction])


def model(name: str, mistakes: dict[int, int]) -> Evaluation:
    prediction = LABEL.copy()
    prediction[list(mistakes)] = list(mistakes.values())
    keep = {subset: ~np.isin(np.arange(26) - 2, rows) for subset, rows in SEEN.items()}
    return evaluator.evaluate(name, says([FEAR, 1, *prediction]), "valid", SPLIT, keep, "majority", 0.5)


HISTORY = [
    {
        "epoch": epoch,
        "learning_rate": 0.001 * epoch,
        "train": {"loss": 2.0 / epoch, "accuracy": 0.2 * epoch, "macro_f1": 0.1 * epoch},
        "valid": {"loss": 2.1 / epoch, "accuracy": 0.19 * epoch, "macro_f1": 0.09 * epoch},
    }
    for epoch in (1, 2, 3)
]


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return model("a", MISTAKES)


@pytest.fixture(scope="module")
def page(result: Evaluation) -> list[Block]:
    rng = np.random.default_rng(0)
    count = np.array([*COUNT.values()])
    maps = rng.random((8, 48, 48), np.float32) * (count > 0)[:, None, None]
    return report.page(result, SPLIT, HISTORY, Saliency(maps, 255 * maps, count))


@pytest.fixture(scope="module")
def compared(result: Evaluation) -> list[Block]:
    better = model("b", {0: 1, 2: 1})
    return report.comparison_page([result, better, result._replace(name="a again")])


def of_kind(blocks: list[Block], kind: type) -> list:
    return [block for block in blocks if isinstance(block, kind)]


def table(blocks: list[Block], *header: str) -> dict[str, list[str]]:
    """The rows, by their first cell, of the only table whose header begins so."""
    (found,) = [block for block in of_kind(blocks, Table) if tuple(block.header[: len(header)]) == header]
    assert {len(row) for row in found.rows} == {len(found.header)}
    rows = {first: list(figures) for first, *figures in found.rows}
    assert len(rows) == len(found.rows)
    return rows


def numbers(cell: str) -> list[float]:
    """Value, low and high of a cell, shares for percents."""
    found = re.fullmatch(r"(\S+?)(%?) \((\S+?)\2 to (\S+?)\2\)", cell)
    assert found, cell
    return [float(found[i].replace(",", "")) / (100 if found[2] else 1) for i in (1, 3, 4)]


def same(cell: str, interval: evaluator.Interval) -> bool:
    """Whether a cell shows an interval, its value to 4 digits and its ends to 3."""
    if np.isnan(interval.value):
        return cell == "none"
    value, low, high = numbers(cell)
    ends = pytest.approx(interval[1:], abs=0.00051)
    return value == pytest.approx(interval.value, abs=0.000051) and (low, high) == ends


def test_json_is_strict_and_holds_what_was_counted_by_hand(result: Evaluation) -> None:
    got = json.loads(json.dumps(tables.as_json(result), allow_nan=False))
    assert (got["model"], got["split"], got["protocol"], got["count"]) == ("a", "valid", "majority", 24)
    assert {name: got[name] for name in HEADLINE} == pytest.approx(HEADLINE)
    for emotion in EMOTIONS:
        expected = PRECISION_RECALL_F1.get(emotion, (None, None, None))
        row = got["per_class"][emotion]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(expected), emotion
        assert row["count"] == COUNT[emotion]
    assert got["per_class"]["fear"]["roc_auc"] is None
    confusion = np.diag(list(COUNT.values()))
    for row, wrong in MISTAKES.items():
        confusion[LABEL[row], [LABEL[row], wrong]] += [-1, 1]
    assert got["confusion"] == confusion.tolist()
    assert got["temperature"] == 0.5
    cooled = 0.65**2 / (0.65**2 + 7 * 0.05**2)
    assert got["calibrated"]["ece"][0] == pytest.approx(cooled - 18 / 24)


def test_json_has_a_triple_for_each_protocol_subset_and_name(result: Evaluation) -> None:
    got = tables.as_json(result)["protocols"]
    assert {p: list(by_subset) for p, by_subset in got.items()} == {p: list(SEEN) for p in PROTOCOLS}
    names = {*tables.MAIN, *(f"{name}/{emotion}" for name in tables.PER_CLASS for emotion in EMOTIONS), "count"}
    for subset, by_protocol in HITS_AND_COUNTS.items():
        for protocol, (hits, count) in by_protocol.items():
            figures = got[protocol][subset]
            areas = {name for name in names if name.startswith("roc_auc")}
            assert set(figures) == (names if subset == "all" else names - areas)
            assert figures["count"] == count
            value, low, high = figures["accuracy"]
            assert value == pytest.approx(hits / count)
            assert low < value < high
            assert figures["f1/contempt"] == [None, None, None]
            ends = [ends for name, ends in figures.items() if name != "count" and ends[0] is not None]
            assert all(len(of) == 3 and of[1] <= of[2] for of in ends)


def test_the_page_has_every_section_and_picture(page: list[Block]) -> None:
    assert [block.text for block in of_kind(page, Heading)] == [
        "Figures",
        "Without memory",
        "By class",
        "Calibration",
        "Against the taggers",
        "Slices",
        "Pictures worth a look",
        "Where it looks",
        "Training",
    ]
    pictures = {picture.name: picture for picture in of_kind(page, ImageBlock)}
    names = "class_f1 confusion_matrix reliability agreement slices mistakes hits saliency training"
    assert list(pictures) == names.split()
    for name, picture in pictures.items():
        with Image.open(io.BytesIO(picture.png)) as opened:
            assert opened.format == "PNG"
            assert opened.width > 600
            assert len(np.unique(np.asarray(opened.convert("L")))) > 10, f"{name} is blank"
        assert "a, " in picture.alt  # whose it is
        assert "\n" not in picture.alt
    named = {name: re.findall(r"\d{7}", pictures[name].caption) for name in ("mistakes", "hits")}
    assert [int(number) - 2 for number in named["mistakes"]] == list(MISTAKES)
    assert [int(number) - 2 for number in named["hits"]] == [row for row in range(24) if row not in MISTAKES][:8]


def test_tables_show_the_figures_of_the_evaluation(page: list[Block], result: Evaluation) -> None:
    shown_tables = of_kind(page, Table)
    main, memory = ({first: rest for first, *rest in shown.rows} for shown in shown_tables[:2])
    assert [list(shown.header) for shown in shown_tables[:2]] == [["", *PROTOCOLS]] * 2
    assert main.pop("pictures") == ["24", "25", "26"]
    assert len(main) == len(tables.MAIN)
    for (name, (title, _)), (first, cells) in zip(tables.MAIN.items(), main.items(), strict=True):
        assert first == title
        assert all(same(cell, result.metrics[p]["all"][name]) for p, cell in zip(PROTOCOLS, cells, strict=True))
    assert [numbers(cell)[0] for cell in main["accuracy"]] == pytest.approx([18 / 24, 18 / 25, 19 / 26], abs=1e-4)
    assert numbers(main["negative log likelihood"][0])[0] == pytest.approx(HEADLINE["nll"], abs=1e-4)

    assert len(memory) == 4 * 3  # three accuracies and the count, each for three subsets
    for subset, by_protocol in HITS_AND_COUNTS.items():
        accuracy = [numbers(cell)[0] for cell in memory[f"accuracy, {evaluator.SUBSETS[subset]}"]]
        assert accuracy == pytest.approx([hits / count for hits, count in by_protocol.values()], abs=1e-4)
        counts = memory[f"pictures, {evaluator.SUBSETS[subset]}"]
        assert counts == [str(count) for _, count in by_protocol.values()]
        for name in ("balanced_accuracy", "top2_accuracy"):
            cells = memory[f"{tables.MAIN[name][0]}, {evaluator.SUBSETS[subset]}"]
            assert all(same(cell, result.metrics[p][subset][name]) for p, cell in zip(PROTOCOLS, cells, strict=True))


def test_the_table_of_classes_says_none_of_those_without_pictures(page: list[Block], result: Evaluation) -> None:
    rows = table(page, "", "pictures", "precision", "recall", "F1", "ROC AUC")
    assert list(rows) == list(EMOTIONS)
    for emotion, (count, *cells) in rows.items():
        assert int(count) == COUNT[emotion]
        own = [result.metrics["majority"]["all"][f"{name}/{emotion}"] for name in tables.PER_CLASS]
        assert all(same(cell, of) for cell, of in zip(cells, own, strict=True)), emotion
        if emotion in PRECISION_RECALL_F1:
            assert [numbers(cell)[0] for cell in cells[:3]] == pytest.approx(PRECISION_RECALL_F1[emotion], abs=1e-4)
    for emotion in ("disgust", "contempt"):
        assert rows[emotion] == ["0", "none", "none", "none", "none"]
    assert rows["fear"][-1] == "none"


def test_calibration_agreement_and_slices(page: list[Block], result: Evaluation) -> None:
    before = result.metrics["majority"]["all"]
    for title, (as_it_is, cooled) in table(page, "", "as it is", "temperature 0.500").items():
        (name,) = [name for name, (shown, _) in tables.MAIN.items() if shown == title]
        assert same(as_it_is, before[name])
        assert same(cooled, result.calibrated[name])
    rows = table(page, "taggers who chose the label")
    assert {share: (int(n), numbers(cell)[0]) for share, (n, cell) in rows.items()} == {
        "80%": (16, pytest.approx(11 / 16, abs=1e-4)),
        "100%": (8, pytest.approx(7 / 8, abs=1e-4)),
    }
    text = " ".join(block.text for block in of_kind(page, Text))
    assert f"On average {HEADLINE['agreement']:.1%} of a picture's taggers" in text
    assert f"{HEADLINE['label_agreement']:.1%} chose the label" in text
    assert "temperature of 0.500, fitted on validation, makes the model more sure" in text
    for measure in ("sharpness", "brightness", "contrast"):
        (header,) = [shown.header[0] for shown in of_kind(page, Table) if shown.header[0].startswith(measure)]
        rows = table(page, header)
        assert len(rows) == 4
        assert sum(int(n) for n, _ in rows.values()) == 24
        hits = sum(int(n) * numbers(cell)[0] for n, cell in rows.values())
        assert hits == pytest.approx(18, abs=0.01)
        ends = [[float(end.replace(",", "")) for end in label.split(" to ")] for label in rows]
        assert all(low <= high for low, high in ends)
        assert all(below[1] <= above[0] for below, above in pairwise(ends))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("split_name", "prediction", "memory", "without"),
    [("test", 2, "not at hand", "mistakes"), ("train", 5, "trained on these pictures", "hits")],
)
def test_one_picture_is_enough_also_for_an_ensemble(
    split_name: str, prediction: int, memory: str, without: str
) -> None:
    split = split_of(np.array([2]))
    found = evaluator.evaluate("e", says([prediction]), split_name, split, {"all": np.ones(1, bool)}, "majority", 1.0)
    blocks = report.page(found, split, [], None)
    headings = [block.text for block in of_kind(blocks, Heading)]
    assert headings[-1] == "Pictures worth a look"  # no history, no maps
    assert "Slices" in headings
    pictures = {picture.name: picture.caption for picture in of_kind(blocks, ImageBlock)}
    other = {"mistakes": "hits", "hits": "mistakes"}[without]
    assert pictures[without].endswith(": none.")
    assert pictures[other].endswith(": fer0000000.png.")
    assert memory in " ".join(block.text for block in of_kind(blocks, Text))
    cells = table(blocks, "", "majority")
    assert numbers(cells["accuracy"][0]) == [float(prediction == 2)] * 3
    assert cells["ROC AUC, one against the rest"] == ["none"] * 3
    json.dumps(tables.as_json(found), allow_nan=False)


def test_where_every_picture_stands_in_another_split_the_table_says_none() -> None:
    keep = {"all": np.ones(1, bool), "without_exact_duplicates": np.zeros(1, bool)}
    found = evaluator.evaluate("e", says([2]), "valid", split_of(np.array([2])), keep, "majority", 1.0)
    rows = {first: cells for first, *cells in tables.duplicates_table(found).rows}
    assert rows["accuracy, without exact repeats"] == ["none"] * 3
    assert rows["pictures, without exact repeats"] == ["0"] * 3
    got = json.loads(json.dumps(tables.as_json(found), allow_nan=False))["protocols"]["majority"]
    assert got["without_exact_duplicates"]["count"] == 0
    assert got["without_exact_duplicates"]["accuracy"] == [None, None, None]
    assert got["all"]["accuracy"] == [1, 1, 1]


def test_the_comparison_has_all_models_and_pairs(compared: list[Block], result: Evaluation) -> None:
    rows = table(compared, "", "a", "b", "a again")
    assert len(rows) == len(tables.MAIN) + 2
    assert [numbers(cell)[0] for cell in rows["accuracy"]] == pytest.approx([18 / 24, 22 / 24, 18 / 24], abs=1e-4)
    unseen, near = (f"accuracy, {evaluator.SUBSETS[s]} ({n})" for s, n in (("without_exact_duplicates", 22), ("without_duplicates", 21)))
    assert [numbers(cell)[0] for cell in rows[unseen]] == pytest.approx([18 / 22, 21 / 22, 18 / 22], abs=1e-4)
    assert [numbers(cell)[0] for cell in rows[near]] == pytest.approx([18 / 21, 20 / 21, 18 / 21], abs=1e-4)
    for name, (title, _) in tables.MAIN.items():
        assert same(rows[title][0], result.metrics["majority"]["all"][name])
        assert rows[title][0] == rows[title][2]

    pairs = table(compared, "", "accuracy", "F1, macro", "only first right", "only second right", "McNemar's p")
    assert list(pairs) == ["a - b", "a - a again", "b - a again"]
    # a alone is right on picture 2, b alone on 1, 6, 14, 18 and 21: at most one head or tail of six coins
    assert pairs["a - b"][2:] == ["1", "5", f"{2 * (1 + 6) / 2**6:.3g}"]
    assert pairs["b - a again"][2:] == ["5", "1", f"{2 * (1 + 6) / 2**6:.3g}"]
    assert pairs["a - a again"] == ["+0.00 (+0.0 to +0.0)"] * 2 + ["0", "0", "1"]
    value, low, high = numbers(pairs["a - b"][0])
    assert value == pytest.approx(100 * (18 - 22) / 24, abs=0.01)
    assert low < value < high
    assert [picture.name for picture in of_kind(compared, ImageBlock)] == ["models"]


# What a page in a frame tells the page around it, and what that writes for --dump-dom to print.
TELL = """<script>addEventListener("load", () => parent.postMessage({
  name: NAME, inner: innerWidth, client: document.documentElement.clientWidth,
  scroll: document.documentElement.scrollWidth,
  images: [...document.images].map(image => [image.naturalWidth, image.getBoundingClientRect().right]),
  tables: [...document.querySelectorAll("table")].map(table => [table.parentNode.clientWidth, table.offsetWidth]),
  font: Math.min(...[...document.querySelectorAll("p, th, td, caption, figcaption")].map(
    text => parseFloat(getComputedStyle(text).fontSize))),
}, "*"))</script>"""
LISTEN = """<!doctype html><script>addEventListener("message", told => {
  const line = document.createElement("pre")
  line.textContent = JSON.stringify(told.data)
  document.body.append(line)
})</script>"""
# Its warning and its request must be noticed, or none of the report's own would be.
CONTROL = "<img src='http://control.invalid/x.png'><script>console.warn('control')</script>"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--disable-dev-shm-usage", "--no-proxy-server", "--window-size=1500,900", "--enable-logging=stderr", "--v=0"),
    *("--virtual-time-budget=10000", "--dump-dom"),
]


def test_the_pages_in_a_browser(page: list[Block], compared: list[Block], tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH: install Chromium (apt install chromium)")
    frames = f'<iframe srcdoc="{CONTROL}"></iframe>'
    for name, blocks in (("page", page), ("comparison", compared)):
        for width in (400, 1400):
            copy = tmp_path / f"{name}-{width}.html"
            tell = TELL.replace("NAME", f"'{copy.stem}'")
            copy.write_text(document.to_html(name, blocks).replace("</body>", f"{tell}</body>"), "utf-8")
            frames += f'<iframe src="{copy.name}" style="width: {width}px; height: 800px; border: 0"></iframe>'
    (tmp_path / "frames.html").write_text(f"{LISTEN}<body>{frames}</body>")
    folders = [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={tmp_path / 'net.json'}"]
    command = [browser, *FLAGS, *folders, (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(console) == 1
    assert '"control"' in console[0]
    events = json.loads((tmp_path / "net.json").read_text())["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    # what the browser asks for itself has no origin
    assert {of["url"] for of in asked if of["initiator"] != "not an origin"} == {"http://control.invalid/x.png"}

    told = {one["name"]: one for one in map(json.loads, re.findall("<pre>(.*?)</pre>", done.stdout))}
    assert set(told) == {f"{name}-{width}" for name in ("page", "comparison") for width in (400, 1400)}
    for name, one in told.items():
        assert one["inner"] == int(name.split("-")[1])
        assert one["scroll"] <= one["client"] <= one["inner"], name
        assert len(one["images"]) == (9 if name.startswith("page") else 1)
        assert all(natural > 600 and right <= one["client"] for natural, right in one["images"]), name
        assert one["font"] >= 12
    for name in ("page-1400", "comparison-1400"):
        assert all(table <= frame for frame, table in told[name]["tables"]), name  # nothing to scroll either
