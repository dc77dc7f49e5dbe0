"""A page of headings, paragraphs, tables and pictures, as Markdown and as one self-contained HTML file."""

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple


class Heading(NamedTuple):
    """A section's title."""

    text: str


class Text(NamedTuple):
    """A paragraph of plain text."""

    text: str


class Table(NamedTuple):
    """Rows of cells under a header; the first column is text, the others are figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


class ImageBlock(NamedTuple):
    """A PNG: the Markdown page expects it beside it as `<name>.png`, the HTML page holds it."""

    name: str
    png: bytes
    alt: str  # for those who cannot see it
    caption: str = ""  # what it does not say itself


Block = Heading | Text | Table | ImageBlock

# Nothing is loaded from elsewhere. Where a table is too wide its intervals go below their figures; where it still is,
# on a phone, it scrolls inside its own frame and the first column stays.
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 66rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
p { max-width: 48rem; }
.table { overflow-x: auto; margin: 1rem 0; }
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
@media print { .table { overflow: visible; } figure, tr { break-inside: avoid; } }
"""


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The page as Markdown, its pictures as links to `<name>.png`."""
    parts = [f"# {title}"]
    for block in blocks:
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
    return "\n\n".join(parts) + "\n"


def to_text(table: Table) -> str:
    """A table for the terminal."""
    rows = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    lines = [table.caption] if table.caption else []
    for first, *figures in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(figures, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The page as one HTML file that needs nothing else: styles and pictures are inside, there is no script."""
    parts = [_html_block(block) for block in blocks]
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # or browsers ask the server for one
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _html_block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Table(header, rows, caption):
            head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
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


def _unbroken(figure: str) -> str:
    """A figure's cell, in which a line ends before the interval in parentheses if anywhere."""
    return html.escape(figure).replace(" ", "&nbsp;").replace("&nbsp;(", " (")
