"""The plot of a film's timeline: a panel for each face, its probabilities stacked over time."""

from functools import cache
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MultipleLocator

from fer_jax.core.text import counted
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces.draw import COLOURS
from fer_jax.faces.limits import LIMITS
from fer_jax.faces.timeline import Timeline, Track, clock
from fer_jax.faces.tracks import GAP
from fer_jax.reporting import style

PANELS = 4  # faces at most
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)  # seconds between ticks
POINTS = 1500  # of a panel at most: means of more would not be wider than a pixel


def plot(timeline: Timeline, name: str) -> Figure:
    """Draw the probabilities of the faces that are in most frames of a film.

    Args:
        timeline: has at least one frame.
        name: of the film.
    """
    tracks = timeline.tracks()
    panels = max(min(len(tracks), PANELS), 1)
    title = f"{drawable(name)}, {counted(len(tracks), 'face')}{f', {PANELS} shown' * (len(tracks) > PANELS)}"
    figure = style.chart(1.5 + 1.25 * panels, "Emotions over time", title, timeline.frames, "frame")
    every_axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    end_s = max(timeline.end_s, 0.1)
    step = next((step for step in STEPS if end_s / step <= 8), end_s / 8)
    for axes in every_axes:
        axes.set(xlim=(0, end_s), ylim=(0, 1))
        style.label(axes, "", "")
        axes.set_yticks([0, 0.5, 1])
        axes.yaxis.set_major_formatter(style.percent)
        axes.xaxis.set_major_locator(MultipleLocator(step))
        axes.xaxis.set_major_formatter(lambda time_s, _: clock(time_s) if step < 1 else clock(time_s)[:-2])
    if not tracks:
        every_axes[0].text(0.5, 0.5, "no face was found", ha="center", transform=every_axes[0].transAxes)
    for axes, track in zip(every_axes, sorted(tracks[:PANELS], key=lambda track: track.number), strict=False):
        axes.set_ylabel(f"face {track.number}", fontsize=style.TEXT)
        _stack(axes, track, end_s)
    every_axes[-1].set_xlabel("minutes and seconds since the start", fontsize=style.TEXT)
    handles = [Patch(color=COLOURS[emotion], label=emotion) for emotion in EMOTIONS]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderpad": 0.2}
    every_axes[0].legend(handles=handles, ncols=4, fontsize=style.SMALL, frameon=False, **place)
    figure.supxlabel("\n".join(LIMITS), fontsize=style.TINY, x=0.01, ha="left")
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a file's name may have dollar signs
    return figure


def drawable(name: str) -> str:
    """Return a name with a replacement for each character that matplotlib's font lacks."""
    glyphs = _glyphs()
    return "".join(letter if ord(letter) in glyphs else "\ufffd" for letter in name)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def _stack(axes: Axes, track: Track, end_s: float) -> None:
    """The stacked probabilities of a face, with gaps where it is away, and names where there is room."""
    times, probabilities = _binned(track, end_s)
    steps = np.diff(times)
    step = float(np.median(steps)) if len(steps) else end_s / 100
    starts = np.flatnonzero(steps > max(GAP, 2.5 * step)) + 1
    longest: dict[int, tuple[float, float, float]] = {}  # emotion -> seconds, middle, height
    for some_times, rows in zip(np.split(times, starts), np.split(probabilities, starts), strict=True):
        edges = np.append(some_times, some_times[-1] + step)
        values = np.concatenate([rows, rows[-1:]]).T
        axes.stackplot(edges, values, colors=[COLOURS[emotion] for emotion in EMOTIONS], linewidth=0, step="post")
        winners = rows.argmax(axis=1)
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(winners)) + 1):
            middle = run[len(run) // 2]
            emotion = winners[middle]
            seconds = edges[run[-1] + 1] - edges[run[0]]
            height = rows[middle, :emotion].sum() + rows[middle, emotion] / 2
            if rows[middle, emotion] > 0.4:
                stretch = (seconds, (edges[run[0]] + edges[run[-1] + 1]) / 2, height)
                longest[emotion] = max(longest.get(emotion, stretch), stretch)
    for emotion, (seconds, time_s, height) in longest.items():
        if seconds > 0.14 * end_s:
            axes.text(time_s, height, EMOTIONS[emotion], ha="center", va="center", fontsize=style.TINY, clip_on=True)


def _binned(track: Track, end_s: float) -> tuple[np.ndarray, np.ndarray]:
    """The times and probabilities of a track, averaged to at most POINTS points."""
    if len(track.times) <= POINTS:
        return track.times, track.probabilities
    bins = np.floor(track.times / end_s * (POINTS - 1))
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    counts = np.diff(starts, append=len(bins))
    return track.times[starts], np.add.reduceat(track.probabilities, starts) / counts[:, None]
