"""Films and cameras: times, turned films, sampling, memory, identity of faces, smoothing, and what cannot be read."""

import math
import wave
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax.core.errors import UserError
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import tracks, video
from fer_jax.faces.face import Box, Face
from tests import films

UNEVEN = [0, 0.04, 0.08, 0.5, 0.54, 1.2, 2, 2.04, 3]  # seconds


def face(box: Box = (10, 10, 40, 40), happiness: float = 1.0) -> Face:
    emotions = dict.fromkeys(EMOTIONS, 0.0) | {"neutral": 1 - happiness, "happiness": happiness}
    return Face(box, emotions, 0.9)


def nobody(images: Sequence[Image.Image]) -> list[list[Face]]:
    return [[] for _ in images]


def plain(count: int) -> list[Image.Image]:
    """Images that are white in their top left corner."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:16, :16] = 255
    return [Image.fromarray(pixels)] * count


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_times_are_those_of_the_file(tmp_path: Path, ending: str) -> None:
    times = [i / 25 for i in range(9)] if ending == "avi" else UNEVEN  # AVI has one rate
    film = films.write(tmp_path / f"film.{ending}", plain(9), times)
    assert [frame.time_s for frame in video.read(film, nobody)] == pytest.approx(times, abs=1e-3)


def test_a_film_starts_at_zero(tmp_path: Path) -> None:
    film = films.write(tmp_path / "film.mkv", plain(9), [5 + time_s for time_s in UNEVEN])
    assert [frame.time_s for frame in video.read(film, nobody)] == pytest.approx(UNEVEN, abs=1e-3)


def test_the_first_frame_of_each_interval_is_read(tmp_path: Path) -> None:
    film = films.write(tmp_path / "film.mp4", plain(9), UNEVEN)
    times = [frame.time_s for frame in video.read(film, nobody, every=0.5)]
    assert times == pytest.approx([0, 0.5, 1.2, 2, 3])
    even = films.write(tmp_path / "even.mp4", plain(60), [i / 30 for i in range(60)])
    times = [frame.time_s for frame in video.read(even, nobody, every=0.2)]
    assert times == pytest.approx([i / 5 for i in range(10)], abs=2e-3)


@pytest.mark.parametrize(("turn", "corner"), [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_a_turned_film_is_upright(tmp_path: Path, turn: int, corner: tuple[int, int]) -> None:
    film = films.write(tmp_path / "film.mp4", plain(2), [0, 0.1], turn)
    frames = [*video.read(film, nobody, images=True)]
    pixels = np.asarray(frames[0].image)
    assert pixels.shape == ((64, 48, 3) if turn in (90, 270) else (48, 64, 3))
    white = [(row, column) for row in (0, -1) for column in (0, -1) if pixels[row, column, 0] > 200]
    assert white == [corner]


def test_an_image_comes_only_if_asked_for(tmp_path: Path) -> None:
    film = films.write(tmp_path / "film.mp4", plain(2), [0, 0.1])
    assert [frame.image for frame in video.read(film, nobody)] == [None, None]


def test_few_frames_are_in_memory(tmp_path: Path) -> None:
    film = films.write(tmp_path / "film.mp4", plain(100), [i / 25 for i in range(100)])
    references: list[weakref.ref] = []

    def detect(images: Sequence[Image.Image]) -> list[list[Face]]:
        references.extend(map(weakref.ref, images))
        return [[] for _ in images]

    alive = [sum(r() is not None for r in references) for _ in video.read(film, detect, images=True)]
    assert len(references) == len(alive) == 100
    assert max(alive) <= video.CHUNK + 1  # one is in the caller's hands


def test_a_film_is_closed_when_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = video.Film.close
    monkeypatch.setattr(video.Film, "close", lambda film: (closed.append(film.name), close(film)))
    frames = video.read(films.write(tmp_path / "film.mp4", plain(30), [i / 25 for i in range(30)]), nobody)
    next(frames)
    assert closed == []
    del frames
    assert closed == [str(tmp_path / "film.mp4")]


def test_what_is_no_film_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "nothing.mp4").touch()
    with wave.open(str(tmp_path / "sound.mp4"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    for name, message in (
        ("text.mp4", "text.mp4 cannot be read as a film: Invalid data"),
        ("sound.mp4", "sound.mp4 has no video stream"),
        ("nothing.mp4", "nothing.mp4 cannot be read as a film: it is empty"),
        ("nowhere.mp4", "nowhere.mp4 cannot be read as a film: No such file"),
        (".", "cannot be read as a film: Is a directory"),
    ):
        with pytest.raises(UserError, match=message) as error:
            video.read(tmp_path / name, nobody)
        assert "\n" not in str(error.value)
    for source in (None, True, 1.5, b"film.mp4"):
        with pytest.raises(TypeError, match="give a path, or the number of a camera"):
            video.read(source, nobody)  # type: ignore[arg-type]
    for options in ({"every": -1}, {"every": math.nan}, {"smooth": -0.1}, {"smooth": math.inf}):
        with pytest.raises(ValueError, match="must be a number of seconds, 0 or more"):
            video.read(tmp_path / "text.mp4", nobody, **options)  # type: ignore[arg-type]


def test_damaged_parts_are_skipped_with_a_warning(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    film = films.write(
        tmp_path / "film.avi", [*map(Image.fromarray, noise)], [i / 25 for i in range(20)], codec="mjpeg"
    )
    content = bytearray(film.read_bytes())
    start = content.index(b"\xff\xd8\xff", len(content) // 2)  # of a JPEG image
    content[start : start + 2000] = bytes(2000)
    film.write_bytes(content)
    with pytest.warns(UserWarning, match=r"film\.avi: 1 damaged packet skipped"):
        times = [frame.time_s for frame in video.read(film, nobody)]
    assert len(times) == 19
    assert times[-1] == pytest.approx(19 / 25)
    film.write_bytes(content[: len(content) // 2])  # as after a broken transfer
    assert 5 <= len([*video.read(film, nobody)]) < 15


class FakeCamera:
    """OpenCV's camera with a few images."""

    def __init__(self, images: int = 0, is_open: bool = True) -> None:
        self.images, self.is_open = images, is_open

    def set(self, *_: float) -> None: ...

    def isOpened(self) -> bool:  # noqa: N802
        return self.is_open

    def read(self) -> tuple[bool, Any]:
        self.images -= 1
        return self.images >= 0, np.full((4, 6, 3), (0, 100, 255), np.uint8)

    def release(self) -> None:
        self.is_open = False


