"""The faces of a camera as they are seen: in a window, and as rows of a table."""

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from fer_jax.core.termination import TerminatedError
from fer_jax.core.text import counted, printable
from fer_jax.faces import records, video
from fer_jax.faces.reader import Reader
from fer_jax.faces.timeline import clock
from fer_jax.faces.video import Frame
from fer_jax.faces.view import view
from fer_jax.faces.window import Window


def watch(
    reader: Reader,
    source: int | Path,
    csv_file: Path | None,
    window: bool,
    every: float = 0,
    smooth: float = 0.5,
    prior: float = 0,
) -> None:
    """Show the faces of a camera until the window is closed or until Ctrl-C, and write each row at once.

    Args:
        reader: the networks.
        source: the number of a camera, or a film that is shown at its speed.
        csv_file: the file for the table, or None.
        window: show a window.
        every, smooth, prior: see `Reader.video`.

    Raises:
        TerminatedError: SIGTERM or a closed terminal ended it; the table is complete.
        UserError: no camera, no display, or a film that cannot be read.
    """
    detect = partial(reader.detect, prior=prior)
    name = printable(source) if isinstance(source, Path) else f"camera {source}"
    count = faces = 0
    time_s = 0.0
    stopped: KeyboardInterrupt | None = None
    with ExitStack() as stack:
        shown = Window(f"{name} - fer_jax") if window else None
        if shown is not None:
            stack.callback(shown.close)
        # after the window: a film that is opened and never read stays open
        frames = video.read(source, detect, every, smooth, images=True, warn=print, chunk=1)
        table = stack.enter_context(open(csv_file, "w", newline="", encoding="utf-8")) if csv_file else None
        if table is not None:
            csv.writer(table).writerow(records.HEADER)
        try:
            for frame in _paced(frames) if window and isinstance(source, Path) else frames:
                count, faces, time_s = count + 1, faces + len(frame.faces), frame.time_s
                if table is not None:
                    csv.writer(table).writerows(records.rows(Path(name), frame.time_s, frame.faces))
                    table.flush()
                if shown is not None and frame.image is not None:
                    shown.show(view(frame.image, frame.faces))
                    if not shown.is_open:
                        break
        except KeyboardInterrupt as error:
            stopped = error
    if csv_file:
        print(f"table: {printable(csv_file)}, {counted(faces, 'row')}")
    print(f"{counted(count, 'frame')} in {clock(time_s)} of {name}")
    if isinstance(stopped, TerminatedError):  # Ctrl-C is the usual end without a window
        raise stopped


def _paced(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The frames of a film, none before its time."""
    start = None
    for frame in frames:
        start = monotonic() - frame.time_s if start is None else start
        sleep(max(0, start + frame.time_s - monotonic()))
        yield frame
