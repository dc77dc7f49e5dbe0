"""The size, text, colours and titles that the plots of a report share.

All plots are seven inches wide, and their text can be read where the page shows them 400 pixels wide. The colours are
those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart. Markers, dashes
and hatches say the same in grey print. No pyplot and no rcParams: one plot changes nothing for another.
"""

import textwrap
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_jax.core.text import counted

WIDTH, DPI = 7.0, 110  # inches, dots per inch
TITLE, TEXT, SMALL, TINY = 12.0, 11.0, 10.0, 9.0  # points; 9 are 7 pixels where the plot is 400 wide
BLUE, ORANGE, VERMILLION, SKY, GREY = "#0072B2", "#E69F00", "#D55E00", "#56B4E9", "#737373"
FEW, FAINT = 2, 0.3  # points of at most so many images are drawn with this opacity


def chart(height: float, subject: str, title: str, count: float, noun: str = "image") -> Figure:
    """Return an empty plot of a height in inches, plus its title: the subject, the model and data, the count."""
    text = f"{wrapped(subject)}:\n{wrapped(f'{title}, {counted(count, noun)}')}"
    figure = Figure(figsize=(WIDTH, height + 0.2 * len(text.splitlines())), dpi=DPI, layout="constrained")
    figure.suptitle(text, fontsize=TITLE, x=0.01, ha="left")
    return figure


def wrapped(title: str) -> str:
    """Return the title in lines that fit the width of a plot."""
    return textwrap.fill(title, 66)


def with_counts(names: Iterable[str], counts: Iterable[float]) -> list[str]:
    """Return tick texts: each name above its count."""
    return [f"{name}\n{count:,.0f}" for name, count in zip(names, counts, strict=True)]


def short(value: float) -> str:
    """Return a number with three digits, or all digits before the point, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(fraction: float, _: float = 0) -> str:
    """Return a tick's text, with as many digits as it needs."""
    return f"{100 * fraction:g}%"


def label(axes: Axes, x: str, y: str) -> None:
    """Name both axes, and set the sizes and the frame that all charts have."""
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def count_axis(axes: Axes) -> None:
    """Put few ticks on the vertical axis, at whole numbers."""
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
