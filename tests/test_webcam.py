"""The webcam command: its window, its table, and what it says without a camera or a display."""

import csv
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_jax import webcam
from fer_jax.core.errors import UserError
from fer_jax.core.termination import TerminatedError
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import live, view, window
from fer_jax.faces.draw import COLOURS
from fer_jax.faces.face import Face
from tests import films


class StubReader:
    """A reader that finds one face, or more, in each image."""

    def __init__(self, faces: int = 1) -> None:
        self.faces = faces

    def detect(self, images: Sequence[Image.Image], prior: float = 0) -> list[list[Face]]:
        return [[face(i) for i in range(self.faces)] for _ in images]


def face(place: int = 0) -> Face:
    emotions = dict.fromkeys(EMOTIONS, 0.0) | {"happiness": 0.75, "sadness": 0.25}
    return Face((4 + 40 * place, 10, 24, 30), emotions, 0.9, 1 + place)


READER: Any = StubReader()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return films.write(
        tmp_path / "film.mp4", [Image.new("RGB", (160, 96), (90, 90, 90))] * 6, [i / 50 for i in range(6)]
    )


class FakeWindow:
    """A window that its user closes after some images."""

    def __init__(self, title: str) -> None:
        self.images: list[Image.Image] = []
        self.is_open = True
        windows.append(self)

    def show(self, image: Image.Image) -> None:
        self.images.append(image)
        self.is_open = len(self.images) < 4

    def close(self) -> None:
        self.is_open = False


windows: list[FakeWindow] = []


def test_every_frame_is_shown_and_written_until_the_window_is_closed(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "Window", FakeWindow)
    live.watch(READER, film, tmp_path / "out.csv", window=True)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["time_s"] for row in rows] == ["0.000", "0.020", "0.040", "0.060"]
    assert {row["track"] for row in rows} == {"1"}
    assert len(windows[-1].images) == 4
    out = capsys.readouterr().out
    assert f"table: {tmp_path / 'out.csv'}, 4 rows" in out
    assert f"4 frames in 0:00.1 of {film}" in out


def test_without_a_window_the_table_is_written(film: Path, tmp_path: Path) -> None:
    live.watch(READER, film, tmp_path / "out.csv", window=False)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 6


def test_rows_stay_after_signals_and_after_the_camera_is_lost(film: Path, tmp_path: Path) -> None:
    class Stopping(StubReader):
        def detect(self, images: Sequence[Image.Image], prior: float = 0) -> list[list[Face]]:
            self.faces += 1
            if self.faces == 4:
                raise error
            return super().detect(images)[:1]

    for error in (KeyboardInterrupt(), TerminatedError(), UserError("camera 0 sends no images")):
        reader: Any = Stopping()
        with nullcontext() if type(error) is KeyboardInterrupt else pytest.raises(type(error)):
            live.watch(reader, film, tmp_path / "out.csv", window=False)
        assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 2 + 3


def test_without_a_camera_nothing_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCamera:
        def __init__(self, number: int) -> None: ...

        def set(self, *_: float) -> None: ...

        def isOpened(self) -> bool:  # noqa: N802
            return False

    monkeypatch.setattr(cv2, "VideoCapture", NoCamera)
    out = tmp_path / "out.csv"
    out.write_text("kept")
    with pytest.raises(UserError, match="camera 0 cannot be opened") as caught:
        live.watch(READER, 0, out, window=False)
    assert "\n" not in str(caught.value)
    assert out.read_text() == "kept"


def test_without_a_display_or_tkinter_one_line_says_so(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tkinter = pytest.importorskip("tkinter")

    def no_display() -> None:
        raise tkinter.TclError("no display name and no $DISPLAY environment variable")

    monkeypatch.setattr(tkinter, "Tk", no_display)
    out = tmp_path / "out.csv"
    with pytest.raises(UserError, match=r"no window can be opened \(no display name .*\): give --no-window"):
        live.watch(READER, film, out, window=True)
    assert not out.exists()
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(UserError, match="this Python has no tkinter for a window: install it"):
        window.Window("title")


def test_options_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--no-window"], "--no-window needs --csv FILE"),
        (["--camera", "-1"], "--camera must be 0 or more"),
        (["--camera", "1", "--source", "film.mp4"], "not allowed with"),
        (["--every", "x"], "'x' is no number"),
        (["--prior", "2"], "2 must be in 0..1"),
    ):
        with pytest.raises(SystemExit):
            webcam.main(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("size", [(160, 96), (96, 160), (1920, 1080)])
def test_the_view_has_boxes_and_bars(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (90, 90, 90))
    empty, one, many = (np.asarray(view.view(image, [face(i) for i in range(n)])) for n in (0, 1, 5))
    assert empty.shape == one.shape == many.shape
    assert empty.shape[0] <= view.SIZE[1] + view.FOOTER
    width = empty.shape[1] - view.PANEL
    colour = tuple(bytes.fromhex(COLOURS["sadness"][1:]))
    bar = (one[:, width:] == colour).all(axis=2).sum(axis=1).max()
    assert bar == 26  # 100 pixels for 100 %, and the edge
    assert (one[:, :width] == tuple(bytes.fromhex(COLOURS["happiness"][1:]))).all(axis=2).any()  # the box
    assert (many != one).any()
    footer = one[-view.FOOTER :]
    assert (footer > 200).all(axis=2).any()


def test_a_window_shows_images_and_closes_by_key() -> None:
    try:
        shown = window.Window("title")
    except UserError as error:
        pytest.skip(str(error))
    shown.show(Image.new("RGB", (320, 200), (200, 0, 0)))
    assert shown.is_open
    shown._root.focus_force()  # without a window manager
    shown._root.event_generate("<Escape>", when="tail")
    shown.show(Image.new("RGB", (320, 200)))
    assert not shown.is_open
    shown.close()
