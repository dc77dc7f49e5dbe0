"""What the figures of a report share: size, text, colours and titles.

All are seven inches wide, with text that is still read where the page shows them 400 pixels wide. The colours are
those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which the colour-blind tell apart; marker, dash or hatch
says the same in grey print. No pyplot and no rcParams: drawing one figure changes nothing for another.
"""

import textwrap
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_jax.core.text import counted

WIDTH, DPI = 7.0, 110  # inches, dots per inch
TITLE, TEXT, SMALL, TINY = 12.0, 11.0, 10.0, 9.0  # points; 9 are 7 pixels where the figure is 400 wide
BLUE, ORANGE, VERMILLION, SKY, GREY = "#0072B2", "#E69F00", "#D55E00", "#56B4E9", "#737373"


def chart(height: float, shown: str, title: str, count: float, noun: str = "picture") -> Figure:
    """An empty figure of a height in inches and, on top of that, a title: what is shown, of whom, how many."""
    text = f"{wrapped(shown)}:\n{wrapped(f'{title}, {counted(count, noun)}')}"
    figure = Figure(figsize=(WIDTH, height + 0.2 * len(text.splitlines())), dpi=DPI, layout="constrained")
    figure.suptitle(text, fontsize=TITLE, x=0.01, ha="left")
    return figure


def wrapped(title: str) -> str:
    """The title in lines that fit the width of a figure."""
    return textwrap.fill(title, 66)


def with_counts(names: Iterable[str], counts: Iterable[float]) -> list[str]:
    """Tick texts: each name above its count."""
    return [f"{name}\n{count:,.0f}" for name, count in zip(names, counts, strict=True)]


def short(value: float) -> str:
    """Three digits, or all those before the point; never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float, _: float = 0) -> str:
    """A tick's text, with as many digits as it needs."""
    return f"{100 * share:g}%"


def label(axes: Axes, x: str, y: str) -> None:
    """Name both axes; size of text and frame as in every chart."""
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def count_axis(axes: Axes) -> None:
    """Few ticks on the vertical axis, at whole numbers."""
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
