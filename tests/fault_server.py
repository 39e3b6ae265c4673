"""An HTTP server on 127.0.0.1 that serves files like an object store, speaks enough of Kaggle's API for its real
client, and misbehaves on command.

It also accepts requests with an absolute address, so it can be the proxy through which the Kaggle client reaches its
`http://localhost`.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "KGAT_0123456789secretsecret"
LEGACY_KEY = "legacykey0123456789"
SIGNATURE = "0badc0ffeesignature"


@dataclass
class Served:
    """A file with its headers."""

    body: bytes
    etag: str | None = None
    ranges: bool = True
    content_type: str = "application/zip"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return self.etag if self.etag is not None else f'"{hashlib.md5(self.body).hexdigest()}"'


#: A fault answers the request itself and returns True, or returns False, and the request is answered as usual.
Fault = Callable[["Handler"], bool]


class FaultServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        #: Kaggle slug -> path in `files`
        self.datasets: dict[str, str] = {}
        self.faults: deque[Fault] = deque()  # each request for a file uses up one
        self.api_faults: deque[Fault] = deque()  # likewise, for DownloadDataset
        self.log_in_faults: deque[Fault] = deque()  # likewise, for IntrospectToken
        self.signature = SIGNATURE
        self.log: list[tuple[str, str, dict[str, str], int]] = []  # method, path, headers, status

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def requests_for(self, path: str) -> list[dict[str, str]]:
        return [headers for _, p, headers, _ in self.log if urlsplit(p).path == path]

    def encrypt(self, folder: Path) -> None:
        """Speak TLS from now on, with an untrusted certificate made in `folder`. Needs the openssl command."""
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subject = ["-subj", "/CN=127.0.0.1", "-newkey", "rsa:2048", "-nodes", "-x509"]
        command = ["openssl", "req", *subject, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer
    cut_after: int | None = None
    afterwards: Callable[[], None] | None = None
    reset = False

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._read_body()
        address = urlsplit(self.path)
        if self.server.faults and self.server.faults.popleft()(self):
            return
        if "sig" in (query := parse_qs(address.query)) and query["sig"] != [self.server.signature]:
            self.answer(403, b"<Error>Signature expired</Error>", {"Content-Type": "application/xml"})
            return
        served = self.server.files.get(address.path)
        if served is None:
            self.answer(404, b"no such file")
        else:
            self.serve(served)

    def do_CONNECT(self) -> None:
        """As the proxy of an encrypted connection, require a log-in."""
        self.answer(407, b"", {"Proxy-Authenticate": "Basic"})

    def do_POST(self) -> None:
        request = json.loads(self._read_body() or b"{}")
        call = urlsplit(self.path).path.rpartition("/")[2]
        if call == "IntrospectToken" and self.server.log_in_faults:
            self.server.log_in_faults.popleft()(self)
        elif call == "IntrospectToken":
            active = request.get("token") == TOKEN
            self.answer_json({"active": active, "username": "someone" if active else ""})
        elif call == "DownloadDataset":
            self._download_dataset(f"{request['ownerSlug']}/{request['datasetSlug']}")
        else:
            self.answer_json({"code": 404, "message": f"no {call}"}, 404)

    def _download_dataset(self, slug: str) -> None:
        import base64

        basic = "Basic " + base64.b64encode(f"someone:{LEGACY_KEY}".encode()).decode()
        if self.server.api_faults and self.server.api_faults.popleft()(self):
            return
        if self.headers.get("Authorization") not in (f"Bearer {TOKEN}", basic):
            self.answer_json({"code": 401, "message": "Unauthenticated"}, 401)
        elif slug not in self.server.datasets:
            self.answer_json({"code": 404, "message": "not found"}, 404)
        else:
            location = f"{self.server.url}{self.server.datasets[slug]}?sig={self.server.signature}"
            self.answer(302, b"", {"Location": location})

    def _read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def serve(self, served: Served) -> None:
        """Answer with the file, with Range and If-Range as in RFC 9110."""
        headers = {"Content-Type": served.content_type, "ETag": served.tag, **served.headers}
        wanted = self.headers.get("Range")
        fresh = self.headers.get("If-Range", served.tag) == served.tag
        if served.ranges and wanted and fresh:
            start, size = int(wanted.removeprefix("bytes=").rstrip("-")), len(served.body)
            if start >= size:
                self.answer(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self.answer(206, served.body[start:], headers)
            return
        if served.ranges:
            headers["Accept-Ranges"] = "bytes"
        self.answer(200, served.body, headers)

    def answer_json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.server.log.append((self.command, self.path, dict(self.headers), status))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.cut_after is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: self.cut_after])
        self.wfile.flush()
        if self.afterwards:
            self.afterwards()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection within an answer: with a reset, which may destroy data already sent, or without."""
        self.close_connection = True
        if self.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def cut(after: int, *, reset: bool = False) -> Fault:
    """Send the headers and `after` bytes of the body, then break the connection."""

    def fault(handler: Handler) -> bool:
        handler.cut_after, handler.reset = after, reset
        return False

    return fault


def chunked(cut_after: int | None = None) -> Fault:
    """Send the file in chunks without a length, like archives of repositories; cut off after `cut_after` bytes."""

    def fault(handler: Handler) -> bool:
        body = handler.server.files[urlsplit(handler.path).path].body
        handler.server.log.append((handler.command, handler.path, dict(handler.headers), 200))
        handler.send_response(200)
        handler.send_header("Content-Type", "application/zip")
        handler.send_header("ETag", 'W/"weak"')
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(body), 10_000):
            if cut_after is not None and start >= cut_after:
                handler.hang_up()
                return True
            piece = body[start : start + 10_000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")
        return True

    return fault


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"no") -> Fault:
    """Answer with a status code."""

    def fault(handler: Handler) -> bool:
        handler.answer(code, body, headers)
        return True

    return fault


def html(title: str) -> Fault:
    """Answer 200 with a web page."""
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>Sign in</body></html>".encode()
    return status(200, {"Content-Type": "text/html; charset=utf-8"}, page)


def stall(seconds: float) -> Fault:
    """Send nothing for a while, then hang up."""

    def fault(handler: Handler) -> bool:
        time.sleep(seconds)
        handler.hang_up()
        return True

    return fault


def short_body(announced: int, body: bytes) -> Fault:
    """Announce more bytes than are sent, and close the connection properly."""

    def fault(handler: Handler) -> bool:
        handler.answer(200, body, {"Content-Length": str(announced), "Content-Type": "application/zip"})
        handler.close_connection = True
        return True

    return fault


def cut_and(after: int, action: Callable[[], None]) -> Fault:
    """Break the connection as `cut` does, and run `action`, which changes something on the server, just before."""

    def fault(handler: Handler) -> bool:
        handler.cut_after, handler.afterwards = after, action
        return False

    return fault


@contextmanager
def running() -> Iterator[FaultServer]:
    """Run a server for the length of a with block."""
    server = FaultServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
