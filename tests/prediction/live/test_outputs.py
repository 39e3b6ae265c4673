"""Where news go: a real command, a real HTTP server, and figures that are scraped."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import live_parts
import mqtt_broker
import pytest
import requests
from requests.adapters import HTTPAdapter

from violence_detection.errors import UserError
from violence_detection.prediction.event_follower import EventNews
from violence_detection.prediction.events import Event
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs import mqtt, outbox, ways
from violence_detection.prediction.live.outputs.command import CommandOutput
from violence_detection.prediction.live.outputs.metrics import MetricsServer
from violence_detection.prediction.live.outputs.mqtt import MqttOutput
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.outputs.webhook import WebhookOutput


def _message(kind: str = "new", camera: str = "yard") -> EventMessage:
    event = Event(1_795_703_646.5, 1_795_703_651.5, 0.9, 1_795_703_649.0)
    return EventMessage(
        camera, "rtsp://host/s", EventNews(kind, "yard-1", event), 0.5, True, Path("/a/yard-1.jpg")
    )


def test_the_message_has_the_fields_that_programs_read() -> None:
    assert json.loads(_message().text()) == {
        "type": "new", "id": "yard-1", "camera": "yard", "address": "rtsp://host/s",
        "start_s": 1_795_703_646.5, "end_s": 1_795_703_651.5, "peak_s": 1_795_703_649.0, "p_violent": 0.9,
        "threshold": 0.5, "start": "2026-11-26T14:34:06.500Z", "end": "2026-11-26T14:34:11.500Z",
        "snapshot": "/a/yard-1.jpg", "clip": None, "clip_lost_s": None,
    }  # fmt: skip


def test_a_command_gets_json_and_environment_and_no_shell_reads_them(tmp_path: Path) -> None:
    script = tmp_path / "on event.py"
    script.write_text(
        "import os, sys\n"
        f"open({str(tmp_path / 'got')!r}, 'a').write(sys.argv[1] + '|' + os.environ['VIOLENCE_CAMERA'] + '|'"
        " + os.environ['VIOLENCE_CLIP'] + '|' + sys.stdin.read())\n"
    )
    odd = f"$(touch {tmp_path}/hacked); echo"
    output = CommandOutput(f"{sys.executable} '{script}' '$HOME;x'", 10)
    output.send(_message(camera=odd))
    output.close(10)
    word, camera, clip, text = (tmp_path / "got").read_text().split("|")
    assert (word, camera, clip) == ("$HOME;x", odd, "")
    assert json.loads(text)["id"] == "yard-1"
    assert not (tmp_path / "hacked").exists()
    assert (output.sent, output.failed) == (1, 0)


def test_a_slow_or_failing_command_keeps_nobody_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = CommandOutput("sh -c 'sleep 60 & sleep 60'", 0.3)
    began_s = time.monotonic()
    output.send(_message())
    assert time.monotonic() - began_s < 0.1
    output.close(5)
    assert time.monotonic() - began_s < 2
    assert "took more than 0.3 s and was killed" in caplog.text
    for command, said in (("false", "ended with exit code 1"), ("/no/such/command", "No such file")):
        output = CommandOutput(command, 5)
        output.send(_message())
        output.close(5)
        assert output.failed == 1
        assert said in caplog.text
    with pytest.raises(UserError, match="on_event"):
        CommandOutput("a 'b", 5)


class _Server(ThreadingHTTPServer):
    """Answers with `answers` in turn, and then with 200; keeps what it was sent."""

    def __init__(self, answers: list[int]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.got = answers, list[tuple[str, str]]()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        code = self.server.answers.pop(0) if self.server.answers else 200
        if code == 0:
            time.sleep(1)
        self.server.got.append((body, self.headers.get("Authorization", "")))
        self.send_response(code or 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server([503, 0])
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_a_webhook_is_tried_again_and_its_password_shown_nowhere(
    server: _Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The first answer is an error, the second comes too late, the third is taken."""
    caplog.set_level(logging.DEBUG, logger="violence_detection")
    output = WebhookOutput(f"http://me:geheim@127.0.0.1:{server.server_port}/hook", 0.4, 0.05)
    output.send(_message())
    output.close(8)
    assert (output.sent, output.failed) == (1, 0)
    assert json.loads(server.got[-1][0])["camera"] == "yard"
    assert server.got[0][1].startswith("Basic ")
    gone = WebhookOutput(f"http://me:geheim@127.0.0.1:{live_parts.free_port()}/hook", 0.2, 0.05)
    server.answers[:] = [404]
    refused = WebhookOutput(f"http://127.0.0.1:{server.server_port}/hook?key=geheim", 0.4)
    for output in (gone, refused):
        output.send(_message())
    for output in (refused, gone):
        output.close(8)
        assert output.failed == 1
    assert "answered 404" in caplog.text
    assert "geheim" not in caplog.text + gone.name + refused.name
    with pytest.raises(UserError, match="http"):
        WebhookOutput("ftp://host/x", 1)


