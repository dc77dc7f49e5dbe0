"""The page in a real browser: it answers as Python does, says what it cannot do, and sends nothing anywhere."""

import base64
import csv
import io
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, browser
from PIL import Image, ImageFilter, ImageOps
from skimage import data

import fer_jax
from fer_jax.data import images
from fer_jax.data.labels import EMOTIONS
from fer_jax.faces import crop
from fer_jax.faces.reader import Reader
from fer_jax.web import server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
AXE = ROOT / "fer_jax/web/source/node_modules/axe-core/axe.min.js"
ORIENTATION = 0x0112  # the EXIF tag
STATUS = "document.getElementById('status').textContent"
# A worker of its own gives the crops too; the page's worker gives them to the page alone.
READ = """
new Promise((resolve) => {
  const bytes = Uint8Array.from(atob("%s"), (c) => c.charCodeAt(0));
  globalThis.reader ??= new Worker("worker.js");
  reader.onmessage = ({ data }) => {
    if (data.ready) return;
    data.image?.close();
    resolve({ ...data, image: null, faces: data.faces?.map((face) => ({ ...face, crop: [...face.crop] })) });
  };
  reader.postMessage({ id: 1, file: new Blob([bytes]) });
})
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film for the fake camera: the astronaut's face, which moves a little."""
    path = tmp_path_factory.mktemp("film") / "face.mjpeg"
    frames = []
    for shift in range(20):
        frame = io.BytesIO()
        Image.fromarray(data.astronaut()).crop((shift, 0, shift + 480, 360)).resize((640, 480)).save(frame, "JPEG")
        frames.append(frame.getvalue())
    path.write_bytes(b"".join(frames))
    return path


