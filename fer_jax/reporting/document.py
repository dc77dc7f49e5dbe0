"""A page of headings, paragraphs, tables and images, as Markdown and as one self-contained HTML file."""

import base64
import html
import re
from collections.abc import Sequence
from typing import NamedTuple

TERMINAL = 100  # columns
NAME = 20  # characters of a name that the terminal always shows


class Heading(NamedTuple):
    """The title of a section; no two sections of a page have the same."""

    text: str


class Text(NamedTuple):
    """A paragraph of plain text."""

    text: str


class Table(NamedTuple):
    """Rows of cells under a header. The first column is text, the others are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


class ImageBlock(NamedTuple):
    """A PNG. The Markdown page expects it next to it as `<name>.png`; the HTML page contains it."""

    name: str
    png: bytes
    alt: str  # for readers who cannot see it
    caption: str = ""  # facts that the image does not show


class Contents(NamedTuple):
    """Links to the sections below it."""


Block = Heading | Text | Table | ImageBlock | Contents

# Nothing is loaded from elsewhere. If a table is too wide, its intervals go below their values. If it still is, on a
# phone, it scrolls in its own frame. The first column stays in place, and a shadow at an edge shows that there is more:
# white covers that scroll with the table (`local`) hide the shadows (`scroll`) at both ends.
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 66rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
p { max-width: 48rem; }
nav { border-left: 3px solid #ddd; padding-left: 1rem; } nav p { margin: 0; font-weight: 600; }
nav ul { columns: 14rem; list-style: none; margin: 0.3rem 0; padding: 0; } a { color: #0055a0; }
.table { overflow-x: auto; margin: 1rem 0; background:
  linear-gradient(to left, #fff 40%, #fff0) right / 3rem 100% no-repeat local,
  linear-gradient(to left, #0006, #0000) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.4rem; color: #444; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child { position: sticky; left: 0; background: #fff; text-align: left; padding-left: 0; min-width: 9rem; }
thead th { border-bottom: 2px solid #444; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: 0.875rem; }
@media print, (max-width: 45rem) {
  table { font-size: 0.75rem; } th, td { padding: 0.25rem 0.35rem; } th:first-child { min-width: 6rem; }
}
@media print { .table { overflow: visible; background: none; } figure, tr { break-inside: avoid; } }
"""


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Return the page as Markdown, with its images as links to `<name>.png`."""
    parts = [f"# {title}"]
    for i, block in enumerate(blocks):
        match block:
            case Heading(text):
                parts.append(f"## {text}")
            case Text(text):
                parts.append(text)
            case Table(header, rows, caption):
                align = ["---", *["---:"] * (len(header) - 1)]
                lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [header, *rows]]
                lines.insert(1, "| " + " | ".join(align) + " |")
                parts.append(f"{caption}\n\n" * bool(caption) + "\n".join(lines))
            case ImageBlock(name, _, alt, caption):
                parts.append(f"![{alt}]({name}.png)" + f"\n\n{caption}" * bool(caption))
            case Contents():
                links = [f"- [{heading}](#{_anchor(heading)})" for heading in _headings(blocks[i:])]
                parts.append("\n".join(links))
    return "\n\n".join(parts) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Return the page as one HTML file that needs nothing else: styles and images are inside, there is no script."""
    parts = [_html_block(block, blocks[i:]) for i, block in enumerate(blocks)]
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # or browsers ask the server for one
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _html_block(block: Block, rest: Sequence[Block]) -> str:
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{html.escape(text)}</h2>'
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Table(header, rows, caption):
            head = "".join(f'<th scope="col">{_breakable(cell)}</th>' for cell in header)
            body = "\n".join(
                f'<tr><th scope="row">{html.escape(row[0])}</th>'
                + "".join(f"<td>{_unbroken(cell)}</td>" for cell in row[1:])
                + "</tr>"
                for row in rows
            )
            above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
            return (
                f'<div class="table" tabindex="0"><table>{above}\n<thead><tr>{head}</tr></thead>\n'
                f"<tbody>\n{body}\n</tbody></table></div>"
            )
        case ImageBlock(_, png, alt, caption):
            data = base64.b64encode(png).decode()
            below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
            return f'<figure><img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">{below}</figure>'
        case Contents():
            links = [f'<li><a href="#{_anchor(text)}">{html.escape(text)}</a></li>' for text in _headings(rest)]
            return "<nav>\n<p>Contents</p>\n<ul>\n" + "\n".join(links) + "\n</ul>\n</nav>"


def _headings(blocks: Sequence[Block]) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Heading)]


def _anchor(heading: str) -> str:
    """The name by which links reach a section: the one that GitHub gives a heading of Markdown."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _breakable(name: str) -> str:
    """A header cell in which a line can also end inside the name of a config field, after a dot or an underscore."""
    return re.sub(r"([._])(?=[^\W\d])", r"\1<wbr>", html.escape(name))


def _unbroken(number: str) -> str:
    """A cell in which a line can end before the interval in parentheses, and nowhere else."""
    return html.escape(number).replace(" ", "&nbsp;").replace("&nbsp;(", " (")


def to_text(table: Table) -> str:
    """Return the table for a terminal of 100 columns.

    Intervals in percent have no percent signs. If the table is too wide, columns lose their intervals, from the right,
    and then long names in the first column lose their ends.
    """
    rows = [[_compact(cell) for cell in row] for row in [table.header, *table.rows]]
    for column in range(len(table.header) - 1, 0, -1):
        if len(_aligned(rows)[0]) <= TERMINAL:
            break
        rows = [[*row[:column], _without_interval(row[column]), *row[column + 1 :]] for row in rows]
    longest = max(len(row[0]) for row in rows)
    limit = max(longest + TERMINAL - len(_aligned(rows)[0]), NAME)
    rows = [[name if len(name) <= limit else f"{name[: limit - 3]}...", *cells] for name, *cells in rows]
    lines = [table.caption] if table.caption else []
    return "\n".join([*lines, *(line.rstrip() for line in _aligned(rows))])


def _compact(cell: str) -> str:
    return re.sub(r"\((\S+)% to (\S+)%\)", r"(\1 to \2)", cell)


def _without_interval(cell: str) -> str:
    return re.sub(r" \(\S+ to \S+\)", "", cell)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equal length: the first column to the left, the others to the right."""
    first, *others = ([len(cell) for cell in column] for column in zip(*rows, strict=True))
    widths = [max(column) for column in others]
    return [
        "  ".join([row[0].ljust(max(first)), *(cell.rjust(w) for cell, w in zip(row[1:], widths, strict=True))])
        for row in rows
    ]