class _Held(Outbox):
    """Holds each message until it is told to go on."""

    name = "held"

    def __init__(self) -> None:
        self.has_one, self.go_on = threading.Event(), threading.Event()
        super().__init__()

    def deliver(self, message: EventMessage) -> None:
        self.has_one.set()
        self.go_on.wait(5)


class _SlowCount(int):
    """A number that lets other threads go on while it is added to, as any may between reading and writing."""

    def __add__(self, other: int) -> _SlowCount:
        time.sleep(1e-4)
        return _SlowCount(int(self) + other)


def test_every_message_that_is_given_up_counts_whichever_thread_had_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """News come of the thread that judges, and those that wait for a clip of the one that writes clips."""
    monkeypatch.setattr(outbox, "_MOST", 1)
    held = _Held()
    held.send(_message())
    assert held.has_one.wait(5)
    held.failed = _SlowCount(0)

    def send() -> None:
        for _ in range(50):
            held.send(_message())

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given_up = held.failed
    held.go_on.set()
    held.close(5)
    assert given_up == 99, "one waits"


def test_at_the_end_a_webhook_lets_go_of_its_connection(server: _Server) -> None:
    server.answers[:] = []
    output = WebhookOutput(f"http://127.0.0.1:{server.server_port}/hook", 2)
    output.send(_message())
    output.close(5)
    assert output.sent == 1
    adapter = output._session.get_adapter("http://")
    assert isinstance(adapter, HTTPAdapter)
    assert not len(adapter.poolmanager.pools), "no pool keeps a connection"


def test_ways_that_are_open_already_are_closed_where_a_later_one_is_refused() -> None:
    before = set(threading.enumerate())
    live = LiveConfig(webhook=("http://127.0.0.1:1/x", "ftp://host/x"))
    with pytest.raises(UserError, match="http"), ways.opened(live, []):
        pass
    assert set(threading.enumerate()) == before


def test_prometheus_reads_the_figures_of_each_camera(server: _Server) -> None:
    yard, door = CameraState("yard", ""), CameraState("door", "")
    yard.frames, yard.windows, yard.dropped, yard.events, yard.state = 250, 10, 2, 1, "live"
    yard.judged(0.75, 1.5)
    output = WebhookOutput("http://127.0.0.1:1/x", 0.1)
    port = live_parts.free_port()
    figures = MetricsServer("127.0.0.1", port, [yard, door], [output])
    try:
        with pytest.raises(UserError, match="Name another port"):
            MetricsServer("127.0.0.1", port, [], [])
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        yard.frames = 251
        later = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    finally:
        figures.close()
        output.close(1)
    for line in (
        'violence_frames_total{camera="yard"} 250.0',
        'violence_windows_dropped_total{camera="yard"} 2.0',
        'violence_events_total{camera="yard"} 1.0',
        'violence_delay_seconds{camera="yard"} 1.5',
        'violence_probability{camera="yard"} 0.75',
        'violence_camera_state{camera="yard",state="live"} 1.0',
        'violence_camera_state{camera="door",state="live"} 0.0',
        'violence_messages_failed_total{output="webhook http://127.0.0.1:1/x"} 0.0',
    ):
        assert line in text.splitlines()
    assert 'violence_frames_total{camera="yard"} 251.0' in later