@pytest.fixture(scope="module")
def started(address: str, film: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with browser(folder / "profile", *camera, f"--use-file-for-fake-video-capture={film}") as chromium:
        chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
        yield chromium


@pytest.fixture
def fresh(started: Browser, address: str) -> Browser:
    """The page, freshly loaded."""
    started.events.clear()
    started.open(address)
    started.wait(f"{STATUS} === 'Ready.'")
    started.run("globalThis.isLoaded = true")
    return started


@pytest.fixture
def page(started: Browser, request: pytest.FixtureRequest) -> Browser:
    """The page, which may have read other files before; it is loaded only if no test has done so."""
    return started if started.run("globalThis.isLoaded") else request.getfixturevalue("fresh")


@pytest.fixture(scope="module")
def base() -> Reader:
    return fer_jax.load("base")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


def answer(page: Browser, file: Path) -> str:
    """The page's words about an image."""
    # The line says that it reads the file first, so an answer equal to the last one is a change too.
    page.run(
        "answered = null; new MutationObserver((_, observer) => {"
        f"if (!{STATUS}.startsWith('Reading')) {{answered = {STATUS}; observer.disconnect()}}"
        "}).observe(document.getElementById('status'), {childList: true})"
    )
    page.choose("#file", file)
    return page.wait("answered")


def reading(page: Browser, file: Path) -> list[dict[str, Any]]:
    """The faces that the worker finds in a file."""
    result = page.run(READ % base64.b64encode(file.read_bytes()).decode())
    assert "error" not in result
    return result["faces"]


def variants(photo: Image.Image, folder: Path) -> dict[str, Path]:
    """A photograph in many files: rotated by EXIF, transparent, grey, deep, small, large, dark, turned."""
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(photo.size).point(lambda value: 255 - value // 2))
    grey = photo.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    saved: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "plain.png": (photo, {}),
        "quality.jpg": (photo, {"quality": 80}),
        "transparent.png": (clear, {}),
        "transparent.webp": (clear, {"lossless": True}),
        "palette.gif": (photo.quantize(64), {}),
        "grey.jpg": (grey, {"quality": 90}),
        "deep.png": (deep, {}),
        "small.png": (photo.resize((90, 90), Image.Resampling.LANCZOS), {}),
        "large.jpg": (photo.resize((1600, 1600), Image.Resampling.BICUBIC), {"quality": 90}),
        "dark.png": (photo.point(lambda value: round(value * 0.15)), {}),
        "turned.png": (photo.rotate(40, center=(222, 119)), {}),
        "edge.png": (photo.crop((200, 60, 512, 400)), {}),
        # Faces of which the network is not sure: errors would not show in probabilities of 0 and 1.
        **{f"blurred{sigma}.png": (photo.filter(ImageFilter.GaussianBlur(sigma)), {}) for sigma in (4, 6, 8)},
        "camera.png": (Image.fromarray(data.camera()), {}),
    }
    for turn, back in {3: 3, 5: 5, 6: 8, 8: 6}.items():  # the file holds the photograph turned back
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        saved[f"exif{turn}.jpg"] = (_turned(photo, back), {"exif": exif, "quality": 95})
    for name, (image, options) in saved.items():
        image.save(folder / name, **options)
    return {name: folder / name for name in saved}


def _turned(photo: Image.Image, orientation: int) -> Image.Image:
    copy = photo.copy()
    copy.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(copy)


def test_faces_crops_and_numbers_equal_those_of_python(
    page: Browser, base: Reader, astronaut: Image.Image, tmp_path: Path
) -> None:
    files = variants(astronaut, tmp_path)
    expected = base.detect([str(file) for file in files.values()])
    assert len(files) >= 12
    assert sum(face.probability < 0.9 for faces in expected for face in faces) >= 3
    for (name, file), faces in zip(files.items(), expected, strict=True):
        found = reading(page, file)
        assert len(found) == len(faces) > 0, name
        for one, other in zip(found, faces, strict=True):
            np.testing.assert_allclose(one["box"], other.box, atol=max(1, 0.02 * other.box[2]), err_msg=name)
            assert one["found"] == pytest.approx(other.found, abs=0.01), name
            pixels = np.array(one["crop"], np.uint8).reshape(48, 48)
            same_box = crop.cut(images.read(file), one["box"])
            assert np.abs(pixels.astype(int) - same_box).mean() <= 2, name
            views = np.stack([pixels, pixels[:, ::-1]])
            np.testing.assert_allclose(one["emotions"], base.predict(views).mean(axis=0), atol=0.01, err_msg=name)
            np.testing.assert_allclose(one["emotions"], [*other.emotions.values()], atol=0.05, err_msg=name)


def test_one_face_its_bars_and_its_numbers(page: Browser, base: Reader) -> None:
    assert answer(page, ROOT / "docs/photo.jpg") == "One face found: happiness 100 %."
    assert page.run("document.querySelectorAll('#faces > li').length") == 1
    bars = page.run("[...document.querySelectorAll('#faces ul li')].map((row) => row.textContent)")
    assert bars == [f"{name}{'100 %' if name == 'happiness' else '0 %'}" for name in EMOTIONS]
    (face,) = base.detect(str(ROOT / "docs/photo.jpg"))
    saved = json.loads(download(page, "#save-json"))
    assert [record["file"] for record in saved] == ["photo.jpg"]
    ((record,),) = [record["faces"] for record in saved]
    assert record.keys() == face.as_dict().keys()
    assert (record["box"], record["emotion"]) == (list(face.box), "happiness")
    assert record["emotions"] == pytest.approx(face.emotions, abs=0.01)
    (row,) = csv.DictReader(io.StringIO(download(page, "#save-csv")))
    assert [int(row[key]) for key in ("face", "x", "y", "width", "height")] == [0, *face.box]
    assert float(row["happiness"]) == pytest.approx(face.emotions["happiness"], abs=0.01)


def download(page: Browser, button: str) -> str:
    """The text of the file that a button saves."""
    page.run("saved = null; globalThis.create ??= URL.createObjectURL")
    page.run("URL.createObjectURL = (blob) => create((saved = blob))")
    page.run(f"document.querySelector('{button}').click()")
    return page.run("saved.text()")


def test_an_expression_is_named_only_where_the_network_is_sure(
    page: Browser, astronaut: Image.Image, tmp_path: Path
) -> None:
    astronaut.filter(ImageFilter.GaussianBlur(5.7)).save(tmp_path / "blurred.png")
    assert answer(page, tmp_path / "blurred.png") == "One face found: not sure."
    assert page.run("document.querySelector('#faces .name').textContent") == "not sure"


def test_labels_are_numbers_alone_where_names_would_overlap(
    page: Browser, astronaut: Image.Image, tmp_path: Path
) -> None:
    head = astronaut.crop((160, 30, 290, 210)).resize((78, 108))
    labels = []
    for gap in (2, 400):
        pair = Image.new("RGB", (1000, 600), (90, 100, 110))
        for x in (100, 178 + gap):
            pair.paste(head, (x, 200))
        pair.save(tmp_path / f"{gap}.png")
        answer(page, tmp_path / f"{gap}.png")
        labels.append(page.run("document.getElementById('canvas').dataset.labels"))
    assert labels == ["1; 2", "1 happiness; 2 happiness"]


def test_a_missing_camera_is_named_and_the_button_works_again(page: Browser) -> None:
    refused = "() => Promise.reject(new DOMException('', 'NotFoundError'))"
    page.run(f"navigator.mediaDevices.getUserMedia = {refused}; document.getElementById('webcam').click()")
    assert page.wait(f"{STATUS}.includes('camera') && {STATUS}") == "No camera was found: connect one, and try again."
    assert not page.run("document.getElementById('webcam').disabled")
    page.run("delete navigator.mediaDevices.getUserMedia")  # the browser's own is used again


def test_a_file_that_is_no_image_empties_the_stage(page: Browser, tmp_path: Path) -> None:
    Image.new("RGB", (300, 2000), (90, 100, 110)).save(tmp_path / "tall.png")
    (tmp_path / "text.png").write_text("no image")
    answer(page, tmp_path / "tall.png")
    tall = page.run("document.getElementById('stage').offsetHeight")
    assert "cannot be read" in answer(page, tmp_path / "text.png")
    assert page.run("document.getElementById('stage').offsetHeight") < tall / 2


def test_five_faces_and_none(page: Browser, astronaut: Image.Image, tmp_path: Path) -> None:
    head = astronaut.crop((140, 10, 310, 210))
    group = Image.new("RGB", (1100, 260), (90, 100, 110))
    for i in range(5):
        group.paste(head, (20 + 215 * i, 30))
    group.save(tmp_path / "five.png")
    assert answer(page, tmp_path / "five.png").startswith("5 faces found: happiness")
    assert page.run("document.querySelectorAll('#faces > li').length") == 5
    assert page.run(STATUS) == "5 faces found: happiness 5."
    Image.fromarray(data.coffee()).save(tmp_path / "none.png")
    assert answer(page, tmp_path / "none.png") == "No face found."
    assert page.run("document.querySelectorAll('#faces > li').length") == 0


def test_a_file_that_is_no_image(page: Browser, tmp_path: Path) -> None:
    photo = (ROOT / "docs/photo.jpg").read_bytes()
    for name, content in {"text.jpg": b"no image", "empty.png": b"", "start.png": photo[:400]}.items():
        (tmp_path / name).write_bytes(content)
        words = answer(page, tmp_path / name)
        assert words.startswith(f"{name} cannot be read as an image")
        assert page.run("document.getElementById('save-json').disabled")
    assert answer(page, ROOT / "docs/photo.jpg").startswith("One face")


def test_an_image_of_50_megapixels(page: Browser, astronaut: Image.Image, tmp_path: Path) -> None:
    """More than are kept as bytes at once: it is read by parts."""
    astronaut.resize((8400, 6000), Image.Resampling.NEAREST).save(tmp_path / "large.jpg", quality=50)
    assert answer(page, tmp_path / "large.jpg").startswith("One face found: happiness")


def test_a_dropped_and_a_pasted_photograph(page: Browser) -> None:
    photo = base64.b64encode((ROOT / "docs/photo.jpg").read_bytes()).decode()
    events = {
        "drop": "DragEvent('drop', {dataTransfer: given})",
        "paste": "ClipboardEvent('paste', {clipboardData: given})",
    }
    for field, event in events.items():
        page.run(
            f"{{const bytes = Uint8Array.from(atob('{photo}'), (c) => c.charCodeAt(0));"
            "const given = new DataTransfer();"
            f"given.items.add(new File([bytes], '{field}.jpg')); document.dispatchEvent(new {event})}}"
        )
        page.wait(f"document.getElementById('canvas').ariaLabel.startsWith('{field}.jpg with boxes')")


def test_the_webcam(page: Browser) -> None:
    page.run("document.getElementById('webcam').click()")
    page.wait(f"{STATUS} === 'Webcam: one face found.'")
    face = "document.querySelector('#faces > li')"
    page.run(f"globalThis.first = {face}")
    page.run(  # until ten frames are shown
        "new Promise((resolve) => {let frames = 0; const shown = new MutationObserver(() => {"
        "if (++frames === 10) {shown.disconnect(); resolve()}});"
        "shown.observe(document.getElementById('faces'), {subtree: true, childList: true, characterData: true,"
        "attributes: true})})"
    )
    assert page.run(f"first === {face} && document.querySelectorAll('#faces > li').length === 1")
    assert page.run("document.querySelector('#faces .name').textContent") == "happiness"
    assert page.run("document.getElementById('webcam').ariaPressed") == "true"
    page.run("document.getElementById('webcam').click()")
    assert page.run(STATUS) == "The webcam is off."
    (record,) = json.loads(download(page, "#save-json"))
    assert record["file"] == "webcam"
    assert record["faces"][0]["emotion"] == "happiness"


def test_no_request_leaves_the_page(fresh: Browser, address: str) -> None:
    page = fresh
    answer(page, ROOT / "docs/photo.jpg")
    requests = [event["params"] for event in page.events if event["method"] == "Network.requestWillBeSent"]
    paths = {request["request"]["url"].removeprefix(address) for request in requests}
    assert {"page.js", "worker.js", "base.bin", "yunet.bin"} <= paths  # the worker's requests are among them
    assert not [path for path in paths if ":" in path]
    assert {request["request"]["method"] for request in requests} == {"GET"}
    blocked = page.run("fetch('http://127.0.0.2:9/').then(() => 'sent', (error) => `${error}`)")
    assert blocked == "TypeError: Failed to fetch"
    violations = [event for event in page.events if event["method"] == "Log.entryAdded"]
    assert any("Content Security Policy" in event["params"]["entry"]["text"] for event in violations)


def test_it_works_offline_once_it_is_loaded(page: Browser) -> None:
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.emulateNetworkConditions", offline=True, **offline)
    try:
        assert answer(page, ROOT / "docs/photo.jpg").startswith("One face found")
    finally:
        page.call("Network.emulateNetworkConditions", offline=False, **offline)


def test_threads_give_the_same_answer(started: Browser, address: str) -> None:
    started.call("Emulation.setHardwareConcurrencyOverride", hardwareConcurrency=3)
    try:
        started.open(address)
        started.wait(f"{STATUS} === 'Ready.'")
        assert started.run("[crossOriginIsolated, document.documentElement.dataset.threads]") == [True, "2"]
        assert answer(started, ROOT / "docs/photo.jpg") == "One face found: happiness 100 %."
    finally:
        started.call("Emulation.setHardwareConcurrencyOverride", hardwareConcurrency=2)


def test_it_works_without_threads_from_any_host(started: Browser, tmp_path: Path) -> None:
    """A host that sends no headers: the page may not share memory, and the policy comes from the page itself."""
    server.write(tmp_path / "site")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Plain, directory=str(tmp_path / "site"))) as http:
        threading.Thread(target=http.serve_forever).start()
        try:
            started.open(f"http://127.0.0.1:{http.server_port}/")
            started.wait(f"{STATUS} === 'Ready.'")
            assert started.run("[crossOriginIsolated, document.documentElement.dataset.threads]") == [False, "1"]
            assert answer(started, ROOT / "docs/photo.jpg") == "One face found: happiness 100 %."
            assert started.run("fetch('http://127.0.0.2:9/').then(() => '', (error) => error.name)") == "TypeError"
        finally:
            http.shutdown()