def test_a_camera_that_is_absent_or_stops_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeCamera(is_open=False))
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(UserError, match="camera 3 cannot be opened: no camera is connected, or another program"):
        video.read(3, nobody)
    assert cv2.utils.logging.getLogLevel() == level > 0  # silenced for this camera only
    camera = FakeCamera(images=2)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
    frames = video.read(0, nobody, images=True)
    first = next(frames)
    assert first.image is not None
    assert first.image.getpixel((0, 0)) == (255, 100, 0)  # OpenCV gives blue first
    assert 0 <= first.time_s < 1 and next(frames).time_s >= first.time_s  # noqa: PT018
    with pytest.raises(UserError, match="camera 0 sends no images"):
        next(frames)
    assert not camera.is_open


def test_a_camera_is_sampled_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeCamera(images=10))
    clock = SimpleNamespace(time_s=100.0)

    def monotonic() -> float:
        clock.time_s += 0.05  # two calls for each image
        return clock.time_s

    monkeypatch.setattr(video, "monotonic", monotonic)
    frames = video.read(0, nobody, every=0.3)
    assert [next(frames).time_s for _ in range(4)] == pytest.approx([0.05, 0.35, 0.65, 0.95])
    with pytest.raises(UserError, match="sends no images"):
        next(frames)


