"""The built page, its server and the command: what is served is what was built, small, and with its policy."""

import gzip
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fer_jax import EMOTIONS
from fer_jax.core.errors import UserError
from fer_jax.faces.face import Face
from fer_jax.faces.tracks import Tracker
from fer_jax.web import build, convert, server

ROOT = Path(__file__).parent.parent
MANIFEST = json.loads((server.STATIC / build.MANIFEST).read_text(encoding="utf-8"))
# What a browser that may use threads loads before its first answer.
LOADED = [
    *("index.html", "page.css", "page.js", "worker.js", "icon.svg", "base.bin", "yunet.bin"),
    *(f"tfjs/tfjs-backend-wasm-threaded-simd{ending}" for ending in (".js", ".wasm", ".worker.js")),
]


def fetch(url: str, **headers: str) -> tuple[dict[str, str], bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
        return dict(response.headers), response.read()


def test_what_is_served_is_what_was_built(address: str) -> None:
    assert build.digests(build.outputs(server.STATIC)) == MANIFEST["files"], "run make page"
    for name in MANIFEST["files"]:
        _, content = fetch(address + name)
        assert content == (server.STATIC / name).read_bytes()


def test_the_page_was_built_of_today_s_sources() -> None:
    assert build.digests(build.inputs()) == MANIFEST["made of"], "run make page"


TRACKS = """
import { Tracks } from "./tracks.js";
let text = "";
for await (const part of process.stdin) text += part;
const tracks = new Tracks();
console.log(JSON.stringify(JSON.parse(text).map(([time, faces]) => tracks.update(time, faces))));
"""


def test_the_page_follows_faces_as_films_do() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    rng = np.random.default_rng(0)
    places = rng.integers(0, 200, (3, 2))
    frames: list[tuple[float, list[Face]]] = []
    for time_s in np.cumsum(rng.choice([0.04, 0.3, 0.8, 4], 300, p=[0.6, 0.2, 0.15, 0.05])):  # some are rare
        places += rng.integers(-9, 10, places.shape)
        votes = rng.dirichlet(np.ones(len(EMOTIONS)), len(places))
        faces = [
            Face((int(x), int(y), 60, 70), dict(zip(EMOTIONS, map(float, vote), strict=True)), 0.9)
            for (x, y), vote in zip(places, votes, strict=True)
            if rng.random() < 0.7
        ]
        frames.append((float(time_s), [faces[i] for i in rng.permutation(len(faces))]))
    given = [(time, [{"box": f.box, "emotions": list(f.emotions.values())} for f in faces]) for time, faces in frames]
    done = subprocess.run(
        [node, "--input-type=module", "-e", TRACKS],
        cwd=build.SOURCE,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    tracker = Tracker(smooth=0.5)
    expected = [tracker.update(time, faces) for time, faces in frames]
    seen = json.loads(done.stdout)
    assert [[f["track"] for f in faces] for faces in seen] == [[f.track for f in faces] for faces in expected]
    assert max(f.track or 0 for faces in expected for f in faces) > 10
    for mine, theirs in zip(seen, expected, strict=True):
        emotions = [list(f.emotions.values()) for f in theirs]
        np.testing.assert_allclose([f["emotions"] for f in mine], emotions, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_build_gives_the_same_files(tmp_path: Path) -> None:
    if not (build.SOURCE / "node_modules").is_dir():
        pytest.skip("the page's parts are not installed: make page installs them")
    build.build(tmp_path / "page")
    network = f"{build.NETWORK}.bin"
    built = build.digests(build.outputs(tmp_path / "page"))
    assert {**built, network: ""} == {**MANIFEST["files"], network: ""}
    # Another version of JAX may round the last bit of a folded weight otherwise.
    for new, old in zip(weights(tmp_path / "page" / network), weights(server.STATIC / network), strict=True):
        np.testing.assert_allclose(new, old, rtol=2e-3, atol=1e-6)


def weights(path: Path) -> list[np.ndarray]:
    data = path.read_bytes()
    start = 4 + int.from_bytes(data[:4], "little")
    header = json.loads(data[4:start])
    types = ("<f4", "<f2")
    return [np.frombuffer(data, types[w["half"]], w["count"], start + w["start"]) for w in header["weights"]]


def test_the_first_answer_needs_less_than_4_megabytes(address: str) -> None:
    sizes = {}
    for name in LOADED:
        headers, content = fetch(address + name, **{"Accept-Encoding": "gzip"})
        assert headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(content) == (server.STATIC / name).read_bytes()
        sizes[name] = len(content)
    assert sum(sizes.values()) < 4e6, sizes


def test_the_headers_allow_threads_and_nothing_from_elsewhere(address: str) -> None:
    for path in ("", "worker.js", "tfjs/tfjs-backend-wasm-threaded-simd.wasm"):
        headers, _ = fetch(address + path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert not re.search(r"https?:|\*|'unsafe-eval'|'unsafe-inline'|data:|blob:", policy)
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Content-Type"] == "application/wasm"
    page = (server.STATIC / "index.html").read_text(encoding="utf-8")
    own = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', page)
    assert own is not None
    assert server.HEADERS["Content-Security-Policy"] == f"{own[1]}; frame-ancestors 'none'"


@pytest.mark.parametrize("path", ["none.html", "../server.py", "%2e%2e/server.py", "tfjs/"])
def test_other_paths_are_not_served(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(address + path)
    assert error.value.code == 404


def test_the_page_says_what_the_card_says() -> None:
    page = " ".join((server.STATIC / "index.html").read_text(encoding="utf-8").split())
    card = (server.STATIC / "card.txt").read_text(encoding="utf-8")
    accuracy = re.search(r"^\*\*base: accuracy ([\d.]+)%", card, re.MULTILINE)
    assert accuracy is not None
    assert f"gives {float(accuracy[1]):.1f} % of the faces" in page
    assert "must not be used" in page
    assert 'href="card.txt"' in page


def test_the_licences_of_all_parts_are_there() -> None:
    text = (server.STATIC / "licences.txt").read_text(encoding="utf-8")
    for part in (
        "tfjs-backend-wasm",
        "XNNPACK",
        "Emscripten",
        "libfacedetection",
        "BSD-3-Clause",
        "MIT",
        "TERMS AND CONDITIONS FOR USE",
    ):
        assert part in text
    lock = json.loads((build.SOURCE / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"]["node_modules/@tensorflow/tfjs-backend-wasm"]["version"] in text


def test_a_port_that_is_taken() -> None:
    with server.server(0) as http, pytest.raises(UserError, match=r"port .* cannot be used .*--port"):
        server.server(http.server_port)


def test_a_browser_that_leaves_in_the_middle_of_an_answer(capfd: pytest.CaptureFixture[str]) -> None:
    with server.server(0) as http:
        http.daemon_threads = False  # the end of the block waits for the answer
        with socket.create_connection(http.server_address[:2]) as browser:
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
            browser.sendall(b"GET /base.bin HTTP/1.1\r\n\r\n")
            http.handle_request()
            browser.recv(1)
    assert capfd.readouterr().err == ""


def test_the_page_is_written_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.write(tmp_path / "site")
    assert build.digests(build.outputs(tmp_path / "site")) == MANIFEST["files"]
    assert "index.html" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists already"):
        server.write(tmp_path / "site")


def test_the_command_serves_the_page() -> None:
    command = [sys.executable, "-m", "fer_jax", "demo", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert address is not None
            assert b"<h1>" in fetch(address[0])[1]
        finally:
            process.terminate()
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none(port: str) -> None:
    command = [sys.executable, "-m", "fer_jax", "demo", "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "name a number from 0 to 65535" in done.stderr


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("image", "result")]
    numbers = [helper.make_tensor(name, TensorProto.INT64, [1], [i]) for i, name in enumerate(("zero", "one", "two"))]
    return helper.make_model(helper.make_graph([*nodes], "test", tensors[:1], tensors[1:], numbers))


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Tanh", ["image"], ["result"]),
        helper.make_node("Relu", ["image"], ["result"]),
        helper.make_node("Transpose", ["image"], ["result"], perm=[1, 0, 2, 3]),
        helper.make_node("MaxPool", ["image"], ["result"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("Concat", ["image", "image"], ["result"], axis=2),
        helper.make_node("Slice", ["image", "zero", "one", "two", "one"], ["result"]),
    ],
)
def test_operations_that_the_page_does_not_know_are_refused(node: onnx.NodeProto) -> None:
    with pytest.raises(ValueError, match="no rule"):
        convert.convert(model(node), {})