class _Plain(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_cut_off_at_any_width(page: Browser, width: int) -> None:
    page.resize(width, 800)
    answer(page, ROOT / "docs/photo.jpg")
    assert page.run("document.documentElement.scrollWidth") <= width
    outside = (
        "[...document.querySelectorAll('body *')].filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1"
        " && getComputedStyle(e).display !== 'inline').map((e) => e.outerHTML.slice(0, 80))"
    )
    assert page.run(outside) == []


def test_the_keyboard_reaches_everything(page: Browser) -> None:
    answer(page, ROOT / "docs/photo.jpg")
    page.run("document.activeElement.blur()")
    reached = []
    for _ in range(7):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(page.run("document.activeElement.id || document.activeElement.textContent"))
    assert reached == ["file", "webcam", "save-image", "save-json", "save-csv", "the model card", "Licences"]
    assert page.run("document.getElementById('status').getAttribute('role')") == "status"


def test_reduced_motion_stops_the_bars(page: Browser) -> None:
    answer(page, ROOT / "docs/photo.jpg")
    duration = "getComputedStyle(document.querySelector('.bar i')).transitionDuration"
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "no-preference"}])
    assert page.run(duration) == "0.25s"
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert page.run(duration) == "0s"
    page.call("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(page: Browser, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: make page installs it")
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    answer(page, ROOT / "docs/photo.jpg")
    page.run(AXE.read_text(encoding="utf-8"))
    faults = page.run("axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))")
    page.call("Emulation.setEmulatedMedia", features=[])
    assert faults == []


def test_memory_stays_flat_over_100_frames(fresh: Browser) -> None:
    """The memory of the browser after 30 and after 130 frames of the webcam."""
    page = fresh
    page.run("document.getElementById('webcam').click()")
    page.run("frames = 0; new MutationObserver(() => frames++).observe(document.documentElement, {attributes: true})")
    sizes = []
    for count in (30, 130):
        page.wait(f"frames >= {count}", patience_s=300)
        page.call("HeapProfiler.collectGarbage")
        sizes.append(resident())
    page.run("document.getElementById('webcam').click()")
    assert sizes[1] < sizes[0] + 50e6  # a leak of each frame's bytes, 1.2 MB, would be 120 MB


def resident() -> int:
    """The resident memory of the browser's processes, in bytes."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {os.getpid()}
    for _ in range(8):
        family |= {child for child, parent in parents.items() if parent in family}
    family.discard(os.getpid())
    pages = [
        int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in family if Path(f"/proc/{child}").exists()
    ]
    return sum(pages) * os.sysconf("SC_PAGESIZE")