@pytest.mark.parametrize("url", ["localhost", "http://host", "mqtt://", "mqtt://host:0", "mqtt://host:x"])
def test_a_broker_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="mqtt must be mqtt://"):
        MqttOutput(url, "violence")


@pytest.mark.parametrize("url", ["http://me:gehe[im@127.0.0.1:1/x", "mqtt://me:gehe]im@127.0.0.1:1"])
def test_an_address_whose_password_has_a_bracket_is_refused_without_it(url: str) -> None:
    live = LiveConfig(webhook=(url,)) if url.startswith("http") else LiveConfig(mqtt=url)
    said = r"127\.0\.0\.1:1.* cannot be read.*percent-encoded"
    with pytest.raises(UserError, match=said) as e, ways.opened(live, []):
        pass
    assert "gehe" not in str(e.value)


def test_a_camera_is_violent_until_the_last_of_its_events_has_ended() -> None:
    """The end of one waits for its clip, and may come behind the beginning of the next. There is no broker here."""
    output = MqttOutput(f"mqtt://me:geheim@127.0.0.1:{live_parts.free_port()}", "violence")
    said = []
    for kind, event_id in (("new", "1"), ("new", "2"), ("end", "1"), ("end", "2")):
        output.deliver(replace(_message(), news=replace(_message().news, kind=kind, event_id=event_id)))
        said.append(output._retained["yard/violence"])
    began_s = time.monotonic()
    output.close(1)
    assert said == ["ON", "ON", "ON", "OFF"]
    assert time.monotonic() - began_s < 2, "a broker that is away keeps nobody from ending"


def test_a_broker_that_comes_late_gets_the_states_of_now(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client keeps three messages for it; what it does not take ends nothing, and states are told later."""
    monkeypatch.setattr(mqtt, "_MOST_WAITING", 3)
    port = live_parts.free_port()
    output, camera = MqttOutput(f"mqtt://127.0.0.1:{port}", "watch"), CameraState("yard", "rtsp://host/s")
    try:
        output.tell_state(camera)
        for kind in ("new", "update", "end"):
            output.send(_message(kind))
        until_s = time.monotonic() + 5
        while output.sent + output.failed < 3 and time.monotonic() < until_s:
            time.sleep(0.01)
        assert (output.sent, output.failed) == (1, 2)
        assert "3 messages wait for the broker already" in caplog.text
        camera.be("live")
        output.tell_state(camera)
        with mqtt_broker.started(port), mqtt_broker.subscribed(port, "watch/#") as heard:
            told = {
                ("watch/yard/state", b"live"),
                ("watch/yard/violence", b"OFF"),
                ("watch/status", b"online"),
            }
            until_s = time.monotonic() + 8
            while not told <= set(heard) and time.monotonic() < until_s:
                output.tell_state(camera)
                time.sleep(0.02)
            assert {topic: text for topic, text in heard if (topic, text) in told} == dict(told)
            assert [text for topic, text in heard if topic == "watch/yard/violence"][-1] == b"OFF"
            output.close(5)
    finally:
        output.close(0)


def test_a_broker_that_is_back_is_not_told_that_all_is_quiet_when_an_event_has_just_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client's thread tells all once more; meanwhile another says ON."""
    output = MqttOutput(f"mqtt://127.0.0.1:{live_parts.free_port()}", "watch")
    output._keep("yard/violence", "OFF")
    output._was_connected = True
    told: list[tuple[str, str | bytes]] = []
    has_one, go_on = threading.Event(), threading.Event()
    publish = output._client.publish

    def slow(topic: str, payload: str | bytes, *how: Any) -> Any:
        if payload == "OFF":
            has_one.set()
            go_on.wait(0.2)
        told.append((topic, payload))
        return publish(topic, payload, *how)

    monkeypatch.setattr(output._client, "publish", slow)
    again = threading.Thread(
        target=output._connected, args=(None, None, None, SimpleNamespace(is_failure=False), None)
    )
    again.start()
    assert has_one.wait(5)
    output._keep("yard/violence", "ON")
    go_on.set()
    again.join()
    output.close(1)
    assert [payload for topic, payload in told if topic == "watch/yard/violence"][-1] == "ON"
