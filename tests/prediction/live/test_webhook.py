"""Webhooks on a real HTTP server: redirections, failures, and paths, which are the secret of many services."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import live_parts
import pytest
import requests
import streamed

from violence_detection.errors import UserError
from violence_detection.prediction.config import OutputConfig
from violence_detection.prediction.live import watch
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.outputs import ways
from violence_detection.prediction.live.outputs.metrics import MetricsServer
from violence_detection.prediction.live.outputs.webhook import WebhookOutput

MESSAGE = live_parts.news("yard", "new")
#: Paths with the secret where Slack, Discord, Telegram and Home Assistant have it.
SECRET_PATHS = [
    "/services/T0GEHEIM/B0GEHEIM/XXGEHEIMXX",
    "/api/webhooks/123/GEHEIM-token_x?wait=true",
    "/bot123:GEHEIM/sendMessage?chat_id=GEHEIM",
    "/api/webhook/GEHEIM%20and more",
]


class _Server(ThreadingHTTPServer):
    """Answers with the status that begins the path (`/301...`), else 200; redirects to `to`; keeps each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.to, self.got = "/real", list[tuple[str, str, str]]()
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.got.append((self.command, self.path, body))
        code = int(self.path[1:4]) if self.path[1:4].isdigit() else 200
        self.send_response(code)
        if 300 <= code < 400:
            self.send_header("Location", self.server.to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def _sent(url: str, timeout_s: float = 5) -> WebhookOutput:
    output = WebhookOutput(url, timeout_s, 0.01)
    output.send(MESSAGE)
    output.close(10)
    return output


@pytest.mark.parametrize("code", [301, 302, 303])
def test_a_webhook_that_is_elsewhere_has_not_got_the_message_and_says_where_it_is(
    server: _Server, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """A client that follows these asks for the page with GET, without the message."""
    server.to = "/real?token=GEHEIM"
    output = _sent(f"{server.address}/{code}/hook")
    assert (output.sent, output.failed) == (0, 1)
    assert [method for method, _, _ in server.got] == ["POST"]
    assert f"answered {code}: it has moved to {server.address}/real; give that address" in caplog.text
    assert "GEHEIM" not in caplog.text


@pytest.mark.parametrize("code", [307, 308])
def test_a_redirection_that_keeps_the_message_is_followed(server: _Server, code: int) -> None:
    output = _sent(f"{server.address}/{code}/hook")
    assert (output.sent, output.failed) == (1, 0)
    assert [(method, path) for method, path, _ in server.got] == [
        ("POST", f"/{code}/hook"),
        ("POST", "/real"),
    ]
    assert json.loads(server.got[1][2])["id"] == "yard-1"


def test_redirections_that_never_end_are_a_failure(server: _Server, caplog: pytest.LogCaptureFixture) -> None:
    server.to = "/307/again"
    output = _sent(f"{server.address}/307/hook")
    assert (output.sent, output.failed) == (0, 1)
    assert "Exceeded 5 redirects" in caplog.text


def test_why_a_message_did_not_arrive_is_said_in_words(
    server: _Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason was once wrapped in the names of several Python classes, each with host and port."""
    port = streamed.free_port()
    server.to = f"http://127.0.0.1:{port}/"
    for url in (f"http://127.0.0.1:{port}/hook", f"{server.address}/307/hook"):
        _sent(url)
    _sent(f"{server.address}/503/hook")
    with streamed.server_that_says() as silent:
        _sent(f"http://127.0.0.1:{silent}/hook", 0.3)
    said = [message.partition("did not arrive: ")[2] for message in caplog.messages]
    refused = f"127.0.0.1:{port}: Failed to establish a new connection: [Errno 111] Connection refused"
    assert said[:3] == [refused, refused, "too many 503 error responses"]
    assert said[3].startswith(f"127.0.0.1:{silent}: Read timed out.")


@pytest.mark.parametrize("path", SECRET_PATHS)
def test_the_path_of_a_webhook_stands_in_no_log_and_no_figure(
    server: _Server, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """This holds for every answer and failure, and for what the HTTP client logs."""
    caplog.set_level(logging.DEBUG)
    places = [server.address, f"http://127.0.0.1:{streamed.free_port()}"]
    server.to = f"{places[1]}{path}/"
    outputs = [_sent(f"{places[0]}/{code}{path}") for code in (200, 301, 307, 404, 503)]
    outputs.append(_sent(f"{places[1]}{path}"))
    assert [output.failed for output in outputs] == [0, 1, 1, 1, 1, 1]
    figures = MetricsServer("127.0.0.1", 0, [], outputs)
    try:
        told = requests.get(f"http://127.0.0.1:{figures._server.server_port}/metrics", timeout=5).text
    finally:
        figures.close()
    assert f'violence_messages_failed_total{{output="webhook {places[0]}"}} 4.0' in told.splitlines()
    assert f"it has moved to {places[1]}/..." in caplog.text
    assert "503" in caplog.text
    assert "refused" in caplog.text
    assert "GEHEIM" not in told + caplog.text + str([output.name for output in outputs])
    filters = [logging.getLogger(f"urllib3.{name}").filters for name in ("connectionpool", "util.retry")]
    assert filters == [[], []], "closed outputs leave the client's log as it was"


@pytest.mark.parametrize(
    ("begins", "goes_on", "sent"),
    [
        (b"HTTP/1.0 200 OK\r\n", b"X-Wait: 1\r\n", 0),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"more and more", 1),
        (b"HTTP/1.0 500 Sorry\r\n\r\n", b"more and more", 0),
    ],
    ids=["head", "body", "body of an error"],
)
def test_an_answer_that_goes_on_and_on_holds_no_news_up(begins: bytes, goes_on: bytes, sent: int) -> None:
    """Each piece comes within the timeout. All messages behind the first once waited for ever."""
    with streamed.endless(begins, goes_on, every_s=0.1) as port:
        output = WebhookOutput(f"http://127.0.0.1:{port}/hook", 0.3, 0.01)
        for kind in ("new", "end"):
            output.send(live_parts.news("yard", kind))
        output.close(10)
    assert (output.sent, output.failed) == (2 * sent, 2 * (1 - sent))
    assert not output._thread.is_alive()


def test_webhooks_on_one_host_are_told_apart() -> None:
    host = f"http://127.0.0.1:{streamed.free_port()}"
    live = LiveConfig(
        webhook=(f"{host}/a", "https://me:geheim@x.invalid/b", f"http://me:geheim@{host[7:]}/c")
    )
    with ways.opened(live, []) as outboxes:
        names = [outbox.name for outbox in outboxes]
    assert names == [f"webhook {host}", "webhook https://x.invalid", f"webhook {host} 2"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("hooks.example/GEHEIM", "hooks.example"),
        ("htps://me:GEHEIM@hooks.example/GEHEIM", "htps://hooks.example"),
        ("https:/hooks.example/GEHEIM", "https:/hooks.example"),
        ("https://hooks..example/GEHEIM", "https://hooks..example"),
        ("https://hooks.example:0/GEHEIM", "https://hooks.example:0"),
        ("https://hooks.example:x/GEHEIM", "https://hooks.example:x"),
        ("https://*hooks.example/GEHEIM", r"https://\*hooks.example"),
        ("https:///GEHEIM", r"Received: https://$"),
        ("https://me:GEH[EIM@hooks.example/GEHEIM", "https://hooks.example"),
    ],
)
def test_a_webhook_that_cannot_work_is_refused_at_the_start_and_shown_by_its_host(
    url: str, shown: str
) -> None:
    with pytest.raises(UserError, match=shown) as e, ways.opened(LiveConfig(webhook=(url,)), []):
        pass
    with pytest.raises(UserError, match=shown):
        watch.check(LiveConfig(webhook=(url,)), OutputConfig())
    assert "GEH" not in str(e.value)
    assert "EIM" not in str(e.value)
