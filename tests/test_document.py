import base64
import re
from html.parser import HTMLParser

import pytest

from fer_jax.reporting import document
from fer_jax.reporting.document import Block, Heading, ImageBlock, Table, Text

HOSTILE = """<script>alert("x")</script> & 'a' <img src=http://evil.invalid/x.png onerror="x"> &lt; "quoted\""""
PNG = bytes(range(256)) + b"</figure>"


class Reader(HTMLParser):
    """What a browser would see: the tags with their attributes, and the text inside each kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "link", "img"):
            self._open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text[self._open[-1]][-1] += data


def attributes(reader: Reader, tag: str) -> list[dict[str, str]]:
    return [attrs for name, attrs in reader.tags if name == tag]


def test_html_holds_every_block_in_order() -> None:
    blocks: list[Block] = [
        Heading("One"),
        Text("A paragraph."),
        Table(["", "accuracy"], [["a", "0.5"], ["b", "1.0"]], "a caption"),
        ImageBlock("faces", PNG, "two faces", "Their names."),
        Table(["", "x"], [["c", "2"]]),
    ]
    page = document.to_html("The title", blocks)
    assert page.startswith("<!doctype html>")
    read = Reader(page)
    assert read.text["title"] == read.text["h1"] == ["The title"]
    order = [tag for tag, _ in read.tags if tag in ("h1", "h2", "p", "table", "img")]
    assert order == ["h1", "h2", "p", "table", "img", "table"]
    assert read.text["h2"] == ["One"]
    assert read.text["p"] == ["A paragraph."]
    assert read.text["caption"] == ["a caption"]  # none for the table without
    assert read.text["th"] == ["", "accuracy", "a", "b", "", "x", "c"]
    assert [attrs["scope"] for attrs in attributes(read, "th")] == ["col", "col", "row", "row", "col", "col", "row"]
    assert read.text["td"] == ["0.5", "1.0", "2"]
    assert read.text["figcaption"] == ["Their names."]
    (image,) = attributes(read, "img")
    assert image["alt"] == "two faces"
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True) == PNG
    assert attributes(read, "html") == [{"lang": "en"}]


def test_html_takes_hostile_names_as_text() -> None:
    def page(name: str) -> Reader:
        table, picture = Table([name, name], [[name, name]], name), ImageBlock("x", PNG, name, name)
        return Reader(document.to_html(name, [Heading(name), Text(name), table, picture]))

    read = page(HOSTILE)
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in page("harmless").tags]
    for tag in ("title", "h1", "h2", "p", "caption", "th", "figcaption"):
        assert set(read.text[tag]) == {HOSTILE}, tag
    assert read.text["td"] == [HOSTILE.replace(" ", "\xa0")]
    (image,) = attributes(read, "img")
    assert set(image) == {"alt", "src"}
    assert image["alt"] == HOSTILE


def test_html_needs_nothing_from_elsewhere() -> None:
    page = document.to_html("A", [ImageBlock("x", PNG, "x"), Text("See http://example.org.")])
    read = Reader(page)
    links = [value for _, attrs in read.tags for name, value in attrs.items() if name in ("src", "href")]
    assert len(links) == 2  # the picture, and an empty icon lest the browser asks for one
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"url\(|@import", page)
    assert not [tag for tag, attrs in read.tags if tag == "script" or any(name.startswith("on") for name in attrs)]


@pytest.mark.parametrize(
    ("cell", "breaks"),
    [
        ("85.25% (83.9% to 86.4%)", ["85.25%", "(83.9%\xa0to\xa086.4%)"]),
        ("+0.10 (-1.2 to +3.4)", ["+0.10", "(-1.2\xa0to\xa0+3.4)"]),
        ("3,199", ["3,199"]),
    ],
)
def test_a_figure_breaks_before_its_interval_alone(cell: str, breaks: list[str]) -> None:
    read = Reader(document.to_html("A", [Table(["", "x"], [["a", cell]])]))
    assert read.text["td"][0].split(" ") == breaks


def test_markdown() -> None:
    blocks: list[Block] = [
        Heading("One"),
        Text("A paragraph."),
        Table(["", "x"], [["a", "0.5"]], "a caption"),
        ImageBlock("faces", PNG, "two faces", "Their names."),
        ImageBlock("bars", PNG, "bars"),
    ]
    assert document.to_markdown("The title", blocks) == (
        "# The title\n\n## One\n\nA paragraph.\n\na caption\n\n|  | x |\n| --- | ---: |\n| a | 0.5 |\n\n"
        "![two faces](faces.png)\n\nTheir names.\n\n![bars](bars.png)\n"
    )


def test_markdown_cells_may_hold_the_bar() -> None:
    rows = [["a|b", "1 | 2"], ["|", "3"]]
    lines = document.to_markdown("A", [Table(["x|", "y"], rows)]).splitlines()[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert [len(line) for line in cells] == [2] * 4
    del cells[1]
    assert [[cell.replace("\\|", "|") for cell in line] for line in cells] == [["x|", "y"], *rows]


def test_text_aligns_names_left_and_figures_right() -> None:
    table = Table(["", "accuracy", "n"], [["neutral", "85.25%", "1,182"], ["joy", "9%", "8"]], "by class")
    assert document.to_text(table).splitlines() == [
        "by class",
        "         accuracy      n",
        "neutral    85.25%  1,182",
        "joy            9%      8",
    ]
    assert document.to_text(Table(["a", "b"], [])) == "a  b"
