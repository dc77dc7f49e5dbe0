"""The outputs of `fer-jax predict`: rows, records, annotated copies, timelines, and files that cannot be read."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from fer_jax.core import cli
from fer_jax.core.errors import UserError
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import inputs, timeline_plot
from fer_jax.faces.face import Face
from fer_jax.faces.limits import LIMITS
from fer_jax.faces.prediction_files import Settings, predict_files
from fer_jax.faces.timeline import Timeline, clock
from fer_jax.faces.writers import Outputs
from tests import films, legible


class StubReader:
    """A reader that finds a face in each image that is not black; bright images are happy, others sad."""

    def detect(self, images: Sequence[Image.Image], prior: float = 0) -> list[list[Face]]:
        return [[face((8, 8, 24, 32), image)] if np.asarray(image).max() > 20 else [] for image in images]

    def predict(self, crops: Sequence[Image.Image], prior: float = 0) -> np.ndarray:
        return np.array([[*face((0, 0, 1, 1), image).emotions.values()] for image in crops]).reshape(-1, 8)


def face(box: tuple[int, int, int, int], image: Image.Image) -> Face:
    happiness = 0.875 if np.asarray(image.convert("L")).mean() > 128 else 0.125
    return Face(box, dict.fromkeys(EMOTIONS, 0.0) | {"happiness": happiness, "sadness": 1 - happiness}, 0.75)


READER: Any = StubReader()


def grey(value: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs, a cut-out face, an image without a face, a damaged one, a text, and a film in a sub-folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    grey(200).save(folder / "a.jpg")
    grey(60).save(folder / "b.webp")
    grey(0).save(folder / "black.png")
    (folder / "broken.png").write_text("no image")
    Image.new("L", (48, 48), 220).save(folder / "cut.png")
    (folder / "notes.txt").write_text("no image")
    grey(200).save(folder / "more" / "a.jpg")
    film = [grey(200)] * 5 + [grey(60)] * 5 + [grey(0)] * 5
    films.write(folder / "more" / "clip.mp4", film, [i / 5 for i in range(15)])
    return folder


def test_each_face_gets_a_row_and_each_image_a_record(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = Outputs(csv=tmp_path / "out.csv", json=tmp_path / "out.json")
    assert predict_files([folder], READER, Settings(recursive=True), outputs) == 1
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    places = [(str(Path(row["file"]).relative_to(folder)), row["time_s"], row["track"], row["emotion"]) for row in rows]
    clip = str(Path("more", "clip.mp4"))
    assert places == [
        *(("a.jpg", "", "", "happiness"), ("b.webp", "", "", "sadness"), ("cut.png", "", "", "happiness")),
        (str(Path("more", "a.jpg")), "", "", "happiness"),
        *((clip, f"{i / 5:.3f}", "1", "happiness" if i < 5 else "sadness") for i in range(10)),
    ]
    assert [rows[0][name] for name in ("face", "x", "y", "width", "height", "found", "probability")] == [
        *("0", "8", "8", "24", "32", "0.7500", "0.875000")
    ]
    assert rows[2]["width"], rows[2]["found"] == ("48", "")

    records = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert len(records) == 5 + 15
    assert [len(record["faces"]) for record in records] == [1, 1, 0, 1, 1] + [1] * 10 + [0] * 5
    assert records[-1]["time_s"] == pytest.approx(2.8)
    assert records[0]["faces"][0]["emotions"]["happiness"] == 0.875

    captured = capsys.readouterr()
    assert "problem: " in captured.err and "broken.png cannot be read as an image" in captured.err  # noqa: PT018
    assert "1 file ignored, without the ending of an image or a film: notes.txt" in captured.err
    assert "1 problem, named above" in captured.err
    lines = captured.out.splitlines()
    assert [line.split()[1:] for line in lines[3:4]] == [["none"]]
    assert "1, 0:00.0 to 0:01.8" in lines[6]
    assert [*LIMITS] == lines[7:9]


def test_a_long_name_keeps_its_end_and_the_table_its_width(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    (deep / "clip.mp4").write_bytes((folder / "more" / "clip.mp4").read_bytes())
    predict_files([deep], READER, Settings(), Outputs())
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("...d") and "d/clip.mp4  1, 0:00.0" in lines[1]  # noqa: PT018
    assert max(map(len, lines)) <= 100


def test_sub_folders_are_read_only_if_asked_for(folder: Path) -> None:
    names = [file.place.name for file in inputs.find([folder]).files]
    assert names == ["a.jpg", "b.webp", "black.png", "broken.png", "cut.png"]
    (folder / "more" / "link").symlink_to(folder)  # leads back
    found = inputs.find([folder / "more", folder], recursive=True)
    assert [str(file.place) for file in found.files] == ["a.jpg", "clip.mp4", *names, "more/a.jpg", "more/clip.mp4"]
    (folder / "empty" / "below").mkdir(parents=True)
    assert "(--recursive looks into its sub-folders)" in inputs.find([folder / "empty"]).problems[0]


def test_cut_out_faces_are_not_searched_for_faces(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert predict_files([folder / "black.png"], READER, Settings(cropped=True), Outputs(csv=out)) == 0
    assert predict_files([folder / "more"], READER, Settings(cropped=True), Outputs(csv=out)) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 1 + 15
    assert [rows[-1][name] for name in ("time_s", "x", "y", "width", "height", "found")] == [
        *("2.800", "8", "0", "48", "48", "")
    ]


def test_copies_and_further_timelines_replace_no_input_and_no_other_output(folder: Path, tmp_path: Path) -> None:
    clip, copies = folder / "more" / "clip.mp4", tmp_path / "copies"
    second = tmp_path / "second.mp4"
    second.write_bytes(clip.read_bytes())
    (tmp_path / "plot-2.png").write_bytes((folder / "cut.png").read_bytes())
    for paths, outputs, name in (
        ([folder], Outputs(annotate=copies, sheet=copies / "cut.png"), "cut.png"),
        ([clip, second, tmp_path / "plot-2.png"], Outputs(timeline=tmp_path / "plot.png"), "plot-2.png"),
        ([clip, second], Outputs(timeline=tmp_path / "new.png", sheet=tmp_path / "new-2.png"), "new-2.png"),
    ):
        with pytest.raises(UserError, match=f"{name} would be replaced"):
            predict_files(paths, READER, Settings(), outputs)
    assert (tmp_path / "plot-2.png").read_bytes() == (folder / "cut.png").read_bytes()
    assert not copies.exists()


def test_annotated_copies_keep_names_sizes_and_times(folder: Path, tmp_path: Path) -> None:
    copies = tmp_path / "new" / "copies"
    copies.parent.mkdir()
    (tmp_path / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    paths = [folder, tmp_path / "a.jpg"]  # two of one name
    predict_files(paths, READER, Settings(recursive=True, every=0.4), Outputs(annotate=copies))
    written = sorted(str(path.relative_to(copies)) for path in copies.rglob("*.*"))
    assert written == ["a-2.jpg", "a.jpg", "b.png", "black.png", "cut.png", "more/a.jpg", "more/clip.mp4"]
    with Image.open(copies / "a.jpg") as image:
        assert image.size == (64, 48)
        assert np.ptp(np.asarray(image.convert("L"))) > 100  # a box and a text
    with Image.open(copies / "cut.png") as image:
        assert image.size == (240, 240)
    with av.open(str(copies / "more" / "clip.mp4")) as film:
        frames = [*film.decode(video=0)]
        assert film.duration == pytest.approx(3.2e6, abs=1e5)  # the last frame stays for a step
    assert [frame.time for frame in frames] == pytest.approx([0.4 * i for i in range(8)], abs=0.01)
    assert (frames[0].width, frames[0].height) == (64, 48)


def test_no_copy_lies_among_the_images(folder: Path, tmp_path: Path) -> None:
    before = (folder / "a.jpg").read_bytes()
    (tmp_path / "link").symlink_to(folder)
    for target in (folder, tmp_path / "link", folder / "more" / ".."):
        with pytest.raises(UserError, match="is a folder of the images: name another"):
            predict_files([folder / "a.jpg"], READER, Settings(), Outputs(annotate=target))
    assert (folder / "a.jpg").read_bytes() == before


def test_every_film_gets_a_timeline(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = folder / "more" / "clip.mp4"
    other = tmp_path / "$x$ 日本.mp4"
    other.write_bytes(clip.read_bytes())
    assert predict_files([clip, other], READER, Settings(), Outputs(timeline=tmp_path / "line.png")) == 0
    for name in ("line.png", "line-2.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size[0] > 500
        assert f"timeline: {tmp_path / name}" in capsys.readouterr().out or name == "line-2.png"


@pytest.mark.parametrize("faces", [0, 1, 6])
def test_a_timeline_can_be_read(faces: int) -> None:
    timeline = Timeline()
    for i in range(2000):
        shown = [face((0, 0, 1, 1), grey(200 if i < 1000 else 0))._replace(track=n + 1) for n in range(faces)]
        timeline.add(i / 10, [] if 500 < i < 700 else shown)
    figure = timeline_plot.plot(timeline, "$talk$.mp4")
    words = legible.words(figure)
    assert f"$talk$.mp4, {faces} face" in words
    assert all(sentence in words for sentence in LIMITS)
    assert ("happiness\n" in words.split("face")[0]) or "no face was found" in words or faces
    legible.check(figure)
    assert timeline_plot.drawable("a日é") == "a\ufffdé"
    assert [clock(time_s) for time_s in (0, 59.96, 3725.21)] == ["0:00.0", "1:00.0", "62:05.2"]


def test_the_sheet_has_the_first_faces(folder: Path, tmp_path: Path) -> None:
    for paths in ([folder / "more"], [folder / "black.png"]):  # the second has no face
        predict_files(paths, READER, Settings(title="base"), Outputs(sheet=tmp_path / "sheet.png"))
        with Image.open(tmp_path / "sheet.png") as image:
            assert image.size[0] > 500


def test_nothing_is_replaced_where_nothing_can_be_read(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("kept")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no film")
    for paths, message in (
        ([folder / "broken.png"], "broken.png cannot be read as an image"),
        ([tmp_path / "text.mp4"], "text.mp4 cannot be read as a film"),
        ([tmp_path / "empty"], "no image or film in .*empty"),
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([folder / "broken.png", tmp_path / "nowhere"], "none of the files could be read"),
    ):
        with pytest.raises(UserError, match=message):
            predict_files(paths, READER, Settings(), Outputs(csv=out))
    assert out.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "out.csv", "photos", "text.mp4"]


def test_an_interrupt_keeps_what_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(StubReader):
        def detect(self, images: Sequence[Image.Image], prior: float = 0) -> list[list[Face]]:
            if images and np.asarray(images[0]).mean() < 40:  # the film's end
                raise KeyboardInterrupt
            return super().detect(images)

    films.write(tmp_path / "long.mp4", [grey(200)] * 8 + [grey(0)] * 8, [i / 5 for i in range(16)])
    reader: Any = Interrupted()
    outputs = Outputs(csv=tmp_path / "out.csv", json=tmp_path / "out.json", annotate=tmp_path / "copies")
    with pytest.raises(KeyboardInterrupt):
        predict_files([folder / "a.jpg", tmp_path / "long.mp4", folder], reader, Settings(), outputs)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 1 + 8
    assert len(json.loads((tmp_path / "out.json").read_text())) == 1 + 8
    with av.open(str(tmp_path / "copies" / "long.mp4")) as film:
        assert len([*film.decode(video=0)]) == 8
    captured = capsys.readouterr()
    assert "stopped after 2 of 7 files; the outputs hold these" in captured.err
    assert "table: " in captured.out


@pytest.mark.slow
def test_sigterm_keeps_what_is_done(folder: Path, tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from tests.test_predict_files import StubReader
from fer_jax.core import cli
from fer_jax.faces.prediction_files import Settings, predict_files
from fer_jax.faces.writers import Outputs
class Slow(StubReader):
    def detect(self, images, prior=0):
        if len(images) == 7:  # the film's end
            os.kill(os.getpid(), signal.SIGTERM)
        return super().detect(images)
films = [Path({str(folder / "more" / "clip.mp4")!r})]
cli.run(lambda: predict_files(films, Slow(), Settings(), Outputs(Path("out.csv"))))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    assert done.returncode == 128 + signal.SIGTERM
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 8
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_names_are_printed_in_the_encoding_of_the_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = folder / "имя 日本.png"
    grey(200).save(image)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli.status(lambda: predict_files([image], READER, Settings(), Outputs())) == 0
    sys.stdout.flush()
    assert rb"\u0438\u043c\u044f \u65e5\u672c.png" in raw.getvalue()


def test_a_closed_pipe_loses_no_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with monkeypatch.context() as patch, open(writing, "w") as pipe:
        patch.setattr(sys, "stdout", pipe)
        outputs = Outputs(csv=tmp_path / "out.csv")
        assert cli.status(lambda: predict_files([folder / "a.jpg"], READER, Settings(), outputs)) == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2
