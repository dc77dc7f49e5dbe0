"""The server of the page: the files of a folder, compressed, for this computer alone."""

import gzip
import os
import shutil
import sys
import uuid
import webbrowser
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from fer_jax.core import atomic
from fer_jax.core.errors import UserError
from fer_jax.core.termination import TerminatedError

STATIC = Path(__file__).parent / "static"
HOST = "127.0.0.1"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".bin": "application/octet-stream",
}
# With the second and third of these a browser lets the page share memory between threads.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
        "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Permissions-Policy": "camera=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _File(NamedTuple):
    type: str
    content: bytes
    compressed: bytes


def _read(path: Path) -> _File:
    content = path.read_bytes()
    return _File(TYPES[path.suffix], content, gzip.compress(content, mtime=0))


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for a set of files."""

    protocol_version = "HTTP/1.1"

    def __init__(self, files: dict[str, _File], *arguments: object) -> None:
        self._files = files
        super().__init__(*arguments)  # type: ignore[arg-type]  # the request, the address and the server

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        file = self._files.get("/index.html" if path == "/" else path)
        if file is None:
            self.send_error(404)
            return
        compressed = "gzip" in self.headers.get("Accept-Encoding", "")
        content = file.compressed if compressed else file.content
        self.send_response(200)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if compressed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Vary", "Accept-Encoding")
        self.send_header("Content-Type", file.type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *values: object) -> None:
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    allow_reuse_address = os.name != "nt"  # Windows would let a second server take the port of the first

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent when the browser leaves in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def server(port: int) -> ThreadingHTTPServer:
    """Return a server of the page that listens on a port of this computer; 0 for any free one.

    Raises:
        UserError: the port is taken, or not allowed.
    """
    served = [path for path in STATIC.rglob("*") if path.suffix in TYPES]  # not those of file managers, as .DS_Store
    files = {f"/{path.relative_to(STATIC).as_posix()}": _read(path) for path in served}
    try:
        return _Server((HOST, port), partial(_Handler, files))
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}): name another one with --port") from None


def serve(port: int, in_browser: bool) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        port: of this computer; 0 for any free one.
        in_browser: open the page in the default browser.

    Raises:
        UserError: the port cannot be used.
    """
    with server(port) as http:
        address = f"http://{HOST}:{http.server_port}/"
        print(f"the page: {address} (Ctrl-C ends it)", flush=True)
        if in_browser:
            webbrowser.open(address)
        try:
            http.serve_forever()
        except TerminatedError:
            raise
        except KeyboardInterrupt:
            print()


def write(folder: Path) -> None:
    """Copy the page to a folder, for any static host: all of it or nothing.

    Raises:
        DiskError: the disk is full.
        UserError: the folder exists and holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: name a new or an empty folder")
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        for path in sorted(path for path in STATIC.rglob("*") if path.suffix in TYPES):
            copy = staging / path.relative_to(STATIC)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with atomic.writing(folder):
                shutil.copyfile(path, copy)
        if folder.is_dir():
            folder.rmdir()
        os.replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    print(f"the page: {folder / 'index.html'}; browsers run it from a server, not from the file")