def test_faces_keep_their_number_while_they_overlap() -> None:
    tracker = tracks.Tracker()

    def numbers(time_s: float, *boxes: Box) -> list[int | None]:
        return [seen.track for seen in tracker.update(time_s, [face(box) for box in boxes])]

    left, right = (0, 0, 40, 40), (100, 0, 40, 40)
    assert numbers(0.0, left, right) == [1, 2]
    assert numbers(0.1, (100, 5, 40, 40), (10, 0, 40, 40)) == [2, 1]  # in any order
    assert numbers(0.2, (10, 0, 40, 40)) == [1]
    assert numbers(0.3, (10, 0, 40, 40), (60, 0, 40, 40), right) == [1, 3, 2]  # back within a second
    assert numbers(0.4, left) == [1]
    assert numbers(1.2, left) == [1]
    assert numbers(1.5, left, right) == [1, 4]  # back after more than a second
    assert numbers(9.5, left) == [1]  # the frame before is always looked at: rare frames lose nobody
    assert numbers(19.5) == []
    assert numbers(19.6, left) == [5]


def test_the_best_overlap_wins() -> None:
    tracker = tracks.Tracker()
    tracker.update(0, [face((0, 0, 40, 40)), face((30, 0, 40, 40))])
    assert [seen.track for seen in tracker.update(0.1, [face((20, 0, 40, 40)), face((4, 0, 40, 40))])] == [2, 1]
    assert tracks.overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert tracks.overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0


def test_probabilities_are_smoothed_by_time() -> None:
    tracker = tracks.Tracker(smooth=0.5)
    assert tracker.update(0, [face(happiness=1)])[0].emotions["happiness"] == 1
    for time_s in (0.1, 0.4):  # uneven steps
        (seen,) = tracker.update(time_s, [face(happiness=0)])
        assert seen.emotions["happiness"] == pytest.approx(math.exp(-time_s / 0.5))
        assert sum(seen.emotions.values()) == pytest.approx(1)
    newcomer = tracker.update(0.5, [face((200, 0, 40, 40), happiness=0)])[0]
    assert newcomer.emotions["happiness"] == 0


@pytest.mark.slow
def test_emotions_of_drawn_faces_change_at_the_right_times(tmp_path: Path) -> None:
    reader = fer_jax.load("base")
    times = [i / 25 for i in range(30)] + [1.2 + i / 10 for i in range(12)] + [2.4 + i / 25 for i in range(20)]
    emotions = [("happiness", "surprise", "anger", "sadness")[int(time_s / 0.8 + 1e-6)] for time_s in times]
    images = {emotion: films.drawn(emotion) for emotion in emotions}
    film = films.write(tmp_path / "film.mp4", [images[emotion] for emotion in emotions], times)
    frames = [*reader.video(film, every=0.2)]
    assert {len(frame.faces) for frame in frames} == {1}
    assert {frame.faces[0].track for frame in frames} == {1}
    changes = [
        (frame.time_s, frame.faces[0].emotion)
        for before, frame in zip([None, *frames], frames, strict=False)
        if before is None or frame.faces[0].emotion != before.faces[0].emotion
    ]
    assert [emotion for _, emotion in changes] == ["happiness", "surprise", "anger", "sadness"]
    assert [time_s for time_s, _ in changes] == pytest.approx([0, 0.8, 1.6, 2.4], abs=0.01)

    table = fer_jax.table(frames)
    assert [*table.columns[:3]] == ["time_s", "face", "track"]
    assert len(table) == len(frames)
    assert {"track", "box", "found"} <= {*frames[0].faces[0].as_dict()}

    tracker = tracks.Tracker(smooth=0.4)
    late = [(frame.time_s, tracker.update(frame.time_s, frame.faces)[0].emotion) for frame in frames]
    change = next(time_s for time_s, emotion in late if emotion == "surprise")
    assert 1 <= change <= 1.3  # 0.8 + 0.4 ln 2, and up to a step of 0.2
    with pytest.raises(ValueError, match="prior=2 must be in"):
        next(reader.video(film, prior=2))
