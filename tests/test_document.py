import base64
import re
from html.parser import HTMLParser

import pytest

from fer_jax.reporting import document
from fer_jax.reporting.document import Block, Contents, Heading, ImageBlock, Table, Text

HOSTILE = """<script>alert("x")</script> & 'a' <img src=http://evil.invalid/x.png onerror="x"> &lt; "quoted\""""
PNG = bytes(range(256)) + b"</figure>"


class Reader(HTMLParser):
    """The page as a browser reads it: the tags with their attributes, and the text inside each kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "wbr":  # only a place where a line can end
            return
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
    assert read.text["caption"] == ["a caption"]  # none for the second table
    assert read.text["th"] == ["", "accuracy", "a", "b", "", "x", "c"]
    assert [attrs["scope"] for attrs in attributes(read, "th")] == ["col", "col", "row", "row", "col", "col", "row"]
    assert read.text["td"] == ["0.5", "1.0", "2"]
    assert read.text["figcaption"] == ["Their names."]
    (image,) = attributes(read, "img")
    assert image["alt"] == "two faces"
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True) == PNG
    assert attributes(read, "html") == [{"lang": "en"}]


def test_html_shows_hostile_names_as_text() -> None:
    def page(name: str) -> Reader:
        table, image = Table([name, name], [[name, name]], name), ImageBlock("x", PNG, name, name)
        return Reader(document.to_html(name, [Contents(), Heading(name), Text(name), table, image]))

    read = page(HOSTILE)
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in page("harmless").tags]
    assert read.text["p"] == ["Contents", HOSTILE]
    for tag in ("title", "h1", "h2", "caption", "th", "figcaption", "a"):
        assert set(read.text[tag]) == {HOSTILE}, tag
    assert read.text["td"] == [HOSTILE.replace(" ", "\xa0")]
    (image,) = attributes(read, "img")
    assert set(image) == {"alt", "src"}
    assert image["alt"] == HOSTILE


def test_html_needs_nothing_from_elsewhere() -> None:
    page = document.to_html("A", [ImageBlock("x", PNG, "x"), Text("See http://example.org.")])
    read = Reader(page)
    links = [value for _, attrs in read.tags for name, value in attrs.items() if name in ("src", "href")]
    assert len(links) == 2  # the image, and an empty icon so that browsers do not ask for one
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
def test_a_cell_breaks_before_its_interval_only(cell: str, breaks: list[str]) -> None:
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


def test_markdown_cells_may_contain_a_bar() -> None:
    rows = [["a|b", "1 | 2"], ["|", "3"]]
    lines = document.to_markdown("A", [Table(["x|", "y"], rows)]).splitlines()[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert [len(line) for line in cells] == [2] * 4
    del cells[1]
    assert [[cell.replace("\\|", "|") for cell in line] for line in cells] == [["x|", "y"], *rows]


def test_text_aligns_names_left_and_numbers_right() -> None:
    table = Table(["", "accuracy", "n"], [["neutral", "85.25%", "1,182"], ["joy", "9%", "8"]], "by class")
    assert document.to_text(table).splitlines() == [
        "by class",
        "         accuracy      n",
        "neutral    85.25%  1,182",
        "joy            9%      8",
    ]
    assert document.to_text(Table(["a", "b"], [])) == "a  b"


def test_contents_link_to_every_section_below_them() -> None:
    headings = [Heading("Metrics"), Heading("Without duplicates"), Heading("McNemar's test, p < 0.1")]
    blocks: list[Block] = [Heading("Summary"), Contents(), headings[0], Text("A paragraph."), *headings[1:]]
    anchors = ["metrics", "without-duplicates", "mcnemars-test-p--01"]  # as GitHub makes them
    texts = [heading.text for heading in headings]
    links = "\n".join(f"- [{text}](#{anchor})" for text, anchor in zip(texts, anchors, strict=True))
    assert f"## Summary\n\n{links}\n\n## Metrics\n" in document.to_markdown("A", blocks)

    read = Reader(document.to_html("A", blocks))
    assert read.text["a"] == texts
    assert [attrs["href"] for attrs in attributes(read, "a")] == [f"#{anchor}" for anchor in anchors]
    assert [attrs["id"] for attrs in attributes(read, "h2")] == ["summary", *anchors]


def test_names_of_fields_in_a_header_break_after_dots_and_underscores() -> None:
    page = document.to_html("A", [Table(["trial", "optim.learning_rate", "temperature 0.856"], [["a", "0.5", "1"]])])
    assert '<th scope="col">optim.<wbr>learning_<wbr>rate</th><th scope="col">temperature 0.856</th>' in page


def interval_table(name: str, columns: int, cell: str = "85.25% (83.9% to 86.4%)") -> list[str]:
    header = ["", *(f"{i}" for i in range(columns))]
    return document.to_text(Table(header, [[name, *[cell] * columns]], "caption")).splitlines()


def test_text_is_100_columns_wide_at_most() -> None:
    short = "85.25% (83.9 to 86.4)"
    _, header, row = interval_table("a" * 31, 3)
    assert row == f"{'a' * 31}  {short}  {short}  {short}"
    assert len(header) == len(row) == 100
    _, header, row = interval_table("a" * 32, 3)  # one too many: the last column loses its interval
    assert row == f"{'a' * 32}  {short}  {short}  85.25%"
    assert header.split() == ["0", "1", "2"]
    _, _, row = interval_table("a" * 90, 3)  # every column, and the end of the name
    assert row == f"{'a' * 73}...  85.25%  85.25%  85.25%"
    assert len(row) == 100
    assert interval_table("KL", 1, "0.3616 (0.345 to 0.379)")[2] == "KL  0.3616 (0.345 to 0.379)"
    assert interval_table("b - a", 1, "+0.10 (-1.2 to +3.4)")[2] == "b - a  +0.10 (-1.2 to +3.4)"
    _, _, row = interval_table("a" * 30, 30, "1")  # too many columns: a name keeps 20 characters
    assert row.startswith(f"{'a' * 17}...  1")
