"""Checks of drawn plots that tests share: their texts can be read, and nothing is cut off."""

from itertools import combinations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from fer_jax.reporting import plots


def shown_texts(figure: Figure) -> list[Text]:
    """The visible texts of a drawn plot, without those of ticks beyond the limits of their axis."""
    beyond = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    beyond |= {tick.label1, tick.label2}
    texts = {text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()}
    return sorted(texts - beyond, key=lambda text: text.get_text())


def words(figure: Figure) -> str:
    """All texts of a plot, a line each."""
    plots.pixels(figure)
    return "\n".join(text.get_text() for text in shown_texts(figure))


def check(figure: Figure) -> None:
    """Assert that nothing is cut off or covered, and that no text is small."""
    image = plots.pixels(figure)
    edges = [image[0], image[-1], image[:, 0], image[:, -1]]
    assert all((edge == 255).all() for edge in edges), "something reaches the edge"
    boxes = {text: text.get_window_extent() for text in shown_texts(figure)}
    height, width = image.shape[:2]
    for text, box in boxes.items():
        assert 0 <= box.x0 < box.x1 <= width, text
        assert 0 <= box.y0 < box.y1 <= height, text
        # Where a page shows the plot 400 pixels wide, digits and capitals (0.73 of the size) are 5 pixels high.
        assert 0.73 * float(text.get_fontsize()) / 72 / figure.get_figwidth() * 400 >= 4.6, text
    for (a, box), (b, other) in combinations(
        [(text, box) for text, box in boxes.items() if not text.get_rotation()], 2
    ):
        across = min(box.x1, other.x1) - max(box.x0, other.x0)
        down = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert across <= 0 or down <= 2, f"{a.get_text()!r} lies on {b.get_text()!r}"  # 2: room for an accent


def segments(collection: LineCollection) -> np.ndarray:
    """The ends of the lines of a collection, those without nan: f64[lines, 2, 2], (x, y)."""
    return np.array([line for line in collection.get_segments() if len(line) == 2])
